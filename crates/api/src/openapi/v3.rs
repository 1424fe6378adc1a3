//! What a version 2 path says, said in version 3: parameters are written out, bodies and answers stand beside each
//! media type.

use serde_json::{Map, Value, json};

use super::parameters::resolved;

/// A path with its operations.
pub(super) fn path_item(item: &Value) -> Value {
    let parts = item.as_object().into_iter().flatten();
    let parts = parts.map(|(name, part)| {
        let part = match name.as_str() {
            "parameters" => part.as_array().into_iter().flatten().map(|p| parameter(&resolved(p))).collect(),
            _ => operation(part),
        };
        (name.clone(), part)
    });
    Value::Object(parts.collect())
}

fn operation(operation: &Value) -> Value {
    let Value::Object(members) = operation else { return Value::Null };
    let own = |name: &str| !matches!(name, "consumes" | "produces" | "schemes" | "parameters" | "responses");
    let mut out: Map<String, Value> =
        members.iter().filter(|(name, _)| own(name)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(resolved);
    let (bodies, others): (Vec<Value>, Vec<Value>) = parameters.partition(|p| p["in"] == "body");
    if !others.is_empty() {
        out.insert("parameters".into(), others.iter().map(parameter).collect());
    }
    if let Some(body) = bodies.first() {
        let mut request = json!({"content": content(&operation["consumes"], &body["schema"])});
        if body["required"] == true {
            request["required"] = true.into();
        }
        out.insert("requestBody".into(), request);
    }
    let responses = operation["responses"].as_object().into_iter().flatten();
    let responses = responses.map(|(code, response)| {
        let mut said = json!({"description": response["description"]});
        if let Some(schema) = response.get("schema") {
            said["content"] = content(&operation["produces"], schema);
        }
        (code.clone(), said)
    });
    out.insert("responses".into(), Value::Object(responses.collect()));
    Value::Object(out)
}

fn content(media_types: &Value, schema: &Value) -> Value {
    let schema = json!({"schema": moved(schema)});
    let types = media_types.as_array().into_iter().flatten().filter_map(Value::as_str);
    Value::Object(types.map(|media_type| (media_type.to_owned(), schema.clone())).collect())
}

/// A schema whose reference points to where version 3 has it.
fn moved(schema: &Value) -> Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/definitions/"));
    name.map_or_else(|| schema.clone(), |name| json!({"$ref": format!("#/components/schemas/{name}")}))
}

fn parameter(parameter: &Value) -> Value {
    let (mut out, mut schema) = (Map::new(), Map::new());
    for (name, value) in parameter.as_object().into_iter().flatten() {
        let place = if matches!(name.as_str(), "type" | "uniqueItems") { &mut schema } else { &mut out };
        place.insert(name.clone(), value.clone());
    }
    out.insert("schema".into(), schema.into());
    Value::Object(out)
}
