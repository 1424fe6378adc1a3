//! What an operation is about, in the words of admission: the same for plugins, policies and webhooks.

use api::policy::{GroupVersionResource, Subject};
use serde_json::{Value, json};

use crate::Context;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream or a proxied request.
    Connect,
}

impl Operation {
    pub fn is_create(self) -> bool {
        matches!(self, Self::Create)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }

    /// The kind of its options in `meta.k8s.io/v1`; connecting has none of its own.
    fn options_kind(self) -> Option<&'static str> {
        match self {
            Self::Create => Some("CreateOptions"),
            Self::Update => Some("UpdateOptions"),
            Self::Delete => Some("DeleteOptions"),
            Self::Connect => None,
        }
    }
}

/// One operation on one object.
pub struct Attributes<'a> {
    pub context: &'a Context,
    pub operation: Operation,
    pub subresource: &'a str,
    /// Group, version and kind of the object that is admitted: a subresource may have one of its own.
    pub kind: (String, String, String),
    /// Empty for each object of a collection that is deleted.
    pub name: &'a str,
    pub options: Value,
    pub dry_run: bool,
}

impl<'a> Attributes<'a> {
    pub fn new(context: &'a Context, operation: Operation, name: &'a str) -> Self {
        let kind = &context.kind;
        let own = (kind.group.to_string(), kind.version.to_string(), kind.kind.to_string());
        let subresource = context.target.subresource.as_str();
        let of_subresource = kind.subresource(subresource).map(|s| s.gvk).filter(|gvk| !gvk.2.is_empty());
        let gvk = of_subresource.map(|(g, v, k)| (g.to_owned(), v.to_owned(), k.to_owned())).unwrap_or(own);
        let dry_run = context.dry_run();
        Self {
            context,
            operation,
            subresource,
            kind: gvk,
            name,
            options: options(context, operation),
            dry_run,
        }
    }

    /// The name as refusals show it.
    pub fn shown_name(&self) -> &'a str {
        if self.name.is_empty() { "Unknown" } else { self.name }
    }

    /// Whether what is admitted is an object of the resource's own kind.
    pub fn is_of_kind(&self) -> bool {
        *self.kind.2 == *self.context.kind.kind
    }

    pub fn group(&self) -> &str {
        &self.context.kind.group
    }

    pub fn resource(&self) -> &str {
        &self.context.kind.plural
    }

    /// Empty for what lies in no namespace.
    pub fn namespace(&self) -> &str {
        match self.context.kind.namespaced {
            true => &self.context.target.namespace,
            false => "",
        }
    }

    /// The operation, as far as rules look at it, on a resource in some version.
    pub fn subject(&self, resource: GroupVersionResource) -> Subject<'_> {
        Subject {
            resource,
            equivalents: Vec::new(),
            subresource: self.subresource,
            operation: self.operation.name(),
            name: self.name,
            namespace: self.namespace(),
            namespace_labels: None,
            object: &Value::Null,
            old_object: &Value::Null,
        }
    }

    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group() == group && self.resource() == resource
    }

    pub fn is_namespace(&self) -> bool {
        self.group().is_empty() && self.resource() == "namespaces"
    }
}

/// The query's options, as the object that the verb's options are.
fn options(context: &Context, operation: Operation) -> Value {
    let Some(kind) = operation.options_kind() else { return Value::Null };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if context.dry_run() {
        options["dryRun"] = json!(["All"]);
    }
    if operation != Operation::Delete {
        for name in ["fieldManager", "fieldValidation"] {
            if let Some(value) = context.query.get(name) {
                options[name] = value.into();
            }
        }
    }
    options
}
