//! Custom resources in several versions: renamed, or converted by a webhook, on every way in and out.

mod world;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::Extension;
use world::World;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.org/v1/namespaces/default/walks";
const V2: &str = "/apis/example.org/v2/namespaces/default/walks";

fn version(name: &str, field: &str, storage: bool) -> Value {
    json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": format!(".spec.{field}")}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                field: {"type": "string"}, "pace": {"type": "string", "default": format!("pace of {name}")}}},
            "status": {"type": "object", "properties": {"done": {"type": "boolean"}}}}}}})
}

fn definition(conversion: Value) -> Value {
    json!({"metadata": {"name": "walks.example.org"}, "spec": {
        "group": "example.org", "scope": "Namespaced", "conversion": conversion,
        "names": {"plural": "walks", "kind": "Walk"},
        "versions": [version("v1", "where", true), version("v2", "place", false)]}})
}

/// `spec.where` of v1 is `spec.place` of v2.
fn convert(object: &Value, desired: &Value) -> Value {
    let mut object = object.clone();
    let spec = object["spec"].as_object_mut().expect("a spec");
    let (from, to) = if desired == "example.org/v2" { ("where", "place") } else { ("place", "where") };
    if let Some(value) = spec.remove(from) {
        spec.insert(to.into(), value);
    }
    object["apiVersion"] = desired.clone();
    object
}

fn handle(parts: &Parts, body: &Value) -> Option<(u16, Value)> {
    let request = &body["request"];
    let objects = request["objects"].as_array().expect("objects");
    let mut converted: Vec<Value> =
        objects.iter().map(|o| convert(o, &request["desiredAPIVersion"])).collect();
    let mut result = json!({"status": "Success"});
    match parts.uri.path() {
        "/convert" => {}
        "/refuse" => result = json!({"status": "Failed", "message": "no such way"}),
        "/fewer" => drop(converted.pop()),
        "/renames" => converted[0]["metadata"]["name"] = "other".into(),
        other => panic!("{other}"),
    }
    let response = json!({"uid": request["uid"], "result": result, "convertedObjects": converted});
    Some((200, json!({"apiVersion": body["apiVersion"], "kind": "ConversionReview", "response": response})))
}

fn webhook(extension: &Extension, path: &str) -> Value {
    json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v3", "v1"], "clientConfig": {
        "url": format!("https://localhost:{}{path}", extension.port),
        "caBundle": STANDARD.encode(&extension.authority)}}})
}

async fn define(world: &World, conversion: Value) {
    let (code, answer) = world.json("POST", DEFINITIONS, definition(conversion)).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["storedVersions"], json!(["v1"]));
}

fn walk(path: &str, name: &str, spec: Value) -> Value {
    let api_version = if path == V1 { "example.org/v1" } else { "example.org/v2" };
    json!({"apiVersion": api_version, "kind": "Walk", "metadata": {"name": name}, "spec": spec})
}

async fn create(world: &World, path: &str, name: &str, spec: Value) -> Value {
    let (code, answer) = world.json("POST", path, walk(path, name, spec)).await;
    assert_eq!(code, 201, "{answer}");
    answer
}

#[tokio::test]
async fn versions_without_a_webhook_differ_in_name_only() {
    let world = World::new().await;
    define(&world, json!({"strategy": "None"})).await;
    create(&world, V2, "a", json!({"place": "hills"})).await;
    let key = "/registry/example.org/walks/default/a";
    let (stored, _) = store::Store::get(&*world.store, key).await.expect("answers");
    let stored: Value = serde_json::from_slice(&stored.expect("an entry").value).expect("JSON");
    assert_eq!(stored["apiVersion"], "example.org/v1", "stored in the storage version");
    for (path, version, place) in
        [(V2, "example.org/v2", json!("hills")), (V1, "example.org/v1", Value::Null)]
    {
        let (_, found) = world.json("GET", &format!("{path}/a"), Value::Null).await;
        // What a version does not know it does not show.
        assert_eq!((&found["apiVersion"], &found["spec"]["place"]), (&json!(version), &place));
    }
}

