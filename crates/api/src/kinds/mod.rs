//! The kinds table. A kind is one file here and one line of [`builtin`]; routes, discovery, OpenAPI, RBAC,
//! printing and the coverage tests are iterations over the table. A CustomResourceDefinition becomes an
//! entry of the same form at run time.

mod admission;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod conversion;
mod coordination;
mod core;
mod custom;
mod discovery;
mod events;
mod extensions;
mod flowcontrol;
pub mod metadata;
pub mod names;
mod network;
mod networking;
mod node;
mod part;
mod policy;
mod printed;
mod rbac;
mod read;
mod registration;
mod resource;
mod scheduling;
mod storage;
mod typed;
mod validate;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::Column;
use crate::status::{FieldError, Resource};

pub use conversion::{Conversion, Convert};
pub use custom::{CustomResource, ScalePaths, from_definition};
/// What the status of definitions says.
pub use extensions::naming as definitions;
pub use part::{FINALIZE, Part};
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
    /// Fills in what every object of the kind has. What cannot be decoded stays as it is: validation will tell.
    fn defaulted(&self, object: Value) -> Value {
        object
    }
    /// Defaults, prepares and validates a new object. What whoever wrote it is to be warned of goes to `warned`.
    fn create(&self, object: Value, warned: &mut Vec<String>) -> Result<Value, Rejection>;
    /// The same for a new version of `old`.
    fn update(&self, object: Value, old: &Value, warned: &mut Vec<String>) -> Result<Value, Rejection>;
    /// `object` is `old` with another status.
    fn update_status(&self, object: Value, old: &Value) -> Result<Value, Rejection>;
    /// `object` is `old` with another part, of those that have a subresource.
    fn update_part(&self, _part: &Part, object: Value, _old: &Value) -> Result<Value, Rejection> {
        Ok(object)
    }
    /// What whoever wrote a status is to be warned of.
    fn status_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }
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
    /// What it writes, where that is a part of the object.
    pub part: Option<&'static Part>,
}

/// Where a kind's objects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Below this prefix, by namespace and name.
    Stored(Text),
    /// Answered at once and never kept (the reviews).
    Virtual,
}

/// What the verbs do otherwise than usual with a kind's objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// A PUT to a name that nobody has creates the object.
    pub create_on_update: bool,
    /// The version that discovery's hash tells it to be stored in, where that is not its own.
    pub told_stored_in: &'static str,
    /// Its finalizers may be called anything that a label may.
    pub any_finalizer: bool,
    /// Its objects cannot be selected by the namespace that they have none of.
    pub no_namespace_field: bool,
    /// A PUT must say which version it was made from.
    pub update_needs_version: bool,
    /// What its status says at birth is kept.
    pub born_with_status: bool,
    /// A new set of annotations is a new generation, as a new spec is.
    pub annotations_count: bool,
    /// So is a new set of labels.
    pub labels_count: bool,
    /// Objects are born without a generation; the first change gives them one.
    pub born_without_generation: bool,
    /// The generation that an object is born with is its only one.
    pub one_generation: bool,
    /// How a selector by a field that is none is refused, `{}` being the field; empty: as for kinds with no fields.
    pub unknown_field: &'static str,
    /// A precondition that does not hold is told as the store tells it.
    pub plain_preconditions: bool,
    /// Whoever deletes it without saying what becomes of its dependents is warned.
    pub deletion_warning: Option<&'static str>,
    /// An object without a name gets one.
    pub names_itself: bool,
    /// A deletion is answered with the object, not with a Status.
    pub answers_deleted: bool,
    /// Deleting it says that it goes, and leaves the rest to whoever deletes the objects that it defines.
    pub goes_after_its_objects: bool,
    /// Deleting it leaves what it owns, unless the request says otherwise.
    pub orphans_dependents: bool,
    /// Its spec says who made it: name, uid, groups and extra of the user, set by the server.
    pub spec_names_requester: bool,
    /// An agent runs it: deletion gives it time, and is done when the agent says so.
    pub graceful_deletion: bool,
    /// `spec.finalizers` hold it beside those of its metadata, and its phase says that it goes.
    pub spec_finalizers: bool,
    /// What a write of its status leaves as it is beside the spec, and so cannot own: fields from the root, parted by dots.
    pub status_keeps: &'static [&'static str],
    /// Status fields that another subresource writes, and that a write of the status cannot own.
    pub status_disowns: &'static [&'static str],
    /// What the object's own endpoint sets at birth, and nobody owns.
    pub disowns: &'static [&'static str],
    /// An annotation that stands for a field of the original's own form: neither tables nor bare metadata show it.
    pub field_annotation: &'static str,
    /// How often its metadata is looked at.
    pub metadata: metadata::Passes,
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
    pub rules: Rules,
    /// What whoever still uses the kind is warned of.
    pub deprecated: Option<&'static str>,
    /// What an object that another server has stored gets when it is read: fields that the original fills in then, and
    /// the form of this version if it has that of an older one.
    pub on_read: fn(Value) -> Value,
    /// Set where objects are stored in another version than the one that this entry serves.
    pub conversion: Option<Conversion>,
    /// Set for custom resources.
    pub custom: Option<Arc<CustomResource>>,
}

pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// In the order in which the original lists those of custom resources.
const CUSTOM_VERBS: &[&str] =
    &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
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

    /// Group, version and kind that its objects are stored as.
    pub fn stored_as(&self) -> (&str, &str, &str) {
        match &self.conversion {
            Some(c) => (&c.group, &c.version, &self.kind),
            None => (&self.group, &self.version, &self.kind),
        }
    }

    /// An object of this entry's version as it is stored.
    pub fn to_stored(&self, object: &Value) -> Value {
        match &self.conversion {
            Some(conversion) => conversion.to_stored(object.clone()),
            None => object.clone(),
        }
    }

    /// A stored object as this entry serves it. It may have been served already.
    pub fn to_served(&self, object: Value) -> Value {
        match &self.conversion {
            Some(conversion) => conversion.to_served(object),
            None => object,
        }
    }

    /// Whether what is stored can be sent as it is.
    pub fn is_served_as_stored(&self) -> bool {
        self.conversion.is_none() && self.custom.is_none()
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
            registration::kinds(),
            apps::kinds(),
            events::kinds(),
            authentication::kinds(),
            authorization::kinds(),
            autoscaling::kinds(),
            batch::kinds(),
            certificates::kinds(),
            networking::kinds(),
            policy::kinds(),
            rbac::kinds(),
            storage::kinds(),
            admission::kinds(),
            extensions::kinds(),
            scheduling::kinds(),
            coordination::kinds(),
            node::kinds(),
            discovery::kinds(),
            resource::kinds(),
            flowcontrol::kinds(),
        ]
        .into_iter()
        .flatten()
        .map(Arc::new)
        .collect()
    });
    &TABLE
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
