//! API aggregation: another server answers for a group, and clients cannot tell that it is another.

mod world;

use std::time::Duration;

use apiserver::auth::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use serde_json::{Value, json};
use testkit::Extension;
use world::World;

const GROUP: &str = "wardle.kedge.example";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// A server of one kind, which says of each request who it was told is asking.
fn handle(parts: &Parts, body: &Value) -> Option<(u16, Value)> {
    let all = |name: &str| -> Vec<String> {
        parts.headers.get_all(name).iter().map(|v| v.to_str().expect("text").to_owned()).collect()
    };
    let value = match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/apis/wardle.kedge.example/v1") => {
            json!({"kind": "APIResourceList", "groupVersion": format!("{GROUP}/v1"), "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["create", "get", "list"]}]})
        }
        ("GET", "/openapi/v3") => {
            json!({"paths": {"apis/wardle.kedge.example/v1": {"serverRelativeURL": "/openapi/v3/apis/wardle.kedge.example/v1?hash=ABC"}}})
        }
        ("GET", "/openapi/v3/apis/wardle.kedge.example/v1") => {
            json!({"openapi": "3.0.0", "info": {"title": "theirs"}})
        }
        (method, path) => {
            json!({"kind": "Flunder", "method": method, "path": path, "query": parts.uri.query(), "body": body,
            "user": all("x-remote-user"), "groups": all("x-remote-group"), "authorization": all("authorization")})
        }
    };
    Some((200, value))
}

async fn until(what: &str, look: impl AsyncFn() -> Result<(), String>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut last = String::new();
    for _ in 0..500 {
        ticks.tick().await;
        match look().await {
            Ok(()) => return,
            Err(seen) => last = seen,
        }
    }
    panic!("{what}: not within 10 s; last seen: {last}");
}

async fn available(world: &World, status: &str, reason: &str) {
    until(&format!("Available is {status} for {reason}"), async || {
        let (_, service) = world.json("GET", &format!("{SERVICES}/v1.{GROUP}"), Value::Null).await;
        let condition = service["status"]["conditions"][0].clone();
        let right = condition["status"] == status && condition["reason"] == reason;
        if right { Ok(()) } else { Err(service.to_string()) }
    })
    .await;
}

/// What alerts go by.
async fn is_counted(world: &World, unavailable: u8) {
    let (_, _, text) = world.send("GET", "/metrics", &[], "").await;
    let line = format!("aggregator_unavailable_apiservice{{name=\"v1.{GROUP}\"}} {unavailable}\n");
    assert!(String::from_utf8_lossy(&text).contains(&line), "{line}");
}

async fn registered() -> (World, Extension) {
    let extension = Extension::start(&["wardle.default.svc"], handle).await;
    let world = World::reaching(extension.port).await;
    let service = json!({"metadata": {"name": format!("v1.{GROUP}")}, "spec": {"group": GROUP, "version": "v1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "caBundle": STANDARD.encode(&extension.authority),
        "service": {"namespace": "default", "name": "wardle"}}});
    let (code, answer) = world.json("POST", SERVICES, service).await;
    assert_eq!(code, 201, "{answer}");
    (world, extension)
}

async fn add_service(world: &World) {
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"port": 443, "targetPort": 8443}], "selector": {"a": "b"}}});
    let (code, answer) = world.json("POST", "/api/v1/namespaces/default/services", service).await;
    assert_eq!(code, 201, "{answer}");
    let slice = json!({"metadata": {"name": "wardle", "labels": {"kubernetes.io/service-name": "wardle"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 8443}], "endpoints": [{"addresses": ["10.42.0.9"]}]});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let (code, answer) = world.json("POST", path, slice).await;
    assert_eq!(code, 201, "{answer}");
}

