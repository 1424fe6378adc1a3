//! What a kind's fields are. One form for built-in types (decoded once from an embedded table that
//! `cargo xtask generate` writes) and for custom resources (compiled from their `openAPIV3Schema`), so that
//! strict decoding, pruning, defaulting, the patches, field ownership, protobuf and OpenAPI are each written once.

mod canonical;
mod check;
mod crd;
pub mod decode;
pub mod embedded;
pub mod expressions;
pub(crate) mod formats;
pub(crate) mod numbers;
pub mod pattern;
mod prune;
mod rules;
mod table;
pub mod typed;
pub(crate) mod unique;
mod validate;

use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::Value;

pub(crate) use canonical::print_time;
pub(crate) use check::decode_base64;
pub use check::{FieldProblem, check};
pub use crd::from_crd;
pub(crate) use crd::{from_version, of_part};
pub use rules::Rules;
pub use table::Table;
pub use validate::{Invalid, Reason, validate};

/// What every object says of itself.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Every type of Kubernetes v1.36.
pub fn builtin() -> &'static Arc<Table> {
    static BUILTIN: LazyLock<Arc<Table>> = LazyLock::new(|| Arc::new(table::decode_embedded()));
    &BUILTIN
}

/// The schema of a built-in kind; `group` is empty for the core group.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Schema> {
    let index = builtin().kind(group, version, kind)?;
    Some(Schema { table: builtin().clone(), root: Type::of(Shape::Message(index)) })
}

/// The schema of a built-in type by its OpenAPI name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn of_model(name: &str) -> Option<Schema> {
    let index = builtin().model(name)?;
    Some(Schema { table: builtin().clone(), root: Type::of(Shape::Message(index)) })
}

/// The schema of a built-in object by its own `apiVersion` and `kind`.
pub fn of_object(object: &Value) -> Option<Schema> {
    let (group, version) = split_api_version(object.get("apiVersion")?.as_str()?);
    of_kind(group, version, object.get("kind")?.as_str()?)
}

/// `apps/v1` is group `apps`, version `v1`; `v1` is the core group.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A type together with the table its references point into. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(crate) table: Arc<Table>,
    pub(crate) root: Type,
}

#[derive(Debug, Clone)]
pub struct Type {
    pub shape: Shape,
    /// Overrides the message's or map's own granularity for field ownership.
    pub atomic: Option<bool>,
    /// The name type errors give a simple named type, such as `v1.Protocol`.
    pub go_name: Option<Box<str>>,
    /// Only in custom resources.
    pub rules: Option<Box<Rules>>,
}

#[derive(Debug, Clone)]
pub enum Shape {
    String,
    Int32,
    Int64,
    Double,
    Bool,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    FieldsV1,
    /// A whole object of any kind (`RawExtension`).
    Raw,
    /// Any JSON (`apiextensions.JSON`), or a custom resource's field of no fixed type.
    Any,
    Message(u32),
    List(Box<List>),
    Map(Box<Type>),
    /// `JSONSchemaPropsOrArray`, `…OrBool`, `…OrStringArray`: the index is that of `JSONSchemaProps`.
    PropsOrArray(u32),
    PropsOrBool(u32),
    PropsOrStrings(u32),
}

#[derive(Debug, Clone)]
pub struct List {
    pub item: Type,
    pub kind: ListKind,
    /// In protobuf the list is a message of its own with one repeated field.
    pub wrapped: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// Elements are known by these fields.
    Map(Vec<Box<str>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Box<str>,
    /// Protobuf field number; zero where the field is not (directly) in the message.
    pub tag: u32,
    pub ty: Type,
    /// Whether absent and zero differ.
    pub pointer: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    pub required: bool,
    pub strategy: PatchStrategy,
    pub merge_key: Option<Box<str>>,
    pub default: Option<Value>,
}

#[derive(Debug, Clone, Default)]
pub struct Message {
    /// OpenAPI name; empty in custom resources.
    pub name: Box<str>,
    /// Sorted by name; inlined messages' fields stand here too, with tag zero.
    pub fields: Vec<Field>,
    /// Protobuf field number and index of inlined messages.
    pub inlines: Vec<(u32, u32)>,
    /// See [`Message::wire`].
    pub(crate) wire: OnceLock<Box<[(u32, WirePart)]>>,
    /// See [`Message::defaulted`].
    pub(crate) defaulted: OnceLock<Box<[usize]>>,
    pub atomic: bool,
    /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    pub kind: Option<Gvk>,
}

/// What stands under one number of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WirePart {
    /// The place of a field in the message.
    Field(usize),
    /// An inlined message, by its index.
    Inline(u32),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    pub group: Box<str>,
    pub version: Box<str>,
    pub kind: Box<str>,
}

impl Type {
    pub(crate) fn of(shape: Shape) -> Self {
        Self { shape, atomic: None, go_name: None, rules: None }
    }
}

