//! Requests as they come over the wire, beside the objects themselves: methods, unknown paths, large bodies, probes,
//! discovery, documents, and the headers that all answers have.

mod world;

use serde_json::{Value, json};
use world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn text(headers: &http::HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn methods_and_paths_that_lead_nowhere() {
    let world = World::new().await;
    world.grant(MAPS, json!({"metadata": {"name": "x"}})).await;
    const PLAIN: &str = "text/plain; charset=utf-8";
    const JSON: &str = "application/json";
    let one = format!("{MAPS}/x");
    for (method, path, code, media_type) in [
        ("POST", one.as_str(), 405, JSON),
        ("PUT", MAPS, 405, JSON),
        ("PATCH", MAPS, 405, JSON),
        ("OPTIONS", MAPS, 405, JSON),
        ("HEAD", one.as_str(), 405, JSON),
        ("POST", "/api/v1/configmaps", 405, JSON),
        ("GET", "/api/v1/configmaps/x", 404, JSON),
        ("GET", "/apis/apps/v1/nothings", 404, JSON),
        ("DELETE", "/api", 405, JSON),
        ("GET", "/apis/nothing.example.com", 404, PLAIN),
        ("GET", "/apis/nothing.example.com/v1/things", 404, PLAIN),
        ("GET", "/nothing", 404, PLAIN),
        ("GET", "/livez/nothing", 404, PLAIN),
        ("POST", "/healthz", 200, PLAIN),
        ("HEAD", "/healthz", 200, PLAIN),
        ("GET", "/api/v1/namespaces/default/config%6Daps/x", 200, JSON),
    ] {
        let (found, headers, _) = world.send(method, path, &[], "").await;
        assert_eq!((found, text(&headers, "content-type")), (code, media_type.to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_body_has_its_limit() {
    let world = World::new().await;
    let body = json!({"metadata": {"name": "x"}, "data": {"a": "x".repeat(3 << 20)}}).to_string();
    let (code, _, answer) = world.send("POST", MAPS, &[("content-type", "application/json")], body).await;
    let status: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    assert_eq!(status["message"], "Request entity too large: limit is 3145728");
}

#[tokio::test]
async fn every_answer_can_be_found_in_the_log() {
    let world = World::new().await;
    let (_, headers, _) = world.send("GET", "/api/v1/nothing", &[], "").await;
    assert_eq!(
        (text(&headers, "audit-id").len(), text(&headers, "cache-control")),
        (36, "no-cache, private".into())
    );
    let (_, headers, _) = world.send("GET", MAPS, &[("audit-id", "mine")], "").await;
    assert_eq!(text(&headers, "audit-id"), "mine");
}

#[tokio::test]
async fn every_group_says_its_versions_and_what_is_in_them() {
    let world = World::new().await;
    let (code, version) = world.json("GET", "/version", Value::Null).await;
    let is_number = |name: &str| version[name].as_str().is_some_and(|text| text.parse::<u32>().is_ok());
    assert!(code == 200 && is_number("major") && is_number("minor"), "{version}");
    let (_, groups) = world.json("GET", "/apis", Value::Null).await;
    let groups = groups["groups"].as_array().expect("groups");
    assert!(groups.len() > 15, "{groups:?}");
    for group in groups {
        let name = group["name"].as_str().expect("a name");
        let versions = group["versions"].as_array().expect("versions");
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
        let (_, alone) = world.json("GET", &format!("/apis/{name}"), Value::Null).await;
        assert_eq!((&alone["name"], &alone["versions"]), (&group["name"], &group["versions"]), "{name}");
        for version in versions {
            let group_version = version["groupVersion"].as_str().expect("a version");
            let (_, list) = world.json("GET", &format!("/apis/{group_version}"), Value::Null).await;
            assert_eq!(list["groupVersion"], group_version, "{list}");
            assert!(list["resources"].as_array().is_some_and(|found| !found.is_empty()), "{list}");
        }
    }
}

#[tokio::test]
async fn discovery_is_kept_by_its_tag() {
    let world = World::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (code, headers, _) = world.send("GET", "/apis", &[("accept", accept)], "").await;
    let (tag, media_type) = (text(&headers, "etag"), text(&headers, "content-type"));
    assert_eq!((code, media_type.contains("as=APIGroupDiscoveryList")), (200, true), "{media_type}");
    let again = [("accept", accept), ("if-none-match", tag.as_str())];
    let (code, headers, body) = world.send("GET", "/apis", &again, "").await;
    assert_eq!(
        (code, body.len(), text(&headers, "etag"), text(&headers, "vary")),
        (304, 0, tag, "Accept".into())
    );
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/api/v1", "APIResourceList"),
        ("/apis/apps", "APIGroup"),
    ] {
        let (_, _, body) = world.send("GET", path, &protobuf, "").await;
        assert_eq!(api::proto::decode(&body).expect("protobuf")["kind"], kind, "{path}");
    }
}

#[tokio::test]
async fn documents_are_found_by_their_hash() {
    let world = World::new().await;
    let (_, index) = world.json("GET", "/openapi/v3", Value::Null).await;
    let url = index["paths"]["apis/batch/v1"]["serverRelativeURL"].as_str().expect("a url").to_owned();
    let (code, headers, _) = world.send("GET", &url, &[], "").await;
    assert_eq!(
        (code, text(&headers, "cache-control"), text(&headers, "vary")),
        (200, "public, immutable".into(), "Accept".into())
    );
    assert!(text(&headers, "expires").ends_with("UTC"), "{headers:?}");
    let tag = text(&headers, "etag");
    let (code, _, _) = world.send("GET", &url, &[("if-none-match", &tag)], "").await;
    assert_eq!(code, 304);
    let (code, headers, _) = world.send("GET", "/openapi/v3/apis/batch/v1?hash=OLD", &[], "").await;
    assert_eq!((code, text(&headers, "location")), (301, url));
    let (code, headers, _) = world.send("GET", "/openapi/v3/apis/batch/v1", &[], "").await;
    assert_eq!((code, text(&headers, "cache-control")), (200, "no-cache, private".into()));
    let (code, _, _) = world.send("GET", "/openapi/v3/apis/nothing/v1", &[], "").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn documents_come_in_the_form_asked_for() {
    let world = World::new().await;
    const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    let old = |media_type: &str| media_type.replace(".v1.0", "@v1.0");
    let (_, index) = world.json("GET", "/openapi/v3", Value::Null).await;
    let batch = index["paths"]["apis/batch/v1"]["serverRelativeURL"].as_str().expect("a url").to_owned();
    let hash = batch.split_once('=').expect("a hash").1;
    for (path, accept, code, media_type, start) in [
        ("/openapi/v3", "text/html", 200, "text/plain; charset=utf-8", "{\"paths"),
        (&batch, "", 200, "application/json", "{"),
        (&batch, "*/*", 200, "application/json", "{"),
        (&batch, "application/json", 200, "application/json", "{"),
        (&batch, V3, 200, V3, "\n\u{5}3.0.0"),
        (&batch, &old(V3), 200, V3, "\n\u{5}3.0.0"),
        (&batch, &format!("application/json;q=0.5,{V3}"), 200, V3, "\n\u{5}3.0.0"),
        (&batch, V2, 406, "", ""),
        (&batch, "application/yaml", 406, "", ""),
        ("/openapi/v3/apis/batch/v1?hash=OLD", V3, 301, V3, ""),
        ("/openapi/v3/apis/nothing/v1", V3, 404, "", ""),
        ("/openapi/v2", V2, 200, V2, "\n\u{3}2.0"),
        ("/openapi/v2", &old(V2), 200, V2, "\n\u{3}2.0"),
        ("/openapi/v2", "application/*", 200, "application/json", "{"),
        ("/openapi/v2", "text/html", 406, "", ""),
    ] {
        let (found, headers, body) = world.send("GET", path, &[("accept", accept)], "").await;
        let is_document = found == 200 && path != "/openapi/v3";
        let begins = body.starts_with(start.as_bytes()) && body.is_empty() == start.is_empty();
        let of = |name| headers.get(name).map_or("", |v| v.to_str().expect("text")).to_owned();
        assert_eq!(
            (found, of("content-type"), begins),
            (code, media_type.to_owned(), true),
            "{path} {accept}"
        );
        let vary = match (path, found) {
            ("/openapi/v3", _) => "",
            ("/openapi/v2", 406) => "Accept-Encoding",
            _ => "Accept",
        };
        assert_eq!(of("vary"), vary, "{path} {accept}");
        assert_eq!(of("etag").is_empty(), !is_document && found != 301, "{path} {accept}");
        if path.contains("batch") && is_document {
            assert_eq!(of("etag"), format!("\"{hash}\""), "{path} {accept}");
        }
    }
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_know() {
    let world = World::new().await;
    world.json("GET", MAPS, Value::Null).await;
    let watch = world.raw("GET", &format!("{MAPS}?watch=1"), &[], "").await;
    let (_, _, answer) = world.send("GET", "/metrics", &[], "").await;
    let answer = String::from_utf8(answer.to_vec()).expect("text");
    for line in [
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} 0",
    ] {
        assert!(answer.lines().any(|l| l == line), "{line}\n{answer}");
    }
    for name in [
        "apiserver_request_duration_seconds_bucket",
        "apiserver_storage_objects{resource=\"configmaps\"}",
        "process_cpu_seconds_total",
    ] {
        assert!(answer.contains(name), "{name}");
    }
    drop(watch);
    let (_, _, answer) = world.send("GET", "/metrics", &[], "").await;
    let ended = "subresource=\"\",verb=\"WATCH\",version=\"v1\"} 0";
    assert!(String::from_utf8_lossy(&answer).contains(ended), "the watch has ended");
}

#[tokio::test]
async fn logs_are_asked_for_in_order() {
    let world = World::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = "/api/v1/namespaces/default/serviceaccounts";
    world.json("POST", account, json!({"metadata": {"name": "default"}})).await;
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    world.grant(pods, json!({"metadata": {"name": "web"}, "spec": spec})).await;
    const INVALID: &str = "PodLogOptions \"web\" is invalid: ";
    for (query, code, message) in [
        (
            "tailLines=-1",
            422,
            format!("{INVALID}tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ),
        ("limitBytes=0", 422, format!("{INVALID}limitBytes: Invalid value: 0: must be greater than 0")),
        ("sinceSeconds=0", 422, format!("{INVALID}sinceSeconds: Invalid value: 0: must be greater than 0")),
        (
            "sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z",
            422,
            format!("{INVALID}[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"),
        ),
        ("tailLines=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("container=zz", 400, "container zz is not valid for pod web".to_owned()),
        ("follow=1", 204, String::new()),
    ] {
        let (found, answer) = world.json("GET", &format!("{pods}/web/log?{query}"), Value::Null).await;
        let said = answer["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((found, said), (code, message), "{query}");
    }
    let (code, answer) = world.json("POST", &format!("{pods}/web/exec?command=x"), Value::Null).await;
    assert_eq!((code, &answer["message"]), (400, &json!("pod web does not have a host assigned")));
}

#[tokio::test]
async fn who_waits_for_less_gets_less_time() {
    let world = World::new().await;
    let send = async |method: &str, path: String, body: Value| world.json(method, &path, body).await;
    let (code, refused) = send("GET", format!("{MAPS}?timeout=soon"), Value::Null).await;
    assert_eq!((code, refused["reason"].as_str()), (400, Some("BadRequest")), "{refused}");
    assert_eq!(send("GET", "/version?timeout=5".into(), Value::Null).await.0, 400);
    assert_eq!(send("GET", format!("{MAPS}?timeout=30s"), Value::Null).await.0, 200);
    let map = |name: &str| json!({"metadata": {"name": name}});
    let (code, late) = send("POST", format!("{MAPS}?timeout=1ns"), map("late")).await;
    assert_eq!((code, late["reason"].as_str()), (504, Some("Timeout")), "{late}");
    assert_eq!(send("GET", format!("{MAPS}/late"), Value::Null).await.0, 404, "it has not begun");
    assert_eq!(send("POST", format!("{MAPS}?timeout=30s"), map("a")).await.0, 201);
    // What lasts for as long as one likes has no such time.
    let path = format!("{MAPS}?watch=true&timeout=soon&timeoutSeconds=1");
    assert_eq!(world.send("GET", &path, &[], "").await.0, 200);
}
