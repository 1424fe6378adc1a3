//! Lists and watches: pages, versions, selectors, and what is refused; deletions of many.

mod world;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::EmbeddedOptions;
use world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn maps(world: &World, count: usize) {
    for i in 0..count {
        let labels = json!({"half": (i % 2).to_string()});
        world.grant(MAPS, json!({"metadata": {"name": format!("m{i}"), "labels": labels}})).await;
    }
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|i| i["metadata"]["name"].as_str()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let world = World::new().await;
    maps(&world, 5).await;
    let (_, first) = world.json("GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), ("m0 m1".into(), &json!(3)));
    world.grant(MAPS, json!({"metadata": {"name": "m11"}})).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (_, second) = world.json("GET", &format!("{MAPS}?limit=10&continue={token}"), Value::Null).await;
    assert_eq!(names(&second), "m2 m3 m4", "what came since is not in it");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"].get("continue"), None);
    let (_, half) = world.json("GET", &format!("{MAPS}?limit=2&labelSelector=half=0"), Value::Null).await;
    assert_eq!((names(&half), half["metadata"].get("remainingItemCount")), ("m0 m2".into(), None));
    let token = half["metadata"]["continue"].as_str().expect("a token");
    let (_, rest) = world
        .json("GET", &format!("{MAPS}?limit=2&labelSelector=half=0&continue={token}"), Value::Null)
        .await;
    assert_eq!((names(&rest), rest["metadata"].get("continue")), ("m4".into(), None));
    let (code, error) =
        world.json("GET", &format!("{MAPS}?continue={token}&resourceVersion=1"), Value::Null).await;
    assert_eq!(
        (code, &error["message"]),
        (400, &json!("specifying resource version is not allowed when using continue"))
    );
}

#[tokio::test]
async fn an_expired_page_can_go_on_as_of_now() {
    let world = World::new().await;
    maps(&world, 4).await;
    let (_, first) = world.json("GET", &format!("{MAPS}?limit=2"), Value::Null).await;
    world.grant(MAPS, json!({"metadata": {"name": "m9"}})).await;
    world.store.compact(world.store.revision()).await.expect("compacts");
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let (code, gone) = world.json("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null).await;
    assert_eq!((code, &gone["reason"]), (410, &json!("Expired")));
    let token = gone["metadata"]["continue"].as_str().expect("a token to go on with");
    let (code, second) = world.json("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null).await;
    assert_eq!((code, names(&second)), (200, "m2 m3".into()));
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let (_, third) = world.json("GET", &format!("{MAPS}?limit=2&continue={token}"), Value::Null).await;
    assert_eq!(
        (names(&third), &third["metadata"]["resourceVersion"]),
        ("m9".into(), &second["metadata"]["resourceVersion"])
    );
    let version = first["metadata"]["resourceVersion"].as_str().expect("a version");
    let (code, old) = world
        .json("GET", &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"), Value::Null)
        .await;
    assert_eq!(
        (code, &old["message"]),
        (410, &json!("The resourceVersion for the provided list is too old."))
    );
}

#[tokio::test]
async fn versions_that_a_list_may_be_of() {
    let world = World::new().await;
    maps(&world, 2).await;
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    let then = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    world.grant(MAPS, json!({"metadata": {"name": "later"}})).await;
    for (query, expected) in [
        (String::new(), "later m0 m1"),
        ("resourceVersion=0".into(), "later m0 m1"),
        (format!("resourceVersion={then}"), "later m0 m1"),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=5"), "later m0 m1"),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact"), "m0 m1"),
        (format!("resourceVersion={then}&limit=5"), "m0 m1"),
    ] {
        let (code, list) = world.json("GET", &format!("{MAPS}?{query}"), Value::Null).await;
        assert_eq!((code, names(&list)), (200, expected.into()), "{query}");
    }
    let future = world.store.revision() + 1000;
    let (code, error) = world.json("GET", &format!("{MAPS}?resourceVersion={future}"), Value::Null).await;
    assert_eq!(
        (code, &error["reason"], &error["details"]["retryAfterSeconds"]),
        (504, &json!("Timeout"), &json!(1))
    );
    assert_eq!(error["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let message =
        format!("Timeout: Too large resource version: {future}, current: {}", world.store.revision());
    assert_eq!(error["message"], message);
}

#[tokio::test]
async fn bad_questions_are_told_what_is_wrong() {
    let world = World::new().await;
    for (query, expected, message) in [
        ("limit=abc", 400, "strconv.ParseInt: parsing \"abc\": invalid syntax"),
        ("labelSelector=a+in", 400, "unable to parse requirement: found '' expected: '('"),
        ("labelSelector=,", 400, "found ',', expected: !, identifier, or 'end of string'"),
        (
            "fieldSelector=spec.x%3Dy",
            400,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=spec", 400, "invalid selector: 'spec'; can't understand 'spec'"),
        (
            "continue=%25",
            400,
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 0",
        ),
        (
            "resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "watch=1&sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        ("watch=1&timeoutSeconds=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        let (code, error) = world.json("GET", &format!("{MAPS}?{query}"), Value::Null).await;
        assert_eq!((code, error["message"].as_str()), (expected, Some(message)), "{query}");
    }
    let (code, error) = world.json("GET", "/api/v1/pods?fieldSelector=spec.x%3Dy", Value::Null).await;
    assert_eq!((code, &error["message"]), (400, &json!("field label not supported: spec.x")));
}

/// What a watch says first, as `TYPE name` words, until `until` has been said.
async fn watched(world: &World, path: &str, until: &str) -> Vec<String> {
    let limit = std::time::Duration::from_secs(20);
    let said = tokio::time::timeout(limit, watch_until(world, path, until)).await;
    said.unwrap_or_else(|_| panic!("{path} never said {until:?}"))
}

async fn watch_until(world: &World, path: &str, until: &str) -> Vec<String> {
    let answer = world.raw("GET", path, &[], "").await;
    assert_eq!(answer.status(), 200, "{path}");
    let mut body = answer.into_body().into_data_stream();
    let (mut buffer, mut said): (Vec<u8>, Vec<String>) = (Vec::new(), Vec::new());
    while let Some(Ok(bytes)) = body.next().await {
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event");
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().or(object["reason"].as_str()).unwrap_or_default();
            let ends = object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true";
            let word = if ends { "end" } else { name };
            said.push(format!("{} {word}", event["type"].as_str().unwrap_or_default()).trim().to_owned());
            if said.last().is_some_and(|last| last == until) {
                return said;
            }
        }
    }
    said
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let world = World::new().await;
    maps(&world, 2).await;
    world.json("DELETE", &format!("{MAPS}/kube-root-ca.crt"), Value::Null).await;
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    world.grant(MAPS, json!({"metadata": {"name": "later"}})).await;
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    for (path, until, expected) in [
        (format!("{MAPS}?watch=1"), "ADDED m1", "ADDED later, ADDED m0, ADDED m1"),
        (format!("{MAPS}?watch=1&resourceVersion=0"), "ADDED m1", "ADDED later, ADDED m0, ADDED m1"),
        (format!("{MAPS}?watch=1&resourceVersion={version}"), "ADDED later", "ADDED later"),
        (
            format!("{MAPS}?watch=1&{initial}&allowWatchBookmarks=1"),
            "BOOKMARK end",
            "ADDED later, ADDED m0, ADDED m1, BOOKMARK end",
        ),
        (format!("{MAPS}?watch&labelSelector=half=1"), "ADDED m1", "ADDED m1"),
        (format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dm0"), "ADDED m0", "ADDED m0"),
        ("/api/v1/watch/namespaces/default/configmaps/m1".into(), "ADDED m1", "ADDED m1"),
        ("/api/v1/watch/configmaps?labelSelector=half=0".into(), "ADDED m0", "ADDED m0"),
        (format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=1&labelSelector=none"), "", ""),
    ] {
        assert_eq!(watched(&world, &path, until).await.join(", "), expected, "{path}");
    }
    let conflict = "/api/v1/watch/namespaces/default/configmaps/m1?fieldSelector=metadata.name%3Dm0";
    let (code, error) = world.json("GET", conflict, Value::Null).await;
    assert_eq!(
        (code, &error["message"]),
        (400, &json!("fieldSelector metadata.name doesn't match requested name"))
    );
}

/// Watchers of the same things are told the same in the same order, whenever they came; one that comes back goes on where
/// it was; an object that gets or loses a label comes or goes for whoever selects by it.
#[tokio::test]
async fn watches_are_alike_go_on_and_follow_labels() {
    let world = World::new().await;
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    let begin = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    maps(&world, 4).await;
    let label = async |name: &str, half: &str| {
        let change = json!({"metadata": {"labels": {"half": half}}});
        let (code, answer) = world.json("PATCH", &format!("{MAPS}/{name}"), change).await;
        assert_eq!(code, 200, "{answer}");
        answer["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
    };
    let middle = label("m0", "1").await;
    label("m1", "0").await;
    label("m1", "1").await;
    world.json("DELETE", &format!("{MAPS}/m3"), Value::Null).await;
    world.grant(MAPS, json!({"metadata": {"name": "end", "labels": {"half": "1"}}})).await;
    let after = "MODIFIED m1, MODIFIED m1, DELETED m3, ADDED end";
    let all = format!("ADDED m0, ADDED m1, ADDED m2, ADDED m3, MODIFIED m0, {after}");
    let from_begin = format!("{MAPS}?watch=1&resourceVersion={begin}");
    let watchers = (0..10).map(|_| watched(&world, &from_begin, "ADDED end"));
    for said in futures::future::join_all(watchers).await {
        assert_eq!(said.join(", "), all);
    }
    let again = format!("{MAPS}?watch=1&resourceVersion={middle}");
    assert_eq!(watched(&world, &again, "ADDED end").await.join(", "), after);
    let selected = format!("{from_begin}&labelSelector=half=1");
    assert_eq!(
        watched(&world, &selected, "ADDED end").await.join(", "),
        "ADDED m1, ADDED m3, ADDED m0, DELETED m1, ADDED m1, DELETED m3, ADDED end"
    );
}

#[tokio::test]
async fn a_watch_of_what_is_forgotten_says_so() {
    let world = World::with(EmbeddedOptions { ring_limit_bytes: 1, ..Default::default() }).await;
    maps(&world, 3).await;
    let old = format!("{MAPS}?watch=1&resourceVersion=1");
    assert_eq!(watched(&world, &old, "").await, ["ERROR Expired"]);
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark() {
    let world = World::new().await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=3&allowWatchBookmarks=true&labelSelector=none");
    assert_eq!(watched(&world, &path, "").await, ["BOOKMARK end", "BOOKMARK"]);
}

#[tokio::test]
async fn events_in_protobuf_are_framed() {
    let world = World::new().await;
    maps(&world, 1).await;
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dm0");
    let answer = world.raw("GET", &path, &accept, "").await;
    assert_eq!(answer.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut body = answer.into_body().into_data_stream();
    let frame: Bytes = body.next().await.expect("an event").expect("whole");
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, event.len());
    assert!(event.starts_with(b"\n\x05ADDED\x12"), "{event:?}");
    let envelope = event.windows(4).position(|w| w == b"k8s\0").expect("an envelope");
    let object = api::proto::decode(&event[envelope..]).expect("an object");
    assert_eq!(object["metadata"]["name"], "m0");
    let yaml = world.raw("GET", &path, &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.status(), 406);
}

#[tokio::test]
async fn many_are_deleted_as_selected() {
    let world = World::new().await;
    maps(&world, 5).await;
    let (code, list) =
        world.json("DELETE", &format!("{MAPS}?labelSelector=half=1&dryRun=All"), Value::Null).await;
    assert_eq!((code, names(&list), &list["kind"]), (200, "m1 m3".into(), &json!("ConfigMapList")));
    let (_, list) = world.json("DELETE", &format!("{MAPS}?labelSelector=half=1"), Value::Null).await;
    assert_eq!(names(&list), "m1 m3");
    let (_, list) = world.json("DELETE", &format!("{MAPS}?limit=2"), Value::Null).await;
    assert_eq!(names(&list), "m0 m2");
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    assert_eq!(names(&list), "m4");
}

#[tokio::test]
async fn deletions_are_held_to_their_conditions() {
    let world = World::new().await;
    maps(&world, 1).await;
    let path = format!("{MAPS}/m0");
    let (_, object) = world.json("GET", &path, Value::Null).await;
    let (uid, version) = (object["metadata"]["uid"].clone(), object["metadata"]["resourceVersion"].clone());
    for (query, body, expected, words) in [
        (
            "",
            json!({"preconditions": {"uid": "other"}}),
            409,
            "the UID in the precondition (other) does not match the UID in record",
        ),
        (
            "",
            json!({"preconditions": {"resourceVersion": "1"}}),
            409,
            "the ResourceVersion in the precondition (1) does not match the ResourceVersion in record",
        ),
        (
            "",
            json!({"propagationPolicy": "x"}),
            422,
            "propagationPolicy: Unsupported value: \"x\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            "",
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            422,
            "orphanDependents and deletionPropagation cannot be both set",
        ),
        ("?gracePeriodSeconds=x", json!({}), 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        (
            "?dryRun=All",
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid, "resourceVersion": version}}),
            200,
            "",
        ),
        (
            "",
            json!({"kind": "Pod", "apiVersion": "v1"}),
            400,
            "no kind \"Pod\" is registered for version \"v1\"",
        ),
    ] {
        let (code, _, answer) = world
            .send(
                "DELETE",
                &format!("{path}{query}"),
                &[("content-type", "application/json")],
                if body.is_null() { String::new() } else { body.to_string() },
            )
            .await;
        let status: Value = serde_json::from_slice(&answer).expect("JSON");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(code == expected && message.contains(words), "{query} {body}: {code} {message}");
    }
    let yaml = "propagationPolicy: Background\npreconditions: {uid: other}\n";
    let (code, _, _) = world.send("DELETE", &path, &[("content-type", "application/yaml")], yaml).await;
    assert_eq!(code, 409);
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    let body = api::proto::encode(&options).expect("encodes");
    let (code, _, _) =
        world.send("DELETE", &path, &[("content-type", "application/vnd.kubernetes.protobuf")], body).await;
    assert_eq!(code, 200);
}

/// A token is the client's to change: whatever it says, a list is of what its path names.
#[tokio::test]
async fn a_token_that_was_changed_leads_nowhere_else() {
    let world = World::new().await;
    maps(&world, 3).await;
    world.grant("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await;
    for path in ["/api/v1/namespaces/other/configmaps", "/api/v1/namespaces/default/secrets"] {
        world.grant(path, json!({"metadata": {"name": "theirs"}})).await;
    }
    let starts = [
        "",
        "/",
        "a",
        "m0",
        "m1\0",
        "/m1\0",
        "../",
        "..",
        "../../secrets",
        "../../secrets/default/theirs",
        "../other/a",
        "/../other/",
        "/registry/secrets/",
        "\0",
        "\u{10ffff}",
        "default/",
        "./",
        "m0/../../other/a",
        "%2e%2e/other",
        "~",
    ];
    let (mut refused, mut listed) = (0, 0);
    for (start, revision) in
        starts.iter().flat_map(|start| [(start, json!(-1)), (start, json!(world.store.revision()))])
    {
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string();
        let token = URL_SAFE_NO_PAD.encode(token);
        for rest in ["", "&limit=1", "&labelSelector=half!=9", "&fieldSelector=metadata.name!%3Dx"] {
            let (code, answer) =
                world.json("GET", &format!("{MAPS}?continue={token}{rest}"), Value::Null).await;
            match code {
                400 => refused += 1,
                200 => listed += 1,
                other => panic!("{start:?}{rest}: {other} {answer}"),
            }
            for item in answer["items"].as_array().into_iter().flatten() {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                let own = item["metadata"]["namespace"] == "default"
                    && ["m0", "m1", "m2", "kube-root-ca.crt"].contains(&name);
                assert!(own && item.get("type").is_none(), "{start:?}{rest}: {item}");
            }
            let (code, _) =
                world.json("DELETE", &format!("{MAPS}?dryRun=All&continue={token}{rest}"), Value::Null).await;
            assert!(matches!(code, 200 | 400), "{start:?}{rest}: {code}");
        }
    }
    assert!(refused > 60 && listed > 40, "{refused} were refused and {listed} listed");
    let token =
        URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "../../secrets"}).to_string());
    let (code, answer) = world.json("GET", &format!("{MAPS}?continue={token}"), Value::Null).await;
    let why = "invalid continue token: continue key is not valid: ../../secrets";
    assert_eq!((code, &answer["message"], &answer["reason"]), (400, &json!(why), &json!("BadRequest")));
}

/// Watches cost next to nothing each, and nothing once whoever watched is gone.
#[tokio::test]
async fn thousands_watch_and_go() {
    const WATCHES: usize = 5_000;
    let world = World::new().await;
    let watching = async || -> i64 {
        let (_, _, text) = world.send("GET", "/metrics", &[], "").await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text
            .lines()
            .filter(|l| l.starts_with("apiserver_longrunning_requests{") && l.contains("\"configmaps\""));
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<i64>().ok()).sum()
    };
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{MAPS}?watch=1&resourceVersion={version}");
    let mut bodies = Vec::new();
    for _ in 0..WATCHES {
        let answer = world.raw("GET", &path, &[], Bytes::new()).await;
        assert_eq!(answer.status(), 200);
        bodies.push(answer.into_body());
    }
    assert_eq!(watching().await, WATCHES as i64);
    maps(&world, 1).await;
    let mut first: Option<Bytes> = None;
    for body in &mut bodies {
        let frame = body.frame().await.expect("an event").expect("whole").into_data().expect("data");
        let held = first.get_or_insert_with(|| frame.clone());
        assert_eq!(held, &frame);
    }
    bodies.truncate(10);
    assert_eq!(watching().await, 10);
    drop(bodies);
    assert_eq!(watching().await, 0);
}
