//! What is published of a custom resource, as kube-apiserver v1.36.2 publishes it (`openapi/tab.json` holds its answers).

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
    let v2: Value = serde_json::from_slice(&api.v2().json).expect("JSON");
    let v3 = api.v3("apis/v2.example.com/v1").expect("is served");
    let v3: Value = serde_json::from_slice(&v3.json).expect("JSON");
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
