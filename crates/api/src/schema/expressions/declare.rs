//! What a schema's values are to expressions: their types, and how large they can become.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Decl, DeclKind, Field, ListKind, MAX_REQUEST_BYTES};
use serde_json::Value;

use crate::schema::crd::{flag, text};

/// A text's length without its quotes.
const MAX_TEXT: u64 = MAX_REQUEST_BYTES - 2;
/// The longest duration and the longest time, in quotes.
const MAX_TIME: u64 = 32;
const DATE: u64 = 12;
const MAX_NAME: u64 = 253;

pub fn number(schema: &Value, key: &str) -> Option<u64> {
    schema.get(key).and_then(Value::as_i64).map(|n| u64::try_from(n).unwrap_or(0))
}

/// The declaration of a schema's values; `None` where expressions do not see them. `name` is the type's.
pub fn declare(schema: &Value, name: &str, resource_root: bool) -> Option<Arc<Decl>> {
    let (kind, max_elements, min_size) = if flag(schema, "x-kubernetes-int-or-string") {
        let max = number(schema, "maxLength").map_or(MAX_TEXT, |n| n.saturating_mul(4));
        (DeclKind::Dyn, max, 1)
    } else {
        match text(schema, "type") {
            "array" => list(schema, name)?,
            "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
                Some(values) if !resource_root => map(schema, values, name)?,
                _ => object(schema, name, resource_root),
            },
            "string" => string(schema),
            "boolean" => (DeclKind::Bool, 0, 4),
            "number" => (DeclKind::Double, 0, 1),
            "integer" => (DeclKind::Int, 0, 1),
            _ => return None,
        }
    };
    Some(Arc::new(Decl::new(kind, max_elements, min_size)))
}

fn embedded(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-embedded-resource")
}

fn list(schema: &Value, name: &str) -> Option<(DeclKind, u64, u64)> {
    let items = schema.get("items")?;
    let item = declare(items, &format!("{name}.@idx"), embedded(items))?;
    let max = number(schema, "maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (item.min_size + 1));
    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
    let kind = match text(schema, "x-kubernetes-list-type") {
        "set" => ListKind::Set,
        "map" => ListKind::Map(keys.filter_map(Value::as_str).map(Into::into).collect()),
        _ => ListKind::Atomic,
    };
    Some((DeclKind::List { item, kind }, max, 2))
}

fn map(schema: &Value, values: &Value, name: &str) -> Option<(DeclKind, u64, u64)> {
    let value = declare(values, &format!("{name}.@elem"), embedded(values))?;
    let max = number(schema, "maxProperties").unwrap_or((MAX_REQUEST_BYTES - 2) / (value.min_size + 6));
    Some((DeclKind::Map(value), max, 2))
}

fn object(schema: &Value, name: &str, resource_root: bool) -> (DeclKind, u64, u64) {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (property, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let Some(decl) = declare(inner, &format!("{name}.{property}"), embedded(inner)) else { continue };
        // What has a default is not sent.
        if required.contains(&property.as_str()) && inner.get("default").is_none() {
            min_size += property.len() as u64 + decl.min_size + 4;
        }
        if let Some(expressed) = cel::escape(property) {
            fields.insert(expressed.into_owned().into(), Field { json: property.as_str().into(), decl });
        }
    }
    if resource_root {
        root_fields(&mut fields, name);
    }
    (DeclKind::Object { name: name.into(), fields }, 0, min_size)
}

/// Every resource has these, and of its metadata only the names are known.
fn root_fields(fields: &mut BTreeMap<Box<str>, Field>, name: &str) {
    let text = |max: u64| Arc::new(Decl::new(DeclKind::String, max, 2));
    let put = |fields: &mut BTreeMap<Box<str>, Field>, name: &str, decl: Arc<Decl>| {
        fields.insert(name.into(), Field { json: name.into(), decl });
    };
    let mut names = BTreeMap::new();
    put(&mut names, "name", text(MAX_NAME * 4));
    put(&mut names, "generateName", text((MAX_NAME - 1) * 4));
    let metadata = DeclKind::Object { name: format!("{name}.metadata").into(), fields: names };
    put(fields, "metadata", Arc::new(Decl::new(metadata, 0, 2)));
    put(fields, "kind", text(MAX_TEXT));
    put(fields, "apiVersion", text(MAX_TEXT));
}

fn string(schema: &Value) -> (DeclKind, u64, u64) {
    let max_length = number(schema, "maxLength");
    match text(schema, "format") {
        "byte" => (DeclKind::Bytes, max_length.unwrap_or(MAX_TEXT), 2),
        "duration" => (DeclKind::Duration, MAX_TIME, 3),
        "date" => (DeclKind::Date, DATE, DATE),
        "date-time" => (DeclKind::Timestamp, MAX_TIME, 21),
        _ => {
            let longest =
                schema.get("enum").and_then(Value::as_array).filter(|allowed| !allowed.is_empty()).map(
                    |allowed| {
                        allowed.iter().filter_map(Value::as_str).map(|s| s.len() as u64).max().unwrap_or(0)
                    },
                );
            // A length is told in characters, of up to four bytes.
            let max = max_length.map(|n| n.saturating_mul(4)).or(longest).unwrap_or(MAX_TEXT);
            (DeclKind::String, max, 2)
        }
    }
}
