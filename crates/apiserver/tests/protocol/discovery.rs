//! Discovery in all its forms, beside the original's: every group and version in the old form, all groups in the aggregated
//! one, what is refused, and what is answered to whoever has it already.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::differential::Door;

use crate::known::{Known, differences};
use crate::world::World;
use crate::{folder, original};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    code: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// Headers that are compared; of those that differ by nature only whether they are there.
const HEADERS: &[&str] = &["content-type", "vary", "etag", "cache-control", "location"];

async fn asked(door: &dyn Door, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Bytes) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = door.ask(request.body(Bytes::new()).expect("a request")).await.expect("an answer");
    let (head, mut stream) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.expect("a piece"));
    }
    (head.status.as_u16(), head.headers, bytes.into())
}

async fn told(door: &dyn Door, path: &str, accept: &str) -> Told {
    let (code, headers, bytes) = asked(door, path, &[("accept", accept)]).await;
    let headers = HEADERS.iter().filter_map(|name| {
        let value = headers.get(*name)?.to_str().ok()?;
        let value = if *name == "etag" { "<tag>" } else { value };
        Some(((*name).to_owned(), value.to_owned()))
    });
    let headers = headers.collect();
    Told { code, headers, body: body(&bytes) }
}

/// JSON, or protobuf as the JSON that it stands for.
fn body(bytes: &[u8]) -> Value {
    let parsed = match bytes.starts_with(b"k8s\0") {
        true => api::proto::decode(bytes).unwrap_or_else(|e| format!("protobuf: {e}").into()),
        false => serde_json::from_slice(bytes).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let is_yaml =
                ["apiVersion: ", "kind: ", "groupVersion: "].iter().any(|start| text.starts_with(start));
            if is_yaml { api::yaml::parse_one(&text).expect("YAML") } else { text.into() }
        }),
    };
    settled(parsed)
}

/// What is of one server alone.
fn settled(mut body: Value) -> Value {
    // What others have defined there is no part of it.
    let foreign = |name: &Value| name.as_str().is_some_and(|name| name.contains(".example."));
    for list in ["groups", "items"] {
        if let Some(Value::Array(groups)) = body.get_mut(list) {
            groups.retain(|group| !foreign(&group["name"]) && !foreign(&group["metadata"]["name"]));
        }
    }
    if let Some(Value::Object(paths)) = body.get_mut("paths") {
        paths.retain(|path, _| !foreign(&json!(path)));
    }
    for place in body.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(url) = place.1["serverRelativeURL"].as_str().and_then(|url| url.split_once("?hash=")) {
            place.1["serverRelativeURL"] = format!("{}?hash=<hash>", url.0).into();
        }
    }
    for address in
        body.get_mut("serverAddressByClientCIDRs").and_then(Value::as_array_mut).into_iter().flatten()
    {
        address["serverAddress"] = "<address>".into();
    }
    body
}

fn questions() -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/api/", "/apis/", "/apis/none", "/apis/none/v1", "/api/v2", "/apis/apps/v9"]
            .map(str::to_owned)
            .to_vec();
    for kind in api::kinds::builtin() {
        let versions = match &*kind.group {
            "" => vec![format!("/api/{}", kind.version)],
            group => vec![format!("/apis/{group}"), format!("/apis/{group}/{}", kind.version)],
        };
        paths.extend(versions.into_iter().filter(|path| !paths.contains(path)).collect::<Vec<_>>());
    }
    let mut out: Vec<(String, String)> =
        paths.into_iter().map(|path| (path, "application/json".to_owned())).collect();
    let protobuf = "application/vnd.kubernetes.protobuf";
    let forms = [
        "",
        "*/*",
        "application/*",
        "text/html",
        "application/yaml",
        protobuf,
        "application/json;q=0.1,application/yaml",
        V2,
        V2BETA1,
        &format!("{V2},{V2BETA1},application/json"),
        &format!("{V2BETA1},{V2}"),
        &format!("application/json,{V2}"),
        &format!("{V2};q=0.1,application/json"),
        "application/json;g=apidiscovery.k8s.io;v=v1;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v1;as=APIGroupDiscoveryList,application/json",
        "application/json;g=other.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;v=v2;as=APIGroupDiscoveryList",
        "application/json;as=APIGroupDiscoveryList",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=Table",
        "application/json;g=apidiscovery.k8s.io;v=v2;profile=nopeer;as=APIGroupDiscoveryList",
        "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        "application/cbor;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    ];
    for path in ["/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1"] {
        out.extend(forms.iter().map(|form| (path.to_owned(), (*form).to_owned())));
    }
    out.extend(
        ["/version", "/version/", "/openapi/v3", "/openapi/v2", "/openapi/v3/apis/apps/v1"]
            .map(|path| (path.to_owned(), "text/html".to_owned())),
    );
    out
}

