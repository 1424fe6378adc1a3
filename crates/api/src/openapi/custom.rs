//! Custom resources as OpenAPI schemas: what their definitions say, with what every object has.

use serde_json::{Map, Value, json};

use super::descriptions;
use super::models::{META, Models, Version, gvk};
use crate::schema::Gvk;

impl Models {
    /// Adds a custom resource and its list.
    pub(super) fn add_custom(&mut self, kind: &Gvk, plural: &str, schema: &Value) {
        self.customs = true;
        let name = name_of(kind);
        let mut own = match schema.is_object() {
            true => schema.clone(),
            false => json!({"type": "object", PRESERVES: true}),
        };
        // kubectl takes every named field for the only ones there are.
        if self.version() == Version::V2 && own[PRESERVES] == true {
            own = json!({"type": "object"});
        } else {
            if self.version() == Version::V2 {
                in_v2(&mut own);
            }
            whole_numbers(&mut own);
            self.embedded(&mut own);
            let mut properties = own.get("properties").cloned().unwrap_or_else(|| json!({}));
            self.object_fields(&mut properties, "ObjectMeta");
            own["properties"] = properties;
        }
        own["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        self.schemas.insert(name.clone(), own);
        let list = Gvk { kind: format!("{}List", kind.kind).into(), ..kind.clone() };
        let item = self.reference(&name);
        let mut properties = json!({"items": {"type": "array", "items": item,
            "description": format!("List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md")}});
        self.object_fields(&mut properties, "ListMeta");
        properties["metadata"]["description"] = descriptions::LIST_METADATA.into();
        let list_schema = json!({
            "description": format!("{} is a list of {}", list.kind, kind.kind), "type": "object",
            "required": ["items"], "properties": properties, "x-kubernetes-group-version-kind": [gvk(&list)],
        });
        self.schemas.insert(name_of(&list), list_schema);
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
            || (preserves && self.version() == Version::V2)
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
        let reference = self.reference(&name);
        for field in ["apiVersion", "kind", "metadata"] {
            let mut schema = match field {
                "metadata" if self.version() == Version::V3 => json!({"allOf": [reference.clone()]}),
                "metadata" => reference.clone(),
                _ => json!({"type": "string"}),
            };
            schema["description"] = descriptions::of_common(field).unwrap_or_default().into();
            properties[field] = schema;
        }
    }
}

const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";

/// Bounds are kept as numbers with a fraction, and shown without where there is none.
fn whole_numbers(schema: &mut Value) {
    match schema {
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            // Up to here a fraction has room for each whole number.
            const LARGEST: f64 = 9_007_199_254_740_992.0;
            if let Some(float) =
                number.as_f64().filter(|f| number.is_f64() && f.fract() == 0.0 && f.abs() < LARGEST)
            {
                *schema = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

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

/// `stable.example.com/v1 CronTab` is `com.example.stable.v1.CronTab`.
pub(super) fn name_of(kind: &Gvk) -> String {
    let reversed: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}
