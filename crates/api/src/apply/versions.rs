//! Managers write in the version they know, and their entries of `managedFields` name it. What a write changes is worked
//! out in each of those versions, since a field may have another name there, or none.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::managed::ownable;
use super::{Comparison, FieldSet, Writer, compare};
use crate::schema::Schema;

/// The versions of a kind, to whoever writes in one of them.
pub trait Versions: fmt::Debug + Send + Sync {
    /// `None` where the version is no more.
    fn schema(&self, api_version: &str) -> Option<Schema>;
    /// An object of any of the versions in this one, in canonical form.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;
}

/// Of a kind that nobody knows the versions of there is one.
pub(super) fn is_own(writer: &Writer<'_>, api_version: &str) -> bool {
    writer.versions.is_none() || writer.api_version == api_version
}

pub(super) fn schema_of(writer: &Writer<'_>, api_version: &str) -> Option<Option<Schema>> {
    match writer.versions {
        Some(versions) if !is_own(writer, api_version) => versions.schema(api_version).map(Some),
        _ => Some(writer.schema.cloned()),
    }
}

/// An object in another version; as it is where it is of that version.
pub(super) fn view(writer: &Writer<'_>, object: &Value, api_version: &str) -> Option<Value> {
    let held = object.get("apiVersion").and_then(Value::as_str).unwrap_or(writer.api_version);
    match writer.versions {
        Some(versions) if held != api_version => versions.convert(object, api_version),
        _ => Some(object.clone()),
    }
}

/// What a write comes to in one version.
pub(super) struct Change {
    /// Added or given another value.
    pub set: FieldSet,
    pub removed: FieldSet,
}

impl Change {
    fn of(comparison: Comparison, writer: &Writer<'_>) -> Self {
        Self {
            set: ownable(comparison.added.with(comparison.modified), writer),
            removed: ownable(comparison.removed, writer),
        }
    }
}

/// What a write comes to, in whichever version is asked for.
pub(super) struct Changes<'a> {
    old: &'a Value,
    new: &'a Value,
    writer: &'a Writer<'a>,
    pub own: Change,
    others: BTreeMap<String, Option<Change>>,
}

impl<'a> Changes<'a> {
    pub fn new(old: &'a Value, new: &'a Value, comparison: Comparison, writer: &'a Writer<'a>) -> Self {
        Self { old, new, writer, own: Change::of(comparison, writer), others: BTreeMap::new() }
    }

    /// `None` where the version is no more.
    pub fn of(&mut self, api_version: &str) -> Option<&Change> {
        if is_own(self.writer, api_version) {
            return Some(&self.own);
        }
        if !self.others.contains_key(api_version) {
            let change = self.compared(api_version);
            self.others.insert(api_version.to_owned(), change);
        }
        self.others.get(api_version)?.as_ref()
    }

    fn compared(&self, api_version: &str) -> Option<Change> {
        let schema = schema_of(self.writer, api_version)??;
        let (old, new) = (self.view(self.old, api_version)?, self.view(self.new, api_version)?);
        Some(Change::of(compare(&old, &new, Some(&schema)), self.writer))
    }

    fn view(&self, object: &Value, api_version: &str) -> Option<Value> {
        if object.is_null() { Some(Value::Null) } else { view(self.writer, object, api_version) }
    }
}
