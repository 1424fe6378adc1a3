//! The version 2 document as protobuf (`openapi.v2.Document` of gnostic), which clients before v1.29 insist on.

use serde_json::{Map, Value};

use super::{flag, message, present_text, text};

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
    message(&mut out, 8, |out| named(out, 2, &document["paths"], path_item));
    message(&mut out, 9, |definitions| named_schemas(definitions, document["definitions"].as_object()));
    if document.get("parameters").is_some() {
        message(&mut out, 10, |out| named(out, 1, &document["parameters"], parameter));
    }
    for requirement in document["security"].as_array().into_iter().flatten() {
        message(&mut out, 12, |out| {
            named(out, 1, requirement, |out, scopes| texts(out, 1, scopes));
        });
    }
    if document.get("securityDefinitions").is_some() {
        message(&mut out, 13, |out| named(out, 1, &document["securityDefinitions"], security));
    }
    out
}

/// Members of a map, each a message of its name and what it holds.
fn named(out: &mut Vec<u8>, field: u32, map: &Value, mut write: impl FnMut(&mut Vec<u8>, &Value)) {
    for (name, value) in map.as_object().into_iter().flatten() {
        message(out, field, |entry| {
            text(entry, 1, Some(name));
            message(entry, 2, |out| write(out, value));
        });
    }
}

fn texts(out: &mut Vec<u8>, field: u32, list: &Value) {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.for_each(|word| present_text(out, field, word));
}

/// The members of a message that are text, by their fields.
fn members(out: &mut Vec<u8>, value: &Value, fields: &[(u32, &str)]) {
    for (field, name) in fields {
        text(out, *field, value[*name].as_str());
    }
}

fn extensions(out: &mut Vec<u8>, field: u32, value: &Value) {
    let members = value.as_object().into_iter().flatten();
    for (name, value) in members.filter(|(name, _)| name.starts_with("x-")) {
        message(out, field, |entry| {
            text(entry, 1, Some(name));
            any(entry, 2, value);
        });
    }
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    const METHODS: [(u32, &str); 7] =
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (field, method) in METHODS {
        if let Some(value) = item.get(method) {
            message(out, field, |out| operation(out, value));
        }
    }
    parameters(out, 9, &item["parameters"]);
}

fn operation(out: &mut Vec<u8>, value: &Value) {
    texts(out, 1, &value["tags"]);
    members(out, value, &[(3, "description"), (5, "operationId")]);
    texts(out, 6, &value["produces"]);
    texts(out, 7, &value["consumes"]);
    parameters(out, 8, &value["parameters"]);
    message(out, 9, |out| {
        named(out, 1, &value["responses"], |out, response| {
            message(out, 1, |out| {
                text(out, 1, response["description"].as_str());
                if let Some(of) = response.get("schema") {
                    message(out, 2, |out| message(out, 1, |out| schema(out, of)));
                }
            });
        });
    });
    texts(out, 10, &value["schemes"]);
    extensions(out, 13, value);
}

fn parameters(out: &mut Vec<u8>, field: u32, list: &Value) {
    for value in list.as_array().into_iter().flatten() {
        message(out, field, |out| match value.get("$ref") {
            Some(reference) => message(out, 2, |out| text(out, 1, reference.as_str())),
            None => message(out, 1, |out| parameter(out, value)),
        });
    }
}

fn parameter(out: &mut Vec<u8>, value: &Value) {
    let place = value["in"].as_str().unwrap_or_default();
    if place == "body" {
        return message(out, 1, |out| {
            members(out, value, &[(1, "description"), (2, "name"), (3, "in")]);
            if value["required"] == true {
                flag(out, 4, true);
            }
            message(out, 5, |out| schema(out, &value["schema"]));
        });
    }
    // Those of paths have one member less, and what follows moves up.
    let (kind, type_field, unique_field) = if place == "path" { (4, 5, 19) } else { (3, 6, 20) };
    message(out, 2, |out| {
        message(out, kind, |out| {
            if value["required"] == true {
                flag(out, 1, true);
            }
            members(out, value, &[(2, "in"), (3, "description"), (4, "name"), (type_field, "type")]);
            if value["uniqueItems"] == true {
                flag(out, unique_field, true);
            }
        });
    });
}

fn security(out: &mut Vec<u8>, value: &Value) {
    message(out, 2, |out| members(out, value, &[(1, "type"), (2, "name"), (3, "in"), (4, "description")]));
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
    extensions(out, 31, value);
}

/// A value as YAML text.
fn any(out: &mut Vec<u8>, field: u32, value: &Value) {
    message(out, field, |body| text(body, 2, Some(&crate::yaml::to_string(value))));
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
