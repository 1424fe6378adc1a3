//! Namespaces, prefixes, suffixes, and the hashes that make a changed ConfigMap a new one.

use base::id::sha256_hex;
use serde_json::{Map, Value, json};

use super::Object;

/// Puts every namespaced object into a namespace, and has bindings mean the accounts there.
pub fn set_namespace(objects: &mut [Object], namespace: &str) {
    for object in objects.iter_mut() {
        match object.kind() {
            "Namespace" if object.group().is_empty() => object.rename(namespace.to_owned()),
            "RoleBinding" | "ClusterRoleBinding" => {
                for subject in object.value["subjects"].as_array_mut().into_iter().flatten() {
                    if subject["kind"] == "ServiceAccount"
                        && (subject["name"] == "default" || subject["namespace"].is_null())
                    {
                        subject["namespace"] = namespace.into();
                    }
                }
                if object.kind() == "RoleBinding" {
                    object.move_to(namespace);
                }
            }
            _ if object.is_cluster_scoped() => {}
            _ => object.move_to(namespace),
        }
    }
}

pub fn add_affixes(objects: &mut [Object], prefix: &str, suffix: &str) {
    if prefix.is_empty() && suffix.is_empty() {
        return;
    }
    let kept = |o: &Object| matches!(o.kind(), "CustomResourceDefinition" | "APIService" | "Namespace");
    for object in objects.iter_mut().filter(|o| !kept(o)) {
        object.rename(format!("{prefix}{}{suffix}", object.name()));
    }
}

pub fn add_hashes(objects: &mut [Object]) {
    for object in objects.iter_mut().filter(|o| o.needs_hash) {
        object.needs_hash = false;
        object.rename(format!("{}-{}", object.name(), content_hash(&object.value)));
    }
}

/// The first ten digits of a SHA-256 over the content, with look-alikes and vowels swapped, as the original does it.
fn content_hash(value: &Value) -> String {
    let field = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    let text = |name: &str| field(name).as_str().unwrap_or_default().to_owned();
    let data = match field("data") {
        Value::Null => json!(""),
        data => data,
    };
    // The order of the members is part of the hashed text.
    let mut parts: Vec<(&str, Value)> = Vec::new();
    if value["kind"] == "ConfigMap" && !field("binaryData").is_null() {
        parts.push(("binaryData", field("binaryData")));
    }
    parts.push(("data", data));
    parts.push(("kind", value["kind"].clone()));
    // The original means the object's name here, but what it hashes is empty.
    parts.push(("name", "".into()));
    if value["kind"] == "Secret" {
        if !field("stringData").is_null() {
            parts.push(("stringData", field("stringData")));
        }
        parts.push(("type", text("type").into()));
    }
    let map: Map<String, Value> = parts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let encoded = go_json(&Value::Object(map));
    let swapped = |c: char| match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    sha256_hex(encoded.as_bytes()).chars().take(10).map(swapped).collect()
}

/// JSON as Go writes it: `<`, `>` and `&` are escaped.
fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kustomize() {
        // As `kustomize build` names a generated ConfigMap and Secret of this content.
        let map = json!({"kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"a": "b"}});
        let secret = json!({"kind": "Secret", "metadata": {"name": "secret"}, "type": "Opaque", "data": {"a": "Yg=="}});
        assert_eq!(content_hash(&map), EXPECTED_MAP);
        assert_eq!(content_hash(&secret), EXPECTED_SECRET);
    }
    const EXPECTED_MAP: &str = "4h2mbtbbt6";
    const EXPECTED_SECRET: &str = "k695gkmbtk";
}
