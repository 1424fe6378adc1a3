//! What is published of a custom resource, and how documents are written as protobuf, as kube-apiserver v1.36.2 does it: its
//! answers are kept in `openapi/` (`shapes` is cut out of a longer one).

use api::openapi::{OpenApi, OpenApiResource};
use serde_json::{Value, json};

/// The models of a resource in a document.
fn published(plural: &str, schema: Value) -> (Value, Value) {
    let kind = "Tab";
    let mut resource = OpenApiResource::new("v2.example.com", "v1", kind, plural, true);
    resource.schema = Some(schema);
    let api = OpenApi::new(vec![resource], None);
    let own = |models: &Value| {
        let models = models.as_object().expect("models").iter();
        Value::Object(
            models
                .filter(|(name, _)| name.contains("example"))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        )
    };
    let v2: Value = serde_json::from_slice(&api.v2().body).expect("JSON");
    let v3 = api.v3("apis/v2.example.com/v1").expect("is served");
    let v3: Value = serde_json::from_slice(&v3.body).expect("JSON");
    (own(&v2["definitions"]), own(&v3["components"]["schemas"]))
}

/// Each place where two documents differ.
fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                differences(&format!("{path}/{name}"), &ours[name], &theirs[name], out);
            }
        }
        _ if ours == theirs => {}
        _ => out.push(format!("{path}: {ours} instead of {theirs}")),
    }
}

#[test]
fn a_custom_resource_is_published_as_the_original_does() {
    let recorded: Value = serde_json::from_str(include_str!("openapi/tab.json")).expect("JSON");
    let (v2, v3) = published("tabs", recorded["schema"].clone());
    let mut found = Vec::new();
    differences("v2", &v2, &recorded["v2"], &mut found);
    differences("v3", &v3, &recorded["v3"], &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// kubectl takes named fields for the only ones there are.
#[test]
fn what_keeps_unknown_fields_names_none_in_version_2() {
    let (v2, v3) = published("tabs", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let gvk = json!([{"group": "v2.example.com", "version": "v1", "kind": "Tab"}]);
    assert_eq!(
        v2["com.example.v2.v1.Tab"],
        json!({"type": "object", "x-kubernetes-group-version-kind": gvk})
    );
    let own = &v3["com.example.v2.v1.Tab"];
    assert_eq!(own["x-kubernetes-preserve-unknown-fields"], true);
    assert!(own["properties"]["metadata"].is_object() && own.get("description").is_none());
}

/// The fields of a message: their number and wire type, and what they hold.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let end = bytes.iter().position(|b| b & 0x80 == 0).filter(|end| *end < 9)?;
        let (number, rest) = bytes.split_at(end + 1);
        *bytes = rest;
        Some(number.iter().rev().fold(0, |all, b| all << 7 | u64::from(b & 0x7f)))
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let before = bytes;
        let length = match key & 7 {
            0 => varint(&mut bytes).map(|_| before.len() - bytes.len())?,
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            _ => return None,
        };
        let from = if key & 7 == 0 { before } else { bytes };
        out.push((key, from.get(..length)?));
        bytes = &from[length..];
    }
    Some(out)
}

/// Where two messages differ by more than how the YAML within them is laid out.
fn difference(path: &str, ours: &[u8], theirs: &[u8]) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let yaml = |bytes| std::str::from_utf8(bytes).ok().and_then(|text| api::yaml::parse_one(text).ok());
    if yaml(ours).is_some() && yaml(ours) == yaml(theirs) {
        return None;
    }
    if let (Some(a), Some(b)) = (fields(ours), fields(theirs))
        && a.len() == b.len()
        && a.iter().zip(&b).all(|(a, b)| a.0 == b.0)
    {
        return a.iter().zip(&b).find_map(|(a, b)| difference(&format!("{path}/{}", a.0 >> 3), a.1, b.1));
    }
    let show = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(format!("{path}:\n{:?}\ninstead of\n{:?}", show(ours), show(theirs)))
}

#[test]
fn protobuf_of_version_2_is_the_originals() {
    let json = serde_json::from_str(include_str!("openapi/swagger.json")).expect("JSON");
    let ours = api::openapi::protobuf::v2::encode(&json);
    assert_eq!(difference("swagger", &ours, include_bytes!("openapi/swagger.pb")), None);
}

#[test]
fn protobuf_of_version_3_is_the_originals() {
    let check = |name: &str, json: &str, protobuf: &[u8]| {
        let ours = api::openapi::protobuf::v3::encode(&serde_json::from_str(json).expect("JSON"));
        assert_eq!(difference(name, &ours, protobuf), None);
    };
    check("apis", include_str!("openapi/apis.json"), include_bytes!("openapi/apis.pb"));
    check("shapes", include_str!("openapi/shapes.json"), include_bytes!("openapi/shapes.pb"));
    let other = api::openapi::protobuf::v3::encode(&json!({"openapi": "3.0.0", "info": {"title": "else"}}));
    assert!(difference("apis", &other, include_bytes!("openapi/apis.pb")).is_some());
}
