//! A structural schema says outside of `allOf`, `anyOf`, `oneOf` and `not` how its objects are built; those only restrict values.
//! That is what pruning, defaulting and field ownership can be made from.

use serde_json::{Value, json};

use super::{inner, is_set, junctors, list, properties, text};
use crate::status::FieldError;

/// Where in a structure a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All faults, in the order of their words: that of properties is chance in the original.
pub fn faults(schema: &Value, field: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    node(schema, Level::Root, field, &mut found);
    junctors::without_structure(schema, field, &mut found);
    found.sort_by_cached_key(FieldError::to_string);
    found
}

fn node(schema: &Value, level: Level, field: &str, found: &mut Vec<FieldError>) {
    if text(schema, "type") == "array" && schema.get("items").is_none() {
        found.push(FieldError::required(format!("{field}.items"), "must be specified"));
    }
    if let Some(items) = inner(schema, "items") {
        node(items, Level::Item, &format!("{field}.items"), found);
    }
    for (name, property) in properties(schema) {
        node(property, Level::Field, &format!("{field}.properties[{name}]"), found);
    }
    let additional = format!("{field}.additionalProperties");
    if schema.get("additionalProperties").is_some() && level == Level::Root {
        found.push(FieldError::forbidden(additional.as_str(), "must not be used at the root"));
    }
    if let Some(values) = inner(schema, "additionalProperties") {
        node(values, Level::Field, &additional, found);
    }
    int_or_string(schema, field, found);
    junctors::restrictions(schema, allowed_types(schema), field, found);
    typed(schema, level, field, found);
    said_of_itself(schema, level, field, found);
    embedded(schema, field, found);
}

fn int_or_string(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    if !is_set(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for other in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if is_set(schema, other) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            found.push(FieldError::invalid(format!("{field}.{other}"), true, detail));
        }
    }
}

/// The two ways in which a junctor may name types: the types of what is an integer or a text.
fn allowed_types(schema: &Value) -> junctors::Allowed {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    junctors::Allowed {
        any_of: schema.get("anyOf") == Some(&either),
        any_of_first_all_of: list(schema, "allOf").first().and_then(|first| first.get("anyOf"))
            == Some(&either),
    }
}

fn typed(schema: &Value, level: Level, field: &str, found: &mut Vec<FieldError>) {
    let at = format!("{field}.type");
    let own = text(schema, "type");
    if is_set(schema, "x-kubernetes-embedded-resource") && own != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        found.push(match own {
            "" => FieldError::required(at.as_str(), detail),
            own => FieldError::invalid(at.as_str(), own, detail),
        });
    } else if own.is_empty()
        && !is_set(schema, "x-kubernetes-int-or-string")
        && !is_set(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        found.push(FieldError::required(at.as_str(), detail));
    }
    if level == Level::Root && !own.is_empty() && own != "object" {
        found.push(FieldError::invalid(at, own, "must be object at the root"));
    }
}

/// What every object says of itself is of the types that every object has.
fn said_of_itself(schema: &Value, level: Level, field: &str, found: &mut Vec<FieldError>) {
    let is_object = level == Level::Root || is_set(schema, "x-kubernetes-embedded-resource");
    let property = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
    for (name, wanted) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(property) = property(name).filter(|_| is_object) else { continue };
        let own = text(property, "type");
        if own != wanted {
            let at = format!("{field}.properties[{name}].type");
            found.push(FieldError::invalid(at, own, format!("must be {wanted}")));
        }
    }
    if level == Level::Root && property("metadata").is_some_and(|metadata| !restricts_names_alone(metadata)) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        found.push(FieldError::forbidden(format!("{field}.properties[metadata]"), detail));
    }
}

fn restricts_names_alone(metadata: &Value) -> bool {
    let names = |properties: &Value| {
        let names = properties.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        names.into_iter().all(|name| matches!(name, "name" | "generateName"))
    };
    let says = |(keyword, value): (&String, &Value)| match keyword.as_str() {
        // Defaults are looked at elsewhere.
        "type" | "default" => false,
        "properties" => !names(value),
        _ => super::says_something(value),
    };
    !metadata.as_object().into_iter().flatten().any(says)
}

fn embedded(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    if !is_set(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    if schema.get("additionalProperties").is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        found.push(FieldError::forbidden(format!("{field}.additionalProperties"), detail));
    }
    let bare = properties(schema).next().is_none();
    if bare && !is_set(schema, "x-kubernetes-preserve-unknown-fields") {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        found.push(FieldError::required(format!("{field}.properties"), detail));
    }
}
