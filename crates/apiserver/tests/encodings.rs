//! What a client may ask an answer to be in, and what it may send: JSON, YAML, protobuf, tables, bare metadata.

mod world;

use http::HeaderValue;
use serde_json::{Value, json};
use world::World;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"a": "b"}})
}

fn decoded(bytes: &[u8]) -> Value {
    api::proto::decode(bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}"))
}

#[tokio::test]
async fn protobuf_in_and_out() {
    let world = World::new().await;
    let accept = ("accept", PROTOBUF);
    let body = api::proto::encode(&map("x")).expect("encodes");
    let (code, headers, answer) = world.send("POST", MAPS, &[accept, ("content-type", PROTOBUF)], body).await;
    assert_eq!((code, headers["content-type"].as_bytes()), (201, PROTOBUF.as_bytes()));
    let created = decoded(&answer);
    assert_eq!((&created["kind"], &created["data"]["a"]), (&"ConfigMap".into(), &"b".into()));
    let (_, _, answer) = world.send("GET", &format!("{MAPS}/x"), &[accept], "").await;
    assert_eq!(decoded(&answer), created);
    let (_, in_json) = world.json("GET", &format!("{MAPS}/x"), Value::Null).await;
    assert_eq!(in_json, created, "the same object in both encodings");
    let (_, _, answer) = world.send("GET", MAPS, &[accept], "").await;
    let mut list = decoded(&answer);
    let (_, mut list_json) = world.json("GET", MAPS, Value::Null).await;
    // Between the two something else may have been written.
    for list in [&mut list, &mut list_json] {
        assert!(list["metadata"]["resourceVersion"].take().is_string());
    }
    assert_eq!(list, list_json);
    assert!(list["items"][0].get("kind").is_none(), "what a list holds names no kind: {list}");
    let (code, headers, answer) = world.send("GET", &format!("{MAPS}/y"), &[accept], "").await;
    assert_eq!((code, headers["content-type"].as_bytes()), (404, PROTOBUF.as_bytes()));
    assert_eq!(decoded(&answer)["message"], "configmaps \"y\" not found");
    let (code, _, answer) = world.send("DELETE", &format!("{MAPS}/x"), &[accept], "").await;
    assert_eq!((code, decoded(&answer)["status"].clone()), (200, "Success".into()));
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, _, answer) = world.send("GET", "/api/v1/namespaces", &[("accept", metadata)], "").await;
    let list = decoded(&answer);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "default");
}

#[tokio::test]
async fn every_kind_has_a_protobuf_list() {
    let world = World::new().await;
    for kind in api::kinds::builtin().iter().filter(|k| !k.is_virtual()) {
        let group = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
        let path = format!("{group}/{}/{}", kind.version, kind.plural);
        let (code, _, answer) = world.send("GET", &path, &[("accept", PROTOBUF)], "").await;
        assert_eq!(code, 200, "{path}");
        assert_eq!(decoded(&answer)["kind"], *kind.list_kind, "{path}");
    }
}

async fn widgets(world: &World) -> &'static str {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
    let spec = json!({"group": "example.com", "names": {"plural": "widgets", "kind": "Widget"}, "scope": "Namespaced", "versions": [version]});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    world.grant(path, json!({"metadata": {"name": "widgets.example.com"}, "spec": spec})).await;
    "/apis/example.com/v1/namespaces/default/widgets"
}

#[tokio::test]
async fn custom_resources_have_no_protobuf() {
    let world = World::new().await;
    let widgets = widgets(&world).await;
    world
        .grant(widgets, json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}))
        .await;
    let (code, _, answer) = world.send("GET", widgets, &[("accept", PROTOBUF)], "").await;
    assert_eq!((code, decoded(&answer)["reason"].clone()), (406, "NotAcceptable".into()));
    let both = "application/vnd.kubernetes.protobuf, application/json";
    let (code, headers, _) = world.send("GET", widgets, &[("accept", both)], "").await;
    assert_eq!((code, headers["content-type"].as_bytes()), (200, "application/json".as_bytes()));
    let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, _, answer) = world.send("GET", widgets, &[("accept", metadata)], "").await;
    assert_eq!(decoded(&answer)["items"][0]["metadata"]["name"], "w");
    let body = api::proto::encode(&map("x")).expect("encodes");
    let (code, _, answer) = world.send("POST", widgets, &[("content-type", PROTOBUF)], body).await;
    assert_eq!(code, 415, "{answer:?}");
}

