//! Types of the facts table as OpenAPI schemas, for both versions of the specification.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions;
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

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Collects schemas and everything they refer to.
pub(super) struct Models {
    version: Version,
    pub(super) schemas: Map<String, Value>,
    pending: BTreeSet<u32>,
}

impl Models {
    pub(super) fn new(version: Version) -> Self {
        Self { version, schemas: Map::new(), pending: BTreeSet::new() }
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
            out.insert("x-kubernetes-group-version-kind".into(), json!([gvk(kind)]));
        }
        Value::Object(out)
    }

    fn field(&mut self, node: Node<'_>, message: &Message, field: &Field) -> Value {
        let mut out = match self.type_schema(node.at_local(&field.ty)) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        if out.contains_key("$ref") && self.version == Version::V3 {
            out = Map::from_iter([("allOf".to_owned(), json!([Value::Object(out)]))]);
            if matches!(field.ty.shape, Shape::Message(_)) && !field.pointer {
                out.insert("default".into(), json!({}));
            }
        }
        let text = descriptions::of_field(&message.name, &field.name);
        out.extend(text.map(|text| ("description".to_owned(), text.into())));
        out.extend(field.default.clone().map(|default| ("default".to_owned(), default)));
        if field.ty.atomic == Some(true) {
            out.insert("x-kubernetes-map-type".into(), "atomic".into());
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
        if let (Shape::List(list), true) = (&field.ty.shape, field.listed()) {
            let (name, keys) = match &list.kind {
                ListKind::Atomic => ("atomic", None),
                ListKind::Set => ("set", None),
                ListKind::Map(keys) => ("map", Some(keys)),
            };
            out.insert("x-kubernetes-list-type".into(), name.into());
            let keys = keys.map(|keys| keys.iter().map(|key| Value::from(&**key)).collect());
            out.extend(keys.map(|keys| ("x-kubernetes-list-map-keys".to_owned(), Value::Array(keys))));
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
                json!({"type": "array", "items": self.wrap(items)})
            }
            Shape::Map(value) => {
                let values = self.type_schema(node.at(value));
                json!({"type": "object", "additionalProperties": self.wrap(values)})
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

    /// Version 3 keeps a reference apart from what is said beside it.
    fn wrap(&self, schema: Value) -> Value {
        match self.version {
            Version::V3 if schema.get("$ref").is_some() => json!({"allOf": [schema], "default": {}}),
            _ => schema,
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

    /// Adds a custom resource and its list.
    pub(super) fn add_custom(&mut self, kind: &Gvk, plural: &str, schema: &Value) {
        let name = custom_name(kind);
        let mut own = match schema.is_object() {
            true => schema.clone(),
            false => json!({"type": "object", PRESERVES: true}),
        };
        // kubectl takes every named field for the only ones there are.
        if self.version == Version::V2 && own[PRESERVES] == true {
            own = json!({"type": "object"});
        } else {
            if self.version == Version::V2 {
                in_v2(&mut own);
            }
            self.embedded(&mut own);
            let mut properties = own.get("properties").cloned().unwrap_or_else(|| json!({}));
            self.object_fields(&mut properties, "ObjectMeta");
            own["properties"] = properties;
        }
        own["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        self.schemas.insert(name.clone(), own);
        let list = Gvk { kind: format!("{}List", kind.kind).into(), ..kind.clone() };
        let item = json!({"$ref": self.version.reference(&name)});
        let mut properties = json!({"items": {"type": "array", "items": item,
            "description": format!("List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")}});
        self.object_fields(&mut properties, "ListMeta");
        properties["metadata"]["description"] = descriptions::LIST_METADATA.into();
        let list_schema = json!({
            "description": format!("{} is a list of {}", list.kind, kind.kind), "type": "object",
            "required": ["items"], "properties": properties, "x-kubernetes-group-version-kind": [gvk(&list)],
        });
        self.schemas.insert(custom_name(&list), list_schema);
    }

    /// Objects within say what every object does.
    fn embedded(&mut self, schema: &mut Value) {
        let Value::Object(map) = schema else { return };
        for inner in
            map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
        {
            self.embedded(inner);
        }
        for key in ["items", "additionalProperties"] {
            map.get_mut(key).into_iter().for_each(|inner| self.embedded(inner));
        }
        let preserves = map.get(PRESERVES) == Some(&true.into());
        if map.get("x-kubernetes-embedded-resource") != Some(&true.into())
            || (preserves && self.version == Version::V2)
        {
            return;
        }
        let mut properties = map.remove("properties").unwrap_or_else(|| json!({}));
        self.object_fields(&mut properties, "ObjectMeta");
        for (field, description) in descriptions::EMBEDDED {
            properties[*field]["description"] = (*description).into();
        }
        map.insert("properties".into(), properties);
        if let Some(required) = map.entry("required").or_insert_with(|| json!([])).as_array_mut() {
            required.extend(["kind".into(), "apiVersion".into()]);
        }
    }

    fn object_fields(&mut self, properties: &mut Value, metadata: &str) {
        let name = format!("{META}.{metadata}");
        self.add(&name);
        let reference = json!({"$ref": self.version.reference(&name)});
        for field in ["apiVersion", "kind", "metadata"] {
            let mut schema = match field {
                "metadata" if self.version == Version::V3 => json!({"allOf": [reference.clone()]}),
                "metadata" => reference.clone(),
                _ => json!({"type": "string"}),
            };
            schema["description"] = descriptions::of_common(field).unwrap_or_default().into();
            properties[field] = schema;
        }
    }
}

impl Field {
    /// Whether the list type is stated: the published documents leave it out where it is only the default.
    fn listed(&self) -> bool {
        !matches!(&self.ty.shape, Shape::List(list) if list.kind == ListKind::Atomic && self.strategy.merge)
    }
}

const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";

/// Version 2 knows neither alternatives, defaults nor nullable values, and clients of it cannot cope with lists of nothing and with
/// objects that name some of their fields only.
fn in_v2(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for key in ["oneOf", "anyOf", "allOf", "not", "default"] {
        map.remove(key);
    }
    let nullable = map.remove("nullable") == Some(true.into());
    let preserves = map.get(PRESERVES) == Some(&true.into());
    if nullable || preserves {
        map.remove("items");
        map.remove("properties");
    }
    let shape = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (shape == "array" && !map.contains_key("items")) || (shape == "object" && preserves) {
        map.remove("type");
    }
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    if map.get("additionalProperties").is_some_and(is_nullable) {
        map.remove("required");
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        let nullable: Vec<String> = properties
            .iter()
            .filter(|(_, schema)| is_nullable(schema))
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(Value::Array(required)) = map.get_mut("required") {
            required.retain(|name| !nullable.iter().any(|n| name == n));
            if required.is_empty() {
                map.remove("required");
            }
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(in_v2);
    }
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(in_v2);
    }
}

pub(super) fn gvk(kind: &Gvk) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// `stable.example.com/v1 CronTab` is `com.example.stable.v1.CronTab`.
pub(super) fn custom_name(kind: &Gvk) -> String {
    let reversed: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}

/// The OpenAPI name of a built-in kind.
pub(super) fn model_of(kind: &Gvk) -> Option<&'static str> {
    let schema: Schema = crate::schema::of_kind(&kind.group, &kind.version, &kind.kind)?;
    let Shape::Message(index) = schema.node().ty.shape else { return None };
    Some(&builtin().message(index).name)
}
