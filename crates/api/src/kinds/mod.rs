//! The kinds table. A kind is one file here and one line of [`builtin`]; routes, discovery, OpenAPI, RBAC,
//! printing and the coverage tests are iterations over the table. A CustomResourceDefinition becomes an
//! entry of the same form at run time.

mod admission;
mod apps;
mod authentication;
mod authorization;
mod batch;
mod coordination;
mod core;
mod custom;
mod discovery;
mod extensions;
pub mod names;
mod policy;
mod rbac;
mod scheduling;
mod storage;
mod typed;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::Column;
use crate::status::{FieldError, Resource};

pub use custom::{CustomResource, ScalePaths, from_definition};
pub use rbac::GROUP as RBAC_GROUP;
pub use typed::{Build, Errors};

type Text = Cow<'static, str>;

/// Why an object was refused before it reached the store.
#[derive(Debug)]
pub enum Rejection {
    /// It does not have the kind's shape at all.
    Decode(String),
    Fields(Vec<FieldError>),
}

/// What a kind does with its objects. All of it is pure.
pub trait Behaviour: Send + Sync {
    /// Defaults, prepares and validates a new object.
    fn create(&self, object: Value) -> Result<Value, Rejection>;
    /// The same for a new version of `old`.
    fn update(&self, object: Value, old: &Value) -> Result<Value, Rejection>;
    /// `object` is `old` with another status.
    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection>;
    /// The cells of `columns`, in their order.
    fn row(&self, object: &Value) -> Vec<Value>;
    /// Selectable fields beside `metadata.name` and `metadata.namespace`.
    fn fields(&self, object: &Value) -> Vec<(String, String)>;
}

#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of its body.
    pub gvk: (&'static str, &'static str, &'static str),
    pub verbs: &'static [&'static str],
}

/// Where a kind's objects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Below this prefix, by namespace and name.
    Stored(Text),
    /// Answered at once and never kept (the reviews).
    Virtual,
}

pub struct Kind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    pub namespaced: bool,
    pub verbs: &'static [&'static str],
    pub storage: Storage,
    pub has_status: bool,
    pub has_generation: bool,
    pub name_rule: names::Rule,
    pub scale: Option<ScalePaths>,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    pub behaviour: Arc<dyn Behaviour>,
    /// Selectable fields that a selector may name; `metadata.*` always may.
    pub selectable: Vec<Text>,
    /// How long objects live, when not for ever (events).
    pub ttl_seconds: Option<u64>,
    /// Set for custom resources.
    pub custom: Option<Arc<CustomResource>>,
}

pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
pub const CREATE_ONLY: &[&str] = &["create"];
const READ_WRITE: &[&str] = &["get", "patch", "update"];

impl Kind {
    pub fn resource(&self) -> Resource<'_> {
        Resource { group: &self.group, plural: &self.plural }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        match &*self.group {
            "" => self.version.to_string(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The store's key of an object, or the prefix of all in a namespace or everywhere.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let Storage::Stored(prefix) = &self.storage else { return String::new() };
        match (self.namespaced, namespace) {
            (true, "") => format!("{prefix}/"),
            (true, namespace) => format!("{prefix}/{namespace}/{name}"),
            (false, _) => format!("{prefix}/{name}"),
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn is_virtual(&self) -> bool {
        self.storage == Storage::Virtual
    }
}

/// Every built-in kind, in the order of discovery.
pub fn builtin() -> &'static [Arc<Kind>] {
    static TABLE: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
        [
            core::kinds(),
            admission::kinds(),
            apps::kinds(),
            authentication::kinds(),
            authorization::kinds(),
            batch::kinds(),
            coordination::kinds(),
            discovery::kinds(),
            extensions::kinds(),
            policy::kinds(),
            rbac::kinds(),
            scheduling::kinds(),
            storage::kinds(),
        ]
        .into_iter()
        .flatten()
        .map(Arc::new)
        .collect()
    });
    &TABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let mut seen = std::collections::HashSet::new();
        for kind in builtin() {
            let label = format!("{} {}", kind.api_version(), kind.kind);
            assert!(
                seen.insert((kind.group.clone(), kind.version.clone(), kind.plural.clone())),
                "{label} twice"
            );
            assert_eq!(kind.has_status, kind.subresource("status").is_some(), "{label}: status");
            assert_eq!(kind.scale.is_some(), kind.subresource("scale").is_some(), "{label}: scale");
            assert!(kind.is_virtual() || !kind.columns.is_empty(), "{label}: no columns");
            let object = serde_json::json!({"apiVersion": kind.api_version(), "kind": &*kind.kind,
                "metadata": {"name": "a"}});
            assert_eq!(
                kind.behaviour.row(&object).len(),
                kind.columns.len(),
                "{label}: a cell for each column"
            );
        }
    }
}