#[tokio::test]
async fn what_cannot_be_answered_is_said() {
    let world = World::new().await;
    world.grant(MAPS, map("x")).await;
    const KNOWN: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let one = format!("{MAPS}/x");
    let list_of_one = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let one_of_list = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let cases = [
        ("GET", MAPS, ("accept", "text/html"), "", 406, format!("406: Not Acceptable\n\nAvailable representations: {KNOWN}, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")),
        ("GET", MAPS, ("accept", "application/json;as=Other;g=meta.k8s.io;v=v1"), "", 406, format!("only the following media types are accepted: {KNOWN}")),
        ("GET", one.as_str(), ("accept", list_of_one), "", 406, "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)".to_owned()),
        ("GET", MAPS, ("accept", one_of_list), "", 406, "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)".to_owned()),
        ("POST", MAPS, ("content-type", "text/html"), "x", 415, format!("the body of the request was in an unknown format - accepted media types include: {KNOWN}")),
        ("PATCH", one.as_str(), ("content-type", "application/json"), "{}", 415, "415: Unsupported Media Type".to_owned()),
        ("PATCH", one.as_str(), ("content-type", "application/apply-patch+cbor"), "{}", 415, "415: Unsupported Media Type".to_owned()),
    ];
    for (method, path, header, body, expected, message) in cases {
        // An apply must name its manager before anything else is looked at.
        let path =
            if header.1.contains("apply") { format!("{path}?fieldManager=m") } else { path.to_owned() };
        let (code, _, answer) = world.send(method, &path, &[header], body).await;
        let status: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(
            (code, status["message"].as_str()),
            (expected, Some(message.as_str())),
            "{method} {path} {header:?}"
        );
    }
}

#[tokio::test]
async fn tables_yaml_and_people() {
    let world = World::new().await;
    world.grant(MAPS, map("x")).await;
    let one = format!("{MAPS}/x");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1beta1";
    let (code, _, answer) = world.send("GET", &one, &[("accept", table)], "").await;
    let value: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!(
        (code, &value["kind"], &value["apiVersion"]),
        (200, &"Table".into(), &"meta.k8s.io/v1beta1".into())
    );
    let (code, _, _) = world.send("GET", &format!("{one}?includeObject=x"), &[("accept", table)], "").await;
    assert_eq!(code, 400);
    let (_, headers, answer) = world.send("GET", &one, &[("accept", "application/yaml")], "").await;
    assert_eq!(headers["content-type"], "application/yaml");
    assert!(answer.starts_with(b"apiVersion: v1\n"), "{answer:?}");
    let (_, _, answer) = world.send("GET", &one, &[("user-agent", "curl/8")], "").await;
    assert!(answer.starts_with(b"{\n  \""), "{answer:?}");
    let (_, _, answer) =
        world.send("GET", &format!("{one}?pretty=false"), &[("user-agent", "curl/8")], "").await;
    assert!(answer.starts_with(b"{\"") && answer.ends_with(b"}\n"), "{answer:?}");
}

#[tokio::test]
async fn large_answers_are_packed_for_who_can_unpack() {
    let world = World::new().await;
    for i in 0..3 {
        let mut map = map(&format!("m{i}"));
        map["data"]["a"] = "x".repeat(60_000).into();
        world.grant(MAPS, map).await;
    }
    // At one revision: what the server writes for itself meanwhile moves that of a plain list.
    let (_, now) = world.json("GET", MAPS, Value::Null).await;
    let revision = now["metadata"]["resourceVersion"].as_str().expect("a list has a revision");
    let list = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let (_, headers, plain) = world.send("GET", &list, &[], "").await;
    assert!(!headers.contains_key("content-encoding"));
    let (_, headers, packed) = world.send("GET", &list, &[("accept-encoding", "br, gzip;q=0.5")], "").await;
    assert_eq!(
        (&headers["content-encoding"], &headers["vary"]),
        (&HeaderValue::from_static("gzip"), &HeaderValue::from_static("Accept-Encoding"))
    );
    assert!(packed.len() < plain.len() / 10);
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked)
        .expect("unpacks");
    assert_eq!(unpacked, plain);
    let (_, headers, _) = world.send("GET", &format!("{MAPS}/m1"), &[("accept-encoding", "gzip")], "").await;
    assert!(!headers.contains_key("content-encoding"), "a small one is not");
}