impl Message {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| (*field.name).cmp(name)).ok()?;
        self.fields.get(at)
    }

    /// The fields that have a default of the schema's own: found once, as an object may have many places of one type.
    pub(crate) fn defaulted(&self) -> impl Iterator<Item = &Field> {
        let places = self.defaulted.get_or_init(|| {
            let fields = self.fields.iter().enumerate();
            fields.filter(|(_, field)| field.default.is_some()).map(|(at, _)| at).collect()
        });
        places.iter().filter_map(|at| self.fields.get(*at))
    }

    /// What is in protobuf, in the order of the numbers: worked out once.
    pub(crate) fn wire(&self) -> &[(u32, WirePart)] {
        self.wire.get_or_init(|| {
            let fields = self.fields.iter().enumerate().map(|(at, field)| (field.tag, WirePart::Field(at)));
            let inlines = self.inlines.iter().map(|(tag, index)| (*tag, WirePart::Inline(*index)));
            let mut parts: Vec<_> = fields.chain(inlines).filter(|(tag, _)| *tag > 0).collect();
            parts.sort_by_key(|(tag, _)| *tag);
            parts.into_boxed_slice()
        })
    }

    /// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

impl Schema {
    pub fn node(&self) -> Node<'_> {
        Node { table: &self.table, ty: &self.root }
    }

    /// Whether this is one of the types compiled in, rather than a custom resource.
    pub fn is_builtin(&self) -> bool {
        Arc::ptr_eq(&self.table, builtin())
    }

    pub fn check(&self, value: &Value) -> Vec<FieldProblem> {
        check(self, value)
    }

    /// Drops every field the schema does not name.
    pub fn prune(&self, value: &mut Value) {
        prune::prune(self.node(), value);
    }

    /// Drops what a custom resource says is null where that is nothing that it could be.
    pub fn prune_nulls(&self, value: &mut Value) {
        prune::prune_nulls(self.node(), value);
    }

    /// Fills in the schema's own defaults. The conditional defaults of built-in kinds are in the kinds' files.
    pub fn apply_defaults(&self, value: &mut Value) {
        prune::apply_defaults(self.node(), value);
    }

    /// What a custom resource is once it has been read: without what its schema does not know, with what it fills in.
    pub fn fill(&self, value: &mut Value) {
        self.prune(value);
        self.prune_nulls(value);
        self.apply_defaults(value);
    }

    /// What reading and writing the object in the original's types makes of it: see [`canonical`].
    pub fn canonicalize(&self, value: &mut Value) {
        if self.is_builtin() {
            canonical::canonicalize(self.node(), value);
        }
    }

    /// What a custom resource's schema says against the value; empty for built-in types.
    pub fn validate(&self, value: &Value) -> Vec<Invalid> {
        validate(self, value, None)
    }

    /// The same of a new version of `old`: what has not changed is not refused.
    pub fn validate_update(&self, value: &Value, old: &Value) -> Vec<Invalid> {
        validate(self, value, Some(old))
    }
}

/// A place in a schema. All walks over schema and value together are written with it.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    pub table: &'a Table,
    pub ty: &'a Type,
}

impl<'a> Node<'a> {
    pub fn at(self, ty: &'a Type) -> Self {
        Self { table: self.table, ty }
    }

    /// As [`Node::at`], for a type that lives shorter than the table.
    pub(crate) fn at_local<'b>(self, ty: &'b Type) -> Node<'b>
    where
        'a: 'b,
    {
        Node { table: self.table, ty }
    }

    pub fn message(self) -> Option<&'a Message> {
        match self.ty.shape {
            Shape::Message(index) => Some(self.table.message(index)),
            _ => None,
        }
    }

    pub fn field(self, name: &str) -> Option<&'a Field> {
        self.message()?.field(name)
    }

    pub fn list(self) -> Option<&'a List> {
        match &self.ty.shape {
            Shape::List(list) => Some(list),
            _ => None,
        }
    }

    /// The type of an object's member: a message's field or a map's value.
    pub fn member(self, name: &str) -> Option<Self> {
        match &self.ty.shape {
            Shape::Map(value) => Some(self.at(value)),
            _ => Some(self.at(&self.field(name)?.ty)),
        }
    }

    pub fn item(self) -> Option<Self> {
        Some(self.at(&self.list()?.item))
    }

    /// Whether the value has another form than belongs here, so that whatever fields it has, none is known.
    fn is_misplaced(self, value: &Value) -> bool {
        match (&self.ty.shape, value) {
            (Shape::Message(index), Value::Array(_)) => !self.table.message(*index).open,
            (Shape::Map(_), Value::Array(_)) | (Shape::List(_), Value::Object(_)) => true,
            (
                Shape::String | Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::Double,
                Value::Object(_) | Value::Array(_),
            ) => true,
            _ => false,
        }
    }

    /// Whether field ownership treats the value as one.
    pub fn is_atomic(self) -> bool {
        let own = match &self.ty.shape {
            Shape::Message(index) => self.table.message(*index).atomic,
            Shape::List(list) => list.kind == ListKind::Atomic,
            // Objects of other kinds are owned as one.
            Shape::Raw => true,
            Shape::Any | Shape::Map(_) => false,
            _ => true,
        };
        self.ty.atomic.unwrap_or(own)
    }

    pub fn rules(self) -> Option<&'a Rules> {
        self.ty.rules.as_deref()
    }
}