#[tokio::test]
async fn a_webhook_converts_what_is_read_and_written() {
    let extension = Extension::start(&["localhost"], handle).await;
    let world = World::new().await;
    define(&world, webhook(&extension, "/convert")).await;
    let made = create(&world, V2, "a", json!({"place": "hills"})).await;
    assert_eq!(made["spec"], json!({"place": "hills", "pace": "pace of v2"}), "answered as it was sent");
    create(&world, V1, "b", json!({"where": "sea"})).await;

    let read = async |path: String| {
        let (code, found) = world.json("GET", &path, Value::Null).await;
        assert_eq!(code, 200, "{found}");
        found
    };
    let found = read(format!("{V1}/a")).await;
    assert_eq!(found["spec"], json!({"where": "hills", "pace": "pace of v2"}));
    let list = read(V2.into()).await;
    let places: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|i| &i["spec"]["place"]).collect();
    assert_eq!(places, ["hills", "sea"]);
    // Selected by a field of the version that was asked for.
    let selected = read(format!("{V2}?fieldSelector=spec.place%3Dsea")).await;
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1));

    // A change made through one version is seen in the other, and so is its status.
    let (code, changed) = world.json("PATCH", &format!("{V2}/b"), json!({"spec": {"place": "lake"}})).await;
    assert_eq!((code, &changed["spec"]["place"]), (200, &json!("lake")), "{changed}");
    assert_eq!(changed["metadata"]["generation"], 2);
    let (code, done) =
        world.json("PATCH", &format!("{V2}/b/status"), json!({"status": {"done": true}})).await;
    assert_eq!(code, 200, "{done}");
    let found = read(format!("{V1}/b")).await;
    assert_eq!((&found["spec"]["where"], &found["status"]["done"]), (&json!("lake"), &json!(true)));
    assert_eq!(found["metadata"]["generation"], 2);

    let (code, gone) = world.json("DELETE", &format!("{V2}/a"), Value::Null).await;
    assert_eq!(code, 200, "{gone}");
    let (code, gone) = world.json("DELETE", V2, Value::Null).await;
    assert_eq!((code, &gone["items"][0]["spec"]["place"]), (200, &json!("lake")), "{gone}");
}

#[tokio::test]
async fn watches_are_converted_too() {
    let extension = Extension::start(&["localhost"], handle).await;
    let world = World::new().await;
    define(&world, webhook(&extension, "/convert")).await;
    let first = create(&world, V1, "a", json!({"where": "sea"})).await;
    let from = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{V2}?watch=true&resourceVersion={from}&timeoutSeconds=30");
    let mut body = world.raw("GET", &path, &[], "").await.into_body();
    create(&world, V1, "b", json!({"where": "lake"})).await;
    let frame = body.frame().await.expect("an event").ok().and_then(|f| f.into_data().ok()).expect("data");
    let event: Value = serde_json::from_slice(&frame).expect("JSON");
    assert_eq!(
        (&event["type"], &event["object"]["spec"]["place"]),
        (&json!("ADDED"), &json!("lake")),
        "{event}"
    );
}

/// A watch that is read event by event, though a write may hold several.
struct Told {
    body: apiserver::http::body::Body,
    read: Vec<u8>,
}

impl Told {
    /// What the next event is, and the fields that its object has.
    async fn next(&mut self) -> (String, Value) {
        let line = loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                break self.read.drain(..=end).collect::<Vec<u8>>();
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame()).await;
            let frame = frame.expect("an event in time").expect("an event");
            self.read.extend(frame.ok().and_then(|f| f.into_data().ok()).expect("data"));
        };
        let event: Value = serde_json::from_slice(&line).expect("JSON");
        (event["type"].as_str().unwrap_or_default().to_owned(), event["object"]["spec"].clone())
    }
}