async fn all(door: &dyn Door) -> BTreeMap<String, Told> {
    let mut out = BTreeMap::new();
    for (path, accept) in questions() {
        out.insert(format!("{path} {accept}"), told(door, &path, &accept).await);
    }
    out
}

/// The same text many times over is written once.
fn write(all: &BTreeMap<String, Told>) {
    let mut texts: Vec<Value> = Vec::new();
    let mut lines = Vec::new();
    for (question, told) in all {
        let at = texts.iter().position(|text| *text == told.body).unwrap_or_else(|| {
            texts.push(told.body.clone());
            texts.len() - 1
        });
        lines.push(format!(
            "{}:{}",
            json!(question),
            json!({"code": told.code, "headers": told.headers, "body": at})
        ));
    }
    let texts: Vec<String> = texts.iter().map(Value::to_string).collect();
    let text = format!("{{\"texts\":[\n{}\n],\"told\":{{\n{}\n}}}}\n", texts.join(",\n"), lines.join(",\n"));
    std::fs::write(folder().join("recorded/discovery.json"), text).expect("written");
}

fn read() -> BTreeMap<String, Told> {
    let text = std::fs::read_to_string(folder().join("recorded/discovery.json")).expect("recorded");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let told = all["told"].as_object().expect("answers").iter().map(|(question, told)| {
        let mut told = told.clone();
        told["body"] = all["texts"][told["body"].as_u64().unwrap_or_default() as usize].clone();
        (question.clone(), serde_json::from_value(told).expect("an answer"))
    });
    told.collect()
}

#[tokio::test]
async fn discovery_is_the_originals() {
    if let Some(original) = original() {
        write(&all(&original).await);
    }
    let ours = all(&World::new().await).await;
    let mut known = Known::of("discovery");
    for (question, theirs) in read() {
        let Some(ours) = ours.get(&question) else {
            panic!("{question} is not asked any more: record it anew")
        };
        let mut found = Vec::new();
        differences("", &json!(theirs), &json!(ours), &mut found);
        found.truncate(12);
        known.found(&question, (!found.is_empty()).then(|| found.join("\n    ")));
    }
    known.end();
}

/// Whoever has the newest is told so and no more, in whatever form.
#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let world = World::new().await;
    for (path, accept) in [
        ("/apis", V2),
        ("/api", V2),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
        ("/openapi/v2", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
    ] {
        let (code, headers, bytes) = asked(&world, path, &[("accept", accept)]).await;
        assert!(code == 200 && !bytes.is_empty(), "{path}");
        let tag = headers["etag"].to_str().expect("a tag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        let (code, again, bytes) = asked(&world, path, &[("accept", accept), ("if-none-match", &tag)]).await;
        assert!(code == 304 && bytes.is_empty() && again["etag"] == tag.as_str(), "{path}: {code} {again:?}");
        let (code, _, _) = asked(&world, path, &[("accept", accept), ("if-none-match", "\"other\"")]).await;
        assert_eq!(code, 200);
    }
}