#[tokio::test]
async fn another_server_answers_and_knows_who_asks() {
    let (world, _extension) = registered().await;
    available(&world, "False", "ServiceNotFound").await;
    is_counted(&world, 1).await;
    let flunders = format!("/apis/{GROUP}/v1/namespaces/default/flunders");
    assert_eq!(world.json("GET", &flunders, Value::Null).await.0, 503);
    add_service(&world).await;
    available(&world, "True", "Passed").await;
    is_counted(&world, 0).await;

    let path = format!("{flunders}?dryRun=All");
    let (code, answer) = world.json("POST", &path, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!((&answer["method"], &answer["path"]), (&json!("POST"), &json!(flunders)));
    assert_eq!((&answer["query"], &answer["body"]["metadata"]["name"]), (&json!("dryRun=All"), &json!("a")));
    assert_eq!(answer["user"], json!(["root"]));
    assert_eq!(answer["groups"], json!(["system:masters", "system:authenticated"]));

    // Rights are asked here first, and nobody speaks for another.
    let jane = Identity::new("jane", &[]);
    let (code, _) = world.ask(&jane, "GET", &flunders, Value::Null).await;
    assert_eq!(code, 403);
    let headers = [("x-remote-user", "admin"), ("x-remote-group", "others"), ("authorization", "Bearer x")];
    let (_, _, bytes) = world.send("GET", &flunders, &headers, "").await;
    let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!((&answer["user"], &answer["authorization"]), (&json!(["root"]), &json!([])));
    assert_eq!(answer["groups"], json!(["system:masters", "system:authenticated"]));
}

#[tokio::test]
async fn what_it_serves_is_part_of_discovery_and_openapi() {
    let (world, _extension) = registered().await;
    add_service(&world).await;
    available(&world, "True", "Passed").await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let find = async |accept: &str, field: &str, name: &str| {
        let (code, _, bytes) = world.send("GET", "/apis", &[("accept", accept)], "").await;
        assert_eq!(code, 200);
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        let groups = value[field].as_array().cloned().unwrap_or_default();
        assert!(groups.len() > 10, "our own are still there");
        groups.into_iter().find(|g| g.pointer(name) == Some(&json!(GROUP))).unwrap_or_default()
    };
    until("the group is discovered", async || {
        let group = find(aggregated, "items", "/metadata/name").await;
        let resource = &group["versions"][0]["resources"][0];
        let right = resource["resource"] == "flunders" && group["versions"][0]["freshness"] == "Current";
        if right { Ok(()) } else { Err(group.to_string()) }
    })
    .await;
    let group = find("application/json", "groups", "/name").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], format!("{GROUP}/v1"));
    let (code, group) = world.json("GET", &format!("/apis/{GROUP}"), Value::Null).await;
    assert_eq!((code, &group["kind"]), (200, &json!("APIGroup")));
    let (_, list) = world.json("GET", &format!("/apis/{GROUP}/v1"), Value::Null).await;
    assert_eq!(list["resources"][0]["name"], "flunders");
    let (_, index) = world.json("GET", "/openapi/v3", Value::Null).await;
    let url = index["paths"][format!("apis/{GROUP}/v1")]["serverRelativeURL"]
        .as_str()
        .expect("its document")
        .to_owned();
    let (_, document) = world.json("GET", &url, Value::Null).await;
    assert_eq!(document["info"]["title"], "theirs");
}

#[tokio::test]
async fn our_own_versions_are_listed_too() {
    let world = World::new().await;
    until("the local APIServices", async || {
        let (_, list) = world.json("GET", SERVICES, Value::Null).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let apps = items.iter().find(|s| s["metadata"]["name"] == "v1.apps").cloned().unwrap_or_default();
        let right = apps["spec"]["groupPriorityMinimum"] == 17800
            && apps["status"]["conditions"][0]["reason"] == "Local"
            && apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"] == "onstart";
        if right { Ok(()) } else { Err(apps.to_string()) }
    })
    .await;
    let (_, map) = world
        .json(
            "GET",
            "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
            Value::Null,
        )
        .await;
    assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(
        map["data"]["requestheader-client-ca-file"]
            .as_str()
            .is_some_and(|pem| pem.contains("BEGIN CERTIFICATE"))
    );
}