#[tokio::test]
async fn a_watch_selects_by_the_fields_of_its_own_version() {
    let extension = Extension::start(&["localhost"], handle).await;
    let world = World::new().await;
    define(&world, webhook(&extension, "/convert")).await;
    let first = create(&world, V1, "a", json!({"where": "sea"})).await;
    let from = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = async |path: &str, selector: &str| {
        let path =
            format!("{path}?watch=true&resourceVersion={from}&timeoutSeconds=30&fieldSelector={selector}");
        Told { body: world.raw("GET", &path, &[], "").await.into_body(), read: Vec::new() }
    };
    // Both look at the same changes, each as it is served.
    let mut v1 = watch(V1, "spec.where%3Dlake").await;
    let mut v2 = watch(V2, "spec.place%3Dlake").await;
    for place in ["river", "lake", "lake", "sea"] {
        let change = json!({"spec": {"place": place, "pace": base::id::uuid()}});
        let (code, changed) = world.json("PATCH", &format!("{V2}/a"), change).await;
        assert_eq!(code, 200, "{changed}");
    }
    for expected in ["ADDED", "MODIFIED", "DELETED"] {
        for (watch, has, lacks) in [(&mut v1, "where", "place"), (&mut v2, "place", "where")] {
            let (kind, spec) = watch.next().await;
            assert_eq!(
                (kind.as_str(), &spec[has], &spec[lacks]),
                (expected, &json!("lake"), &Value::Null),
                "{spec}"
            );
        }
    }
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_of_and_nothing_is_lost() {
    let extension = Extension::start(&["localhost"], handle).await;
    for (path, expected) in [
        ("/refuse", "conversion webhook for example.org/v1, Kind=Walk failed: no such way"),
        ("/fewer", "conversion webhook for example.org/v1, Kind=Walk returned 0 objects, expected 1"),
        (
            "/renames",
            "conversion webhook for example.org/v1, Kind=Walk returned invalid converted object at index 0: must have the same name: a != other",
        ),
    ] {
        let world = World::new().await;
        define(&world, webhook(&extension, path)).await;
        create(&world, V1, "a", json!({"where": "sea"})).await;
        for asked in [format!("{V2}/a"), V2.to_owned()] {
            let (code, answer) = world.json("GET", &asked, Value::Null).await;
            assert_eq!((code, answer["message"].as_str()), (500, Some(expected)), "{asked}");
        }
        let (code, _) = world.json("POST", V2, walk(V2, "b", json!({}))).await;
        assert_eq!(code, 500);
        let (_, list) = world.json("GET", V1, Value::Null).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    }
}

#[tokio::test]
async fn a_definition_says_how_it_converts() {
    let world = World::new().await;
    let refused = async |conversion: Value| {
        let (code, answer) = world.json("POST", DEFINITIONS, definition(conversion)).await;
        assert_eq!(code, 422, "{answer}");
        let causes = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
        let told = causes.iter().map(|c| format!("{}: {}", c["field"], c["message"]).replace('"', ""));
        told.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        refused(json!({"strategy": "Webhook"})).await,
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook; \
         spec.conversion.conversionReviewVersions: Required value"
    );
    let client = json!({"url": "http://a.example"});
    let told = refused(json!({"strategy": "Webhook",
        "webhook": {"clientConfig": client, "conversionReviewVersions": ["v9"]}}))
    .await;
    assert!(told.contains("'https' is the only allowed URL scheme"), "{told}");
    assert!(told.contains("must include at least one of v1, v1beta1"), "{told}");

    // What objects are stored in stays, until none are.
    define(&world, json!({"strategy": "None"})).await;
    let path = format!("{DEFINITIONS}/walks.example.org");
    let only = json!({"spec": {"versions": [version("v2", "place", true)]}});
    let (code, answer) = world.json("PATCH", &path, only).await;
    assert_eq!(
        (code, &answer["details"]["causes"][0]["field"]),
        (422, &json!("status.storedVersions[0]")),
        "{answer}"
    );
}
