//! Custom resources from their definition on: how it is served and found, what its schema does to objects, what OpenAPI says of
//! it, and what becomes of fields that it does not know.

mod world;

use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn version(name: &str, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}}})
}

fn definition(group: &str, plural: &str, kind: &str, versions: Value) -> Value {
    json!({"metadata": {"name": format!("{plural}.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind}, "versions": versions}})
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn sized() -> Value {
    object(
        json!({"spec": object(json!({"size": {"type": "integer"}, "colour": {"type": "string", "default": "red"}}))}),
    )
}

async fn define(world: &World, definition: Value) {
    world.grant(DEFINITIONS, definition).await;
}

#[tokio::test]
async fn a_definition_is_served_listed_and_found() {
    let world = World::new().await;
    let watching = world.raw("GET", &format!("{DEFINITIONS}?watch=1"), &[], "").await;
    define(&world, definition("example.com", "widgets", "Widget", json!([version("v1", sized())]))).await;
    let (code, list) = world.json("GET", DEFINITIONS, Value::Null).await;
    assert_eq!((code, &list["items"][0]["metadata"]["name"]), (200, &json!("widgets.example.com")), "{list}");
    let first = first_line(watching).await;
    assert_eq!(
        (&first["type"], &first["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("widgets.example.com")),
        "{first}"
    );
    // It is found in every form of discovery.
    let (_, groups) = world.json("GET", "/apis", Value::Null).await;
    let group = groups["groups"].as_array().expect("groups").iter().find(|g| g["name"] == "example.com");
    assert_eq!(group.expect("ours")["preferredVersion"]["groupVersion"], "example.com/v1", "{groups}");
    let (_, resources) = world.json("GET", "/apis/example.com/v1", Value::Null).await;
    let named = resources["resources"].as_array().expect("resources").iter().map(|r| &r["name"]);
    assert_eq!(named.collect::<Vec<_>>(), ["widgets", "widgets/status"], "{resources}");
    let (_, _, aggregated) = world.send("GET", "/apis", &[("accept", AGGREGATED)], "").await;
    let aggregated: Value = serde_json::from_slice(&aggregated).expect("JSON");
    let group = aggregated["items"].as_array().expect("groups").iter();
    let group = group.clone().find(|g| g["metadata"]["name"] == "example.com").expect("ours");
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["kind"], "Widget", "{group}");

    // Its own status is a part of it that is written apart.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let condition = json!({"type": "Looked", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let change = json!({"spec": {"preserveUnknownFields": true}, "status": {"conditions": [condition]}});
    let (code, answer) = world.json("PATCH", &format!("{path}/status"), change).await;
    assert_eq!((code, &answer["status"]["conditions"][0]["type"]), (200, &json!("Looked")), "{answer}");
    assert_ne!(answer["spec"]["preserveUnknownFields"], true, "{answer}");
    let (code, _) = world.json("GET", &format!("{path}/status"), Value::Null).await;
    assert_eq!(code, 200);

    let (code, _) = world.json("DELETE", &path, Value::Null).await;
    assert_eq!(code, 200);
}

async fn first_line(answer: http::Response<apiserver::http::body::Body>) -> Value {
    use futures::StreamExt;
    use http_body_util::BodyExt;
    let mut body = answer.into_body().into_data_stream();
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), body.next()).await;
        let Ok(Some(Ok(bytes))) = next else { panic!("the watch says nothing: {line:?}") };
        line.extend_from_slice(&bytes);
    }
    serde_json::from_slice(line.split(|b| *b == b'\n').next().unwrap_or_default()).expect("an event")
}

#[tokio::test]
async fn a_schema_fills_in_what_is_left_out_also_of_what_is_stored() {
    let world = World::new().await;
    let bare =
        object(json!({"spec": object(json!({"size": {"type": "integer"}, "colour": {"type": "string"}}))}));
    define(&world, definition("example.com", "widgets", "Widget", json!([version("v1", bare)]))).await;
    world.grant(WIDGETS, widget("before", json!({"size": 1}))).await;
    let (_, before) = world.json("GET", &format!("{WIDGETS}/before"), Value::Null).await;
    assert_eq!(before["spec"], json!({"size": 1}));
    let change = json!({"spec": {"versions": [version("v1", sized())]}});
    let (code, answer) = world.json("PATCH", &format!("{DEFINITIONS}/widgets.example.com"), change).await;
    assert_eq!(code, 200, "{answer}");
    world.grant(WIDGETS, widget("after", json!({"size": 2}))).await;
    for (name, size) in [("before", 1), ("after", 2)] {
        let (_, read) = world.json("GET", &format!("{WIDGETS}/{name}"), Value::Null).await;
        assert_eq!(read["spec"], json!({"size": size, "colour": "red"}), "{name}");
    }
    // What is said stays as it is said.
    world.grant(WIDGETS, widget("blue", json!({"colour": "blue"}))).await;
    let (_, read) = world.json("GET", &format!("{WIDGETS}/blue"), Value::Null).await;
    assert_eq!(read["spec"], json!({"colour": "blue"}));
}

/// A kind's schema in a document of the third version of OpenAPI, and in that of the second.
async fn published(world: &World, group_version: &str, model: &str) -> [Value; 2] {
    let (_, three) = world.json("GET", &format!("/openapi/v3/apis/{group_version}"), Value::Null).await;
    let (_, two) = world.json("GET", "/openapi/v2", Value::Null).await;
    [three["components"]["schemas"][model].clone(), two["definitions"][model].clone()]
}

#[tokio::test]
async fn openapi_says_what_definitions_say() {
    let world = World::new().await;
    let kept = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let nested = object(json!({"spec": kept}));
    let embedded = object(
        json!({"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true}}),
    );
    let versions = |schema: &Value| json!([version("v1", schema.clone()), version("v2", schema.clone())]);
    for (group, plural, kind, schema) in [
        ("example.com", "widgets", "Widget", sized()),
        ("example.com", "roots", "Root", kept.clone()),
        ("example.com", "parts", "Part", nested),
        ("example.com", "bears", "Bear", embedded),
        ("example.org", "widgets", "Widget", sized()),
    ] {
        define(&world, definition(group, plural, kind, versions(&schema))).await;
    }
    for (group, reversed) in [("example.com", "com.example"), ("example.org", "org.example")] {
        for version in ["v1", "v2"] {
            let model = format!("{reversed}.{version}.Widget");
            for document in published(&world, &format!("{group}/{version}"), &model).await {
                let size = &document["properties"]["spec"]["properties"]["size"];
                assert_eq!(size["type"], "integer", "{model}: {document}");
            }
        }
    }
    for (kind, at) in [("Root", ""), ("Part", "/properties/spec"), ("Bear", "/properties/spec")] {
        let [three, two] = published(&world, "example.com/v1", &format!("com.example.v1.{kind}")).await;
        let keeps = |document: &Value| {
            let part = document.pointer(at).unwrap_or_else(|| panic!("{kind}: {document}"));
            part["x-kubernetes-preserve-unknown-fields"] == true
        };
        assert!(keeps(&three), "{kind}: {three}");
        // The older form has no word for it: whatever may be there is not described.
        assert!(two.is_object(), "{kind}: {two}");
    }

    // A version that goes by another name, and one that is served no more.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let renamed = json!([version("v1", sized()), version("v3", sized())]);
    let (code, answer) = world.json("PATCH", &path, json!({"spec": {"versions": renamed}})).await;
    assert_eq!(code, 200, "{answer}");
    for document in published(&world, "example.com/v3", "com.example.v3.Widget").await {
        assert!(document["properties"]["spec"].is_object(), "{document}");
    }
    assert_eq!(
        published(&world, "example.com/v2", "com.example.v2.Widget").await,
        [Value::Null, Value::Null]
    );
    let mut silent = renamed;
    silent[1]["served"] = false.into();
    let (code, answer) = world.json("PATCH", &path, json!({"spec": {"versions": silent}})).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(
        published(&world, "example.com/v3", "com.example.v3.Widget").await,
        [Value::Null, Value::Null]
    );
    assert!(published(&world, "example.com/v1", "com.example.v1.Widget").await[0].is_object());
}

/// Code and message of a creation that names what its schema does not know, or says it twice.
async fn told(world: &World, how: &str, path: &str, body: &str) -> (u16, String, Vec<String>) {
    let path = format!("{path}?fieldValidation={how}");
    let (code, headers, answer) =
        world.send("POST", &path, &[("content-type", "application/json")], body.to_owned()).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let warnings = headers.get_all("warning").iter().map(|w| w.to_str().expect("text").to_owned());
    (code, answer["message"].as_str().unwrap_or_default().to_owned(), warnings.collect())
}

/// In the words that kube-apiserver has for each.
#[tokio::test]
async fn fields_that_are_unknown_or_twice_there_are_told_as_asked() {
    let world = World::new().await;
    define(&world, definition("example.com", "widgets", "Widget", json!([version("v1", sized())]))).await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&world, definition("example.com", "frees", "Free", json!([version("v1", free)]))).await;
    let frees = WIDGETS.replace("widgets", "frees");
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let head = r#""apiVersion":"example.com/v1","kind":"Widget""#;
    let widget = |rest: &str| format!("{{{head},{rest}}}");
    let free = |rest: &str| format!("{{{head},{rest}}}").replace("Widget", "Free");
    let deployment = |metadata: &str, spec: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"d"{metadata}}},"spec":{{"replicas":0,"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}{spec}}}}}"#
        )
    };
    for (path, body, problem) in [
        (deployments, deployment("", r#","bogus":1"#), r#"unknown field "spec.bogus""#),
        (deployments, deployment(r#","bogus":1"#, ""), r#"unknown field "metadata.bogus""#),
        (deployments, deployment("", r#","replicas":1"#), r#"duplicate field "spec.replicas""#),
        (
            WIDGETS,
            widget(r#""metadata":{"name":"w"},"spec":{"size":1,"bogus":1}"#),
            r#"unknown field "spec.bogus""#,
        ),
        (
            WIDGETS,
            widget(r#""metadata":{"name":"w","bogus":1},"spec":{}"#),
            r#"unknown field "metadata.bogus""#,
        ),
        (
            WIDGETS,
            widget(r#""metadata":{"name":"w"},"spec":{"size":1,"size":2}"#),
            r#"duplicate field "spec.size""#,
        ),
        (
            &frees,
            free(r#""metadata":{"name":"w","bogus":1},"spec":{"x":1}"#),
            r#"unknown field "metadata.bogus""#,
        ),
        (&frees, free(r#""metadata":{"name":"w"},"spec":{"x":1,"x":2}"#), r#"duplicate field "spec.x""#),
    ] {
        let (code, message, _) = told(&world, "Strict", path, &body).await;
        assert_eq!(code, 400, "{body}: {message}");
        assert!(message.ends_with(&format!("strict decoding error: {problem}")), "{message}");
        let (code, message, warnings) = told(&world, "Warn&dryRun=All", path, &body).await;
        let warning = format!("299 - \"{}\"", problem.replace('"', "\\\""));
        assert_eq!((code, warnings), (201, vec![warning]), "{body}: {message}");
        let (code, message, warnings) = told(&world, "Ignore&dryRun=All", path, &body).await;
        assert_eq!((code, warnings), (201, Vec::new()), "{body}: {message}");
    }
    // Nothing is said of what is as it should be, nor of what a schema leaves open.
    for (path, body) in [
        (WIDGETS, widget(r#""metadata":{"name":"w"},"spec":{"size":1}"#)),
        (&frees, free(r#""metadata":{"name":"w"},"spec":{"whatever":1}"#)),
    ] {
        let (code, message, warnings) = told(&world, "Strict", path, &body).await;
        assert_eq!((code, warnings), (201, Vec::new()), "{message}");
    }
}

/// What a body may be is more than what an object may come to: between the two is told as clearly. The original says it with a code of
/// 500 and in the words of its store.
#[tokio::test]
async fn what_is_too_large_to_keep_is_told() {
    let world = World::new().await;
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&world, definition("example.com", "widgets", "Widget", json!([version("v1", free)]))).await;
    let of = |name: &str, size: usize| widget(name, json!({"a": "x".repeat(size)}));
    const MEGABYTE: usize = 1 << 20;
    for (size, code) in
        [(MEGABYTE, 201), (MEGABYTE * 8 / 5, 413), (MEGABYTE * 29 / 10, 413), (MEGABYTE * 31 / 10, 413)]
    {
        let (found, answer) = world.json("POST", WIDGETS, of(&format!("w{size}"), size)).await;
        assert_eq!(found, code, "{size}: {:.300}", answer.to_string());
        if code == 413 {
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(message.contains("too large"), "{size}: {message}");
            assert_eq!(answer["reason"], "RequestEntityTooLarge");
            let path = format!("{WIDGETS}/w{size}");
            assert_eq!(world.json("GET", &path, Value::Null).await.0, 404);
        }
    }
    // Nor does one grow to it.
    world.grant(WIDGETS, of("small", 1)).await;
    let path = format!("{WIDGETS}/small");
    let growth = json!({"spec": {"b": "x".repeat(MEGABYTE * 8 / 5)}});
    assert_eq!(world.json("PATCH", &path, growth).await.0, 413);
    let (_, kept) = world.json("GET", &path, Value::Null).await;
    assert_eq!(kept["spec"], json!({"a": "x"}));
}
