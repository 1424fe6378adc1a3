//! `allOf`, `anyOf`, `oneOf` and `not`: they restrict values whose structure is known from elsewhere.

use serde_json::Value;

use super::{inner, is_set, list, properties, says_something, text};
use crate::status::FieldError;

/// Where a junctor names types because its values are integers or texts.
#[derive(Clone, Copy, Default)]
pub struct Allowed {
    /// In `anyOf`.
    pub any_of: bool,
    /// In the `anyOf` of the first of `allOf`.
    pub any_of_first_all_of: bool,
}

/// What must stay as it is where nothing is said: the keyword, and the original's word for that.
const NOT_THERE: &[(&str, &str)] = &[
    ("default", "undefined"),
    ("title", "empty"),
    ("description", "empty"),
    ("nullable", "false"),
    ("x-kubernetes-preserve-unknown-fields", "false"),
    ("x-kubernetes-embedded-resource", "false"),
    ("x-kubernetes-int-or-string", "false"),
    ("x-kubernetes-list-map-keys", "empty"),
    ("x-kubernetes-list-type", "undefined"),
    ("x-kubernetes-map-type", "undefined"),
    ("x-kubernetes-validations", "empty"),
];

/// The junctors of a schema, in whatever order: each with its place below the schema.
fn junctors(schema: &Value) -> impl Iterator<Item = (String, &Value)> {
    let lists = ["anyOf", "allOf", "oneOf"].into_iter().flat_map(|key| {
        list(schema, key).iter().enumerate().map(move |(at, part)| (format!("{key}[{at}]"), part))
    });
    lists.chain(inner(schema, "not").map(|part| ("not".to_owned(), part)))
}

/// What junctors say that only a structure may.
pub fn restrictions(schema: &Value, allowed: Allowed, field: &str, found: &mut Vec<FieldError>) {
    for (place, part) in junctors(schema) {
        if allowed.any_of && place.starts_with("anyOf") {
            continue;
        }
        let any_of = allowed.any_of_first_all_of && place == "allOf[0]";
        restriction(part, Allowed { any_of, ..Allowed::default() }, &format!("{field}.{place}"), found);
    }
}

fn restriction(schema: &Value, allowed: Allowed, field: &str, found: &mut Vec<FieldError>) {
    restrictions(schema, allowed, field, found);
    if let Some(items) = inner(schema, "items") {
        restriction(items, Allowed::default(), &format!("{field}.items"), found);
    }
    for (name, property) in properties(schema) {
        restriction(property, Allowed::default(), &format!("{field}.properties[{name}]"), found);
    }
    let mut forbidden = |key: &str, detail: String| {
        found.push(FieldError::forbidden(format!("{field}.{key}"), detail));
    };
    if !text(schema, "type").is_empty() {
        forbidden("type", "must be empty to be structural".into());
    }
    if inner(schema, "additionalProperties").is_some() || is_set(schema, "additionalProperties") {
        forbidden("additionalProperties", "must be undefined to be structural".into());
    }
    for (key, word) in NOT_THERE {
        if schema.get(*key).is_some_and(says_something) {
            forbidden(key, format!("must be {word} to be structural"));
        }
    }
    if properties(schema).any(|(name, _)| name == "metadata") {
        forbidden("properties[metadata]", "must not be specified in a nested context".into());
    }
}

/// What the junctors at the root speak of and the structure does not know.
pub fn without_structure(schema: &Value, field: &str, found: &mut Vec<FieldError>) {
    for (place, part) in junctors(schema) {
        unknown(part, Some(schema), field, &format!("{field}.{place}"), found);
    }
}

fn unknown(
    part: &Value,
    structure: Option<&Value>,
    place: &str,
    spoken_of_at: &str,
    found: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        let detail = format!("because it is defined in {spoken_of_at}");
        return found.push(FieldError::required(place, detail));
    };
    for (below, part) in junctors(part) {
        unknown(part, Some(structure), place, &format!("{spoken_of_at}.{below}"), found);
    }
    if let Some(items) = inner(part, "items") {
        let known = inner(structure, "items");
        unknown(items, known, &format!("{place}.items"), &format!("{spoken_of_at}.items"), found);
    }
    for (name, property) in properties(part) {
        let known = structure.get("properties").and_then(|properties| properties.get(name));
        let below = format!("properties[{name}]");
        unknown(property, known, &format!("{place}.{below}"), &format!("{spoken_of_at}.{below}"), found);
    }
}
