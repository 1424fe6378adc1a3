//! The version 2 document as protobuf (`openapi.v2.Document` of gnostic), which clients before v1.29 insist on. Its
//! definitions are all they look at, so paths stay empty.

use serde_json::{Map, Value};

use super::{flag, message, text};

/// What an answer in this form is called; clients also ask for it by an older name that no media type may have.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
pub const MEDIA_TYPE_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Encodes what the JSON form of the document says.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, document["swagger"].as_str());
    message(&mut out, 2, |info| {
        text(info, 1, document["info"]["title"].as_str());
        text(info, 2, document["info"]["version"].as_str());
    });
    message(&mut out, 8, |_| ());
    message(&mut out, 9, |definitions| named_schemas(definitions, document["definitions"].as_object()));
    out
}

fn named_schemas(out: &mut Vec<u8>, schemas: Option<&Map<String, Value>>) {
    for (name, value) in schemas.into_iter().flatten() {
        message(out, 1, |entry| {
            text(entry, 1, Some(name));
            message(entry, 2, |body| schema(body, value));
        });
    }
}

fn schema(out: &mut Vec<u8>, value: &Value) {
    let Value::Object(fields) = value else { return };
    text(out, 1, fields.get("$ref").and_then(Value::as_str));
    text(out, 2, fields.get("format").and_then(Value::as_str));
    text(out, 4, fields.get("description").and_then(Value::as_str));
    if let Some(default) = fields.get("default") {
        any(out, 5, default);
    }
    text(out, 13, fields.get("pattern").and_then(Value::as_str));
    for name in fields.get("required").and_then(Value::as_array).into_iter().flatten() {
        text(out, 19, name.as_str());
    }
    for value in fields.get("enum").and_then(Value::as_array).into_iter().flatten() {
        any(out, 20, value);
    }
    match fields.get("additionalProperties") {
        Some(Value::Bool(allowed)) => message(out, 21, |item| {
            flag(item, 2, *allowed);
        }),
        Some(inner) => message(out, 21, |item| message(item, 1, |body| schema(body, inner))),
        None => {}
    }
    if let Some(kind) = fields.get("type").and_then(Value::as_str) {
        message(out, 22, |item| text(item, 1, Some(kind)));
    }
    if let Some(items) = fields.get("items") {
        message(out, 23, |item| message(item, 1, |body| schema(body, items)));
    }
    if let Some(Value::Object(properties)) = fields.get("properties") {
        message(out, 25, |list| named_schemas(list, Some(properties)));
    }
    for (name, value) in fields.iter().filter(|(name, _)| name.starts_with("x-")) {
        message(out, 31, |entry| {
            text(entry, 1, Some(name));
            any(entry, 2, value);
        });
    }
}

/// A value as YAML text, of which JSON is a part.
fn any(out: &mut Vec<u8>, field: u32, value: &Value) {
    message(out, field, |body| text(body, 2, Some(&value.to_string())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_small_document_is_encoded_as_the_message_says() {
        let document = json!({"swagger": "2.0", "info": {"title": "K", "version": "v1"}, "definitions": {"A": {"type": "string"}}});
        let expected = [
            &b"\x0a\x032.0"[..],
            b"\x12\x07\x0a\x01K\x12\x02v1",
            b"\x42\x00",
            // NamedSchema{name: "A", value: Schema{type: TypeItem{value: ["string"]}}}
            b"\x4a\x12\x0a\x10\x0a\x01A\x12\x0b\xb2\x01\x08\x0a\x06string",
        ]
        .concat();
        assert_eq!(encode(&document), expected);
    }
}
