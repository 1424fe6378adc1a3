//! OpenAPI beside the original's: every definition, path and operation of the version 2 document and of each version 3
//! document. What is recorded is the text of each part of version 2 and of each schema of version 3, and a hash of the paths of
//! version 3, which say what those of version 2 say.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::differential::Door;

use crate::known::{Known, differences};
use crate::world::World;
use crate::{folder, original};

/// Parts by name, and their texts by hash.
#[derive(Default, Serialize, Deserialize)]
struct Parts {
    parts: BTreeMap<String, String>,
    texts: BTreeMap<String, Value>,
}

impl Parts {
    fn add(&mut self, name: String, value: &Value, with_text: bool) {
        let value = canonical(value);
        let hash = base::id::sha256_hex(value.to_string().as_bytes())[..16].to_owned();
        self.parts.insert(name, hash.clone());
        if with_text {
            self.texts.insert(hash, value);
        }
    }

    /// Each member of a map as a part, operations of paths one by one.
    fn add_members(&mut self, prefix: &str, map: &Value, deep: bool, with_text: bool) {
        for (name, value) in map.as_object().into_iter().flatten() {
            match value.as_object().filter(|_| deep) {
                Some(members) => members.iter().for_each(|(member, value)| {
                    self.add(format!("{prefix} {name} {member}"), value, with_text);
                }),
                None => self.add(format!("{prefix} {name}"), value, with_text),
            }
        }
    }
}

/// Which fields must be there is a set.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let mut value = canonical(value);
                if let ("required", Value::Array(names)) = (key.as_str(), &mut value) {
                    names.sort_by_cached_key(Value::to_string);
                }
                (key.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

async fn get(door: &dyn Door, path: &str) -> Value {
    let request =
        Request::get(path).header("accept", "application/json").body(Bytes::new()).expect("a request");
    let (head, mut stream) = door.ask(request).await.expect("an answer").into_parts();
    assert_eq!(head.status, 200, "{path}");
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{path}: {e}"))
}

async fn of(door: &dyn Door) -> Parts {
    let mut out = Parts::default();
    let v2 = get(door, "/openapi/v2").await;
    for (name, value) in v2.as_object().expect("a document") {
        match name.as_str() {
            "paths" => out.add_members("v2 path", value, true, true),
            "definitions" => out.add_members("v2 definition", value, false, true),
            "parameters" => out.add_members("v2 parameter", value, false, true),
            _ => out.add(format!("v2 {name}"), value, true),
        }
    }
    let index = get(door, "/openapi/v3").await;
    for (document, place) in index["paths"].as_object().expect("an index") {
        let v3 = get(door, place["serverRelativeURL"].as_str().expect("a place")).await;
        for (name, value) in v3.as_object().expect("a document") {
            match name.as_str() {
                "paths" => out.add_members(&format!("v3 {document} path"), value, true, false),
                "components" => {
                    out.add_members(&format!("v3 {document} schema"), &value["schemas"], false, true);
                    out.add(format!("v3 {document} securitySchemes"), &value["securitySchemes"], true);
                }
                _ => out.add(format!("v3 {document} {name}"), value, true),
            }
        }
    }
    out
}

/// What is said of a custom resource, in the document of its own and in that of all.
async fn of_custom(door: &dyn Door) -> Parts {
    const GROUP: &str = "openapi.example.com";
    let name = format!("things.{GROUP}");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"type": "object", "description": "a thing", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 1}, "kept": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true}}, "required": ["replicas"]},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}});
    let definition = json!({"metadata": {"name": name}, "spec": {"group": GROUP, "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas"}}}]}});
    let request = Request::post(definitions).header("content-type", "application/json");
    let request = request.body(Bytes::from(definition.to_string())).expect("a request");
    let status = door.ask(request).await.expect("an answer").status().as_u16();
    assert!([201, 409].contains(&status), "{status}");
    let document = format!("/openapi/v3/apis/{GROUP}/v1");
    let own = format!("/apis/{GROUP}/");
    let v2 = until(door, "/openapi/v2", &|v2| v2["paths"].to_string().contains(&own)).await;
    let v3 = until(door, &document, &|v3| v3["components"]["schemas"].to_string().contains("Thing")).await;
    let mut out = Parts::default();
    let mut paths = v2["paths"].clone();
    paths.as_object_mut().expect("paths").retain(|path, _| path.starts_with(&own));
    out.add_members("v2 path", &paths, true, true);
    out.add_members("v3 path", &v3["paths"], true, true);
    out.add_members("v3 schema", &v3["components"]["schemas"], false, true);
    let delete = Request::delete(format!("{definitions}/{name}")).body(Bytes::new()).expect("a request");
    assert_eq!(door.ask(delete).await.expect("an answer").status(), 200);
    out
}

/// A document once it says something.
async fn until(door: &dyn Door, path: &str, says: &dyn Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let request = Request::get(path).header("accept", "application/json").body(Bytes::new());
        let (_, stream) = door.ask(request.expect("a request")).await.expect("an answer").into_parts();
        let document = crate::script::body(stream, 0).await;
        if document.is_object() && says(&document) {
            return document;
        }
        assert!(std::time::Instant::now() < deadline, "{path} does not say it");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn write(name: &str, parts: &Parts) {
    let file = std::fs::File::create(folder().join("recorded").join(name)).expect("a file");
    let mut packed = GzEncoder::new(file, Compression::best());
    packed.write_all(json!(parts).to_string().as_bytes()).expect("written");
    packed.finish().expect("written");
}

fn read(name: &str) -> Parts {
    let file = std::fs::File::open(folder().join("recorded").join(name)).expect("recorded");
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).expect("unpacked");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn openapi_is_the_originals() {
    const FILE: &str = "openapi.json.gz";
    if let Some(original) = original() {
        write(FILE, &of(&original).await);
    }
    compare("openapi", &read(FILE), &of(&World::new().await).await);
}

#[tokio::test]
async fn custom_resources_are_documented_as_by_the_original() {
    const FILE: &str = "openapi-custom.json.gz";
    if let Some(original) = original() {
        write(FILE, &of_custom(&original).await);
    }
    compare("openapi-custom", &read(FILE), &of_custom(&World::new().await).await);
}

fn compare(suite: &str, theirs: &Parts, ours: &Parts) {
    let mut known = Known::of(suite);
    for (part, hash) in &theirs.parts {
        let difference = match ours.parts.get(part) {
            None => Some("ours lacks it".to_owned()),
            Some(own) if own == hash => None,
            Some(own) => Some(match (theirs.texts.get(hash), ours.texts.get(own)) {
                (Some(theirs), Some(ours)) => {
                    let mut found = Vec::new();
                    differences("", theirs, ours, &mut found);
                    found.truncate(6);
                    found.join("\n    ")
                }
                _ => "differs".to_owned(),
            }),
        };
        known.found(part, difference);
    }
    for part in ours.parts.keys().filter(|part| !theirs.parts.contains_key(*part)) {
        known.found(part, Some("only ours has it".to_owned()));
    }
    known.end();
}
