//! Formats that nobody checks: whoever writes them is told.

use serde_json::Value;

use super::{inner, list, properties, text};
use crate::schema::formats::is_known;

/// Every format in the schema that values are not checked against, as often as it stands there.
pub fn unrecognized(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, &mut found);
    found
}

fn walk(schema: &Value, found: &mut Vec<String>) {
    let format = text(schema, "format");
    if !format.is_empty() && !is_known(text(schema, "type"), format) {
        found.push(format.to_owned());
    }
    if let Some(items) = inner(schema, "items") {
        walk(items, found);
    }
    for part in ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|key| list(schema, key)) {
        walk(part, found);
    }
    for part in inner(schema, "not").into_iter().chain(properties(schema).map(|(_, part)| part)) {
        walk(part, found);
    }
    if let Some(values) = inner(schema, "additionalProperties") {
        walk(values, found);
    }
}
