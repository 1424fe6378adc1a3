//! Types of the facts table as OpenAPI schemas, for both versions of the specification.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{descriptions, fixed, parameters, stated};
use crate::schema::{Field, Gvk, ListKind, Message, Node, Schema, Shape, Type, builtin};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V2,
    V3,
}

impl Version {
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Collects schemas and everything they refer to.
pub(super) struct Models {
    version: Version,
    /// The group and version that the document is of; it is of all without.
    of: Option<(String, String)>,
    /// Whether it is of custom resources.
    pub(super) customs: bool,
    pub(super) schemas: Map<String, Value>,
    pending: BTreeSet<u32>,
}

impl Models {
    pub(super) fn new(version: Version, of: Option<(&str, &str)>) -> Self {
        let of = of.map(|(group, version)| (group.to_owned(), version.to_owned()));
        Self { version, of, customs: false, schemas: Map::new(), pending: BTreeSet::new() }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn reference(&self, name: &str) -> Value {
        json!({"$ref": self.version.reference(name)})
    }

    /// Adds all that paths refer to.
    pub(super) fn add_referred(&mut self, paths: &Map<String, Value>) {
        let mut names = BTreeSet::new();
        paths.values().for_each(|item| referred(item, &mut names));
        for name in names {
            match name.strip_prefix(META).and_then(|name| name.strip_prefix('.')) {
                _ if self.schemas.contains_key(&name) => {}
                Some("Patch") => drop(self.schemas.insert(name, patch())),
                _ if name == fixed::INFO => {
                    let info = fixed::info(self.version == Version::V3);
                    self.schemas.insert(name, info);
                }
                _ => drop(self.add(&name)),
            }
        }
    }

    /// Adds a built-in type by its OpenAPI name with all it needs; false where there is none.
    pub(super) fn add(&mut self, model: &str) -> bool {
        let Some(index) = builtin().model(model) else { return false };
        self.pending.insert(index);
        while let Some(index) = self.pending.pop_first() {
            let message = builtin().message(index);
            if self.schemas.contains_key(&*message.name) {
                continue;
            }
            // Entered before it is built, since a type may refer to itself.
            self.schemas.insert(message.name.to_string(), Value::Null);
            let schema = self.message(message);
            self.schemas.insert(message.name.to_string(), schema);
        }
        true
    }

    fn message(&mut self, message: &'static Message) -> Value {
        let mut properties = Map::new();
        let ty = Type::of(Shape::Any);
        let node = Node { table: builtin(), ty: &ty };
        for field in &message.fields {
            properties.insert(field.name.to_string(), self.field(node, message, field));
        }
        let required: Vec<&str> =
            message.fields.iter().filter(|field| field.required).map(|field| &*field.name).collect();
        let mut out = Map::new();
        out.extend(descriptions::of_type(&message.name).map(|text| ("description".to_owned(), text.into())));
        out.insert("type".into(), "object".into());
        if !properties.is_empty() {
            out.insert("properties".into(), properties.into());
        }
        if !required.is_empty() {
            out.insert("required".into(), json!(required));
        }
        if message.atomic {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if let Some(kind) = &message.kind {
            out.insert("x-kubernetes-group-version-kind".into(), self.kinds(kind));
        }
        stated::put(&message.name, "", &mut out);
        Value::Object(out)
    }

    /// What a type is called; those of all groups are told as of the group that has no name.
    fn kinds(&self, kind: &Gvk) -> Value {
        match (&*kind.group, &*kind.kind) {
            ("meta.k8s.io", "DeleteOptions" | "WatchEvent") => {
                if self.customs && self.version == Version::V3 {
                    return stated::of_custom(&kind.kind);
                }
                let of = self.of.as_ref().map(|(group, version)| (group.as_str(), version.as_str()));
                stated::of_every_group(&kind.kind, of)
            }
            ("meta.k8s.io", _) => json!([gvk(&Gvk { group: "".into(), ..kind.clone() })]),
            _ => json!([gvk(kind)]),
        }
    }

    fn field(&mut self, node: Node<'_>, message: &Message, field: &Field) -> Value {
        let mut out = match self.type_schema(node.at_local(&field.ty)) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        if let Some(said) = descriptions::of_field(&message.name, &field.name) {
            describe(&mut out, said);
        }
        if self.version == Version::V3 {
            out.extend(default_of(field).map(|default| ("default".to_owned(), default)));
        }
        if let Some(atomic) = field.ty.atomic {
            let name = if atomic { "atomic" } else { "granular" };
            out.insert("x-kubernetes-map-type".into(), name.into());
        }
        let strategy: Vec<&str> = [
            ("retainKeys", field.strategy.retain_keys),
            ("merge", field.strategy.merge),
            ("replace", field.strategy.replace),
        ]
        .iter()
        .filter(|(_, on)| *on)
        .map(|(name, _)| *name)
        .collect();
        if !strategy.is_empty() {
            let strategy = if strategy == ["retainKeys", "merge"] {
                "merge,retainKeys".to_owned()
            } else {
                strategy.join(",")
            };
            out.insert("x-kubernetes-patch-strategy".into(), strategy.into());
        }
        out.extend(
            field.merge_key.as_deref().map(|key| ("x-kubernetes-patch-merge-key".to_owned(), key.into())),
        );
        if let (Shape::List(list), true) = (&field.ty.shape, !is_of_items(message, field)) {
            let (name, keys) = match &list.kind {
                ListKind::Atomic => ("atomic", None),
                ListKind::Set => ("set", None),
                ListKind::Map(keys) => ("map", Some(keys)),
            };
            out.insert("x-kubernetes-list-type".into(), name.into());
            let keys = keys.map(|keys| keys.iter().map(|key| Value::from(&**key)).collect());
            out.extend(keys.map(|keys| ("x-kubernetes-list-map-keys".to_owned(), Value::Array(keys))));
        }
        stated::put(&message.name, &field.name, &mut out);
        // Version 3 keeps a reference apart from what is said beside it.
        if self.version == Version::V3 && out.len() > 1 {
            let reference = out.remove("$ref");
            out.extend(reference.map(|name| ("allOf".to_owned(), json!([{"$ref": name}]))));
        }
        Value::Object(out)
    }

    fn type_schema(&mut self, node: Node<'_>) -> Value {
        let simple = |name: &str| json!({"type": name});
        match &node.ty.shape {
            Shape::String => simple("string"),
            Shape::Bool => simple("boolean"),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::List(list) => {
                let items = self.type_schema(node.at(&list.item));
                json!({"type": "array", "items": items})
            }
            Shape::Map(value) => {
                let values = self.type_schema(node.at(value));
                json!({"type": "object", "additionalProperties": values})
            }
            Shape::Message(index)
            | Shape::PropsOrArray(index)
            | Shape::PropsOrBool(index)
            | Shape::PropsOrStrings(index)
                if matches!(node.ty.shape, Shape::Message(_)) =>
            {
                self.pending.insert(*index);
                json!({"$ref": self.version.reference(&builtin().message(*index).name)})
            }
            other => self.special(other),
        }
    }

    /// Types with a form of their own, each a component.
    fn special(&mut self, shape: &Shape) -> Value {
        const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
        let one_of = |types: [&str; 2]| json!({"oneOf": [{"type": types[0]}, {"type": types[1]}]});
        let v3 = self.version == Version::V3;
        let (name, schema) = match shape {
            Shape::Quantity if v3 => {
                ("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), one_of(["string", "number"]))
            }
            Shape::Quantity => {
                ("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), json!({"type": "string"}))
            }
            Shape::IntOrString => {
                let mut schema = if v3 { one_of(["integer", "string"]) } else { json!({"type": "string"}) };
                schema["format"] = "int-or-string".into();
                ("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(), schema)
            }
            Shape::Time => (format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Shape::MicroTime => {
                (format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Shape::Duration => (format!("{META}.Duration"), json!({"type": "string"})),
            Shape::FieldsV1 => (format!("{META}.FieldsV1"), json!({"type": "object"})),
            Shape::Raw => {
                ("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(), json!({"type": "object"}))
            }
            Shape::PropsOrArray(_) => (format!("{EXTENSIONS}.JSONSchemaPropsOrArray"), json!({})),
            Shape::PropsOrBool(_) => (format!("{EXTENSIONS}.JSONSchemaPropsOrBool"), json!({})),
            Shape::PropsOrStrings(_) => (format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray"), json!({})),
            _ => (format!("{EXTENSIONS}.JSON"), json!({})),
        };
        let mut schema = schema;
        if let (Some(text), Value::Object(map)) = (descriptions::of_type(&name), &mut schema) {
            map.insert("description".into(), text.into());
        }
        let reference = self.version.reference(&name);
        self.schemas.entry(name).or_insert(schema);
        json!({"$ref": reference})
    }
}

fn describe(schema: &mut Map<String, Value>, said: &descriptions::OfField) {
    schema.extend(said.text.clone().map(|text| ("description".to_owned(), text.into())));
    schema.extend(said.values.clone().map(|values| ("enum".to_owned(), values)));
    let Some(values) = &said.element_values else { return };
    for name in ["items", "additionalProperties"] {
        if let Some(Value::Object(element)) = schema.get_mut(name) {
            element.insert("enum".into(), values.clone());
        }
    }
}

/// The objects of a list, whose kind of list is never stated.
fn is_of_items(message: &Message, field: &Field) -> bool {
    &*field.name == "items" && message.name.ends_with("List")
}

/// What a field holds that is not given: what the published definitions say, or the zero of what is always written.
fn default_of(field: &Field) -> Option<Value> {
    if field.default.is_some() {
        return field.default.clone();
    }
    match &field.ty.shape {
        _ if field.pointer => None,
        Shape::Message(_) => Some(json!({})),
        _ if field.omit_empty => None,
        Shape::String => Some("".into()),
        Shape::Bool => Some(false.into()),
        Shape::Int32 | Shape::Int64 | Shape::Double => Some(0.into()),
        _ => None,
    }
}

/// The name of the body of patches, of which nothing can be said.
fn patch() -> Value {
    json!({"type": "object", "description":
        "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."})
}

/// The names of all definitions that something of a version 2 document refers to.
fn referred(at: &Value, names: &mut BTreeSet<String>) {
    match at {
        Value::Object(map) => {
            let reference = map.get("$ref").and_then(Value::as_str);
            if reference.is_some_and(|r| r.starts_with("#/parameters/")) {
                return referred(&parameters::resolved(at), names);
            }
            names.extend(reference.and_then(|r| r.strip_prefix("#/definitions/")).map(str::to_owned));
            map.values().for_each(|inner| referred(inner, names));
        }
        Value::Array(items) => items.iter().for_each(|inner| referred(inner, names)),
        _ => {}
    }
}

pub(super) fn gvk(kind: &Gvk) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// The OpenAPI name of a built-in kind.
pub(super) fn model_of(kind: &Gvk) -> Option<&'static str> {
    let schema: Schema = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind)?;
    let Shape::Message(index) = schema.node().ty.shape else { return None };
    Some(&builtin().message(index).name)
}
