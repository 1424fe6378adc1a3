//! Keywords of JSON schema that definitions do not have, and where those that they have may not stand.

use serde_json::Value;

use super::{inner, is_set, list, lists, properties, text};
use crate::status::FieldError;

/// What describes an object itself.
const OF_ITSELF: &[&str] = &["metadata", "kind", "apiVersion"];
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const NOT_SUPPORTED: &[&str] =
    &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];

/// What a place in a schema inherits from those above it.
#[derive(Clone, Default)]
struct Here {
    is_root: bool,
    /// Within what an object says of itself.
    of_itself: bool,
    /// Why there may be no default.
    no_default: Option<String>,
}

/// Everything that is wrong in the schema and below.
pub fn faults(schema: &Value, field: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    walk(schema, field, &Here { is_root: true, ..Here::default() }, &mut found);
    found
}

/// A keyword without which the schema could be structural. Most are told of by [`faults`], too.
pub fn unsupported(schema: &Value) -> Option<String> {
    let text = ["id", "$schema", "$ref"].into_iter().find(|key| !text(schema, key).is_empty());
    let map = ["patternProperties", "dependencies", "definitions"];
    let map = map
        .into_iter()
        .find(|key| schema.get(*key).and_then(Value::as_object).is_some_and(|members| !members.is_empty()));
    let additional = schema.get("additionalItems").map(|_| "additionalItems");
    if let Some(key) = text.or(map).or(additional) {
        let key = if key == "$schema" { "schema" } else { key };
        return Some(format!("OpenAPIV3Schema '{key}' is not supported"));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into(),
        );
    }
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|key| list(schema, key));
    let others = ["not", "items", "additionalProperties"].into_iter().filter_map(|key| inner(schema, key));
    let mut below = lists.chain(others).chain(properties(schema).map(|(_, property)| property));
    below.find_map(unsupported)
}

fn walk(schema: &Value, field: &str, here: &Here, found: &mut Vec<FieldError>) {
    keywords(schema, field, here, found);
    if is_set(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        found.push(FieldError::forbidden(format!("{field}.uniqueItems"), detail));
    }
    additional(schema, field, here, found);
    for (name, property) in properties(schema) {
        let mut below = Here { is_root: false, ..here.clone() };
        let is_object = here.is_root || is_set(schema, "x-kubernetes-embedded-resource");
        if is_object && OF_ITSELF.contains(&name.as_str()) {
            below.of_itself = true;
            if here.is_root {
                below.no_default = Some(format!("in top-level {name}"));
            }
        }
        walk(property, &format!("{field}.properties[{name}]"), &below, found);
    }
    let below = Here { is_root: false, ..here.clone() };
    let mut go = |key: String, schema: &Value| walk(schema, &format!("{field}.{key}"), &below, found);
    if let Some(not) = inner(schema, "not") {
        go("not".into(), not);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (at, part) in list(schema, key).iter().enumerate() {
            go(format!("{key}[{at}]"), part);
        }
    }
    for (name, part) in members(schema, "definitions") {
        go(format!("definitions[{name}]"), part);
    }
    match schema.get("items") {
        Some(Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                go(format!("items[{at}]"), item);
            }
        }
        Some(items @ Value::Object(_)) => go("items".into(), items),
        _ => {}
    }
    for (name, part) in members(schema, "dependencies").filter(|(_, part)| part.is_object()) {
        go(format!("dependencies[{name}]"), part);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let at = format!("{field}.x-kubernetes-preserve-unknown-fields");
        found.push(FieldError::invalid(at, false, "must be true or undefined"));
    }
    lists::faults(schema, field, found);
}

fn members<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

/// What stands at this place alone.
fn keywords(schema: &Value, field: &str, here: &Here, found: &mut Vec<FieldError>) {
    let own = text(schema, "type");
    if !own.is_empty() && !TYPES.contains(&own) {
        found.push(FieldError::not_supported(format!("{field}.type"), own, TYPES));
    }
    let mut forbidden = |key: &str, detail: &str| {
        found.push(FieldError::forbidden(format!("{field}.{key}"), detail));
    };
    if let (Some(why), true) = (&here.no_default, schema.get("default").is_some()) {
        forbidden("default", &format!("must not be set {why}"));
    }
    for key in NOT_SUPPORTED {
        let is_there = schema.get(*key).is_some_and(|value| match value {
            Value::String(text) => *key == "$ref" || !text.is_empty(),
            Value::Object(members) => {
                *key == "dependencies" || *key == "additionalItems" || !members.is_empty()
            }
            value => !value.is_null(),
        });
        if is_there {
            forbidden(key, &format!("{key} is not supported"));
        }
    }
    if own == "null" {
        forbidden("type", "type cannot be set to null, use nullable as an alternative");
    }
    if schema.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty()) {
        forbidden("items", "items must be a schema object and not an array");
    }
    if here.of_itself && is_set(schema, "x-kubernetes-embedded-resource") {
        forbidden("x-kubernetes-embedded-resource", "must not be used inside of resource meta");
    }
}

/// A schema is of a map or of a structure.
fn additional(schema: &Value, field: &str, here: &Here, found: &mut Vec<FieldError>) {
    let Some(given) = schema.get("additionalProperties") else { return };
    let at = format!("{field}.additionalProperties");
    if properties(schema).next().is_some() && given != &Value::Bool(true) {
        let detail = "additionalProperties and properties are mutual exclusive";
        found.push(FieldError::forbidden(at.as_str(), detail));
    }
    if given.is_object() {
        let mut below = Here { is_root: false, ..here.clone() };
        if here.of_itself {
            below.no_default = Some("inside additionalProperties applying to object metadata".into());
        }
        walk(given, &at, &below, found);
    }
}
