//! The versions that a kind is served in, as field ownership needs them.

use std::fmt;
use std::sync::Arc;

use api::apply::Versions;
use api::kinds::Kind;
use api::schema::Schema;
use serde_json::Value;

use super::input;
use crate::ApiServer;

/// All versions of a resource.
pub struct Served(Vec<Arc<Kind>>);

impl Served {
    /// Nothing of a kind that is served in one version, nor of one that only a webhook can convert, which takes its time:
    /// such a kind's fields are taken to have the same names in all.
    pub fn of(server: &ApiServer, kind: &Kind) -> Option<Box<dyn Versions>> {
        let kinds = server.0.catalog.snapshot();
        if kinds.converter(&kind.group, &kind.plural).is_some() {
            return None;
        }
        let mut all = kinds.equivalents(kind);
        if all.is_empty() {
            return None;
        }
        all.extend(kinds.of_version(&kind.group, &kind.version).find(|k| k.plural == kind.plural).cloned());
        Some(Box::new(Self(all)))
    }

    fn kind(&self, api_version: &str) -> Option<&Kind> {
        self.0.iter().map(|kind| &**kind).find(|kind| kind.api_version() == api_version)
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|kind| kind.api_version())).finish()
    }
}

impl Versions for Served {
    fn schema(&self, api_version: &str) -> Option<Schema> {
        input::schema_of(self.kind(api_version)?)
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let held = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        let (from, to) = (self.kind(held)?, self.kind(api_version)?);
        let mut object = to.to_served(from.to_stored(object));
        if let Value::Object(map) = &mut object {
            map.insert("apiVersion".into(), api_version.into());
        }
        input::canonicalize(to, &mut object);
        Some(object)
    }
}
