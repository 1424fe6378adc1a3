//! The API of priority and fairness, as the conformance tests of it go through: every verb on FlowSchemas and
//! PriorityLevelConfigurations, their status, and what is refused and in which words.

mod world;

use apiserver::auth::Identity;
use apiserver::http::body::full;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use world::{World, master};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn level(name: &str, limited: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited}})
}

fn schema(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}, "rules": rules}})
}

async fn discovered(world: &World, plural: &str) {
    let names = |list: &Value, field: &str| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|v| v[field].as_str().map(str::to_owned)).collect()
    };
    let (_, groups) = world.json("GET", "/apis", Value::Null).await;
    assert!(names(&groups["groups"], "name").contains(&GROUP.to_owned()), "{groups}");
    let (_, group) = world.json("GET", &format!("/apis/{GROUP}"), Value::Null).await;
    assert!(names(&group["versions"], "version").contains(&"v1".to_owned()), "{group}");
    let (_, resources) = world.json("GET", API, Value::Null).await;
    let resources = names(&resources["resources"], "name");
    assert!(
        resources.contains(&plural.to_owned()) && resources.contains(&format!("{plural}/status")),
        "{resources:?}"
    );
}

/// What the two conformance tests do, each with its kind: `object` of a generated name, a field of its spec and two values for it.
async fn goes_through(plural: &str, kind: &str, mut object: Value, field: &[&str], values: [i64; 2]) {
    let world = World::new().await;
    discovered(&world, plural).await;
    let path = format!("{API}/{plural}");
    object["metadata"] = json!({"generateName": "e2e-example-", "labels": {"example": "x"}});
    let mut made = Vec::new();
    for _ in 0..3 {
        let (code, one) = world.json("POST", &path, object.clone()).await;
        assert_eq!(code, 201, "{one}");
        made.push(one);
    }
    let (made, name) = (made[2].clone(), made[2]["metadata"]["name"].as_str().expect("a name").to_owned());
    let one = format!("{path}/{name}");
    let (_, read) = world.json("GET", &one, Value::Null).await;
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let selected = format!("{path}?labelSelector=example%3Dx");
    let (_, list) = world.json("GET", &selected, Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let watch = Request::get(format!("{selected}&watch=1&resourceVersion={version}"))
        .body(full(""))
        .expect("a request");
    let mut watch = world.server.handle(watch, Some(master())).await.into_body();
    let value = |object: &Value| field.iter().fold(object["spec"].clone(), |at, name| at[*name].clone());
    let set = |to: i64| field.iter().rev().fold(json!(to), |inner, name| json!({*name: inner}));
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}, "spec": set(values[0])});
    let (code, patched) = world.json("PATCH", &one, patch).await;
    assert_eq!((code, value(&patched)), (200, json!(values[0])), "{patched}");
    let number =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
    assert!(number(&made) < number(&patched));
    // The server itself writes the status of what it has seen: whoever lost tries again, as clients do.
    let updated = loop {
        let (_, mut present) = world.json("GET", &one, Value::Null).await;
        present["metadata"]["annotations"]["updated"] = "true".into();
        let at = field.iter().fold(&mut present["spec"], |at, name| &mut at[*name]);
        *at = values[1].into();
        let (code, updated) = world.json("PUT", &one, present).await;
        if code != 409 {
            assert_eq!(code, 200, "{updated}");
            break updated;
        }
    };
    assert_eq!(
        (value(&updated), &updated["metadata"]["annotations"]["updated"]),
        (json!(values[1]), &json!("true"))
    );
    let seen = async {
        loop {
            let frame =
                watch.frame().await.expect("the watch stays").expect("well").into_data().expect("data");
            for line in frame.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let event: Value = serde_json::from_slice(line).expect("an event");
                assert_eq!(event["type"], "MODIFIED", "{event}");
                if event["object"]["metadata"]["annotations"]["patched"] == "true" {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.expect("the patch is seen");
    let status = format!("{one}/status");
    let (_, read) = world.json("GET", &status, Value::Null).await;
    assert_eq!((&read["kind"], &read["metadata"]["uid"]), (&json!(kind), &made["metadata"]["uid"]));
    let condition = json!({"status": {"conditions": [{"type": "PatchStatusFailed", "status": "False", "reason": "e2e"}]}});
    let (code, patched) = world.json("PATCH", &status, condition).await;
    let has = |object: &Value, name: &str| {
        object["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == name))
    };
    assert!(code == 200 && has(&patched, "PatchStatusFailed"), "{patched}");
    loop {
        let (_, mut present) = world.json("GET", &one, Value::Null).await;
        let more = json!({"type": "StatusUpdateFailed", "status": "False", "reason": "E2E", "message": "Set from an e2e test"});
        match present["status"]["conditions"].as_array_mut() {
            Some(conditions) => conditions.push(more),
            None => present["status"] = json!({"conditions": [more]}),
        }
        let (code, updated) = world.json("PUT", &status, present).await;
        if code != 409 {
            assert!(code == 200 && has(&updated, "StatusUpdateFailed"), "{updated}");
            assert_eq!(value(&updated), json!(values[1]), "only its status was written");
            break;
        }
    }
    let twice = json!({"status": {"conditions": [{"type": "A"}, {"type": "A"}]}});
    assert_eq!(world.json("PATCH", &status, twice).await.0, 422);
    assert_eq!(world.json("DELETE", &one, Value::Null).await.0, 200);
    assert_eq!(world.json("GET", &one, Value::Null).await.0, 404);
    let (_, list) = world.json("GET", &selected, Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(world.json("DELETE", &selected, Value::Null).await.0, 200);
    let (_, list) = world.json("GET", &selected, Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(0));
    assert_eq!(world.ask(&Identity::new("jane", &[]), "GET", &path, Value::Null).await.0, 403);
}

#[tokio::test]
async fn flow_schemas_go_through_all_their_verbs() {
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]);
    goes_through("flowschemas", "FlowSchema", schema("", rules), &["matchingPrecedence"], [9999, 9998]).await;
}

#[tokio::test]
async fn priority_levels_go_through_all_their_verbs() {
    let object = level("", json!({"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}));
    let field = ["limited", "nominalConcurrencyShares"];
    goes_through("prioritylevelconfigurations", "PriorityLevelConfiguration", object, &field, [4, 6]).await;
}

/// What an object is refused for; without the values that some faults show.
async fn faults(world: &World, method: &str, path: &str, object: Value) -> Vec<String> {
    let (code, answer) = world.json(method, &format!("{API}/{path}"), object).await;
    assert!(code == 422 || code < 300, "{answer}");
    let causes = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
    let shown = |cause: &Value| {
        let message = cause["message"].as_str().unwrap_or_default();
        let message = message.split_once(": ").map_or(message, |(_, rest)| rest);
        format!("{}: {message}", cause["field"].as_str().unwrap_or_default())
    };
    causes.iter().map(shown).collect()
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_the_originals_words() {
    let world = World::new().await;
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let told = faults(
        &world,
        "POST",
        "prioritylevelconfigurations",
        level(
            "x",
            json!({"lendablePercent": 101, "borrowingLimitPercent": -1, "limitResponse": {"type": "Reject"}}),
        ),
    )
    .await;
    assert_eq!(
        told,
        [
            "spec.limited.lendablePercent: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: -1: if specified, must be a non-negative integer"
        ]
    );
    let queuing = json!({"limitResponse": {"type": "Queue", "queuing": {"queues": 512, "handSize": 8, "queueLengthLimit": 1}}});
    let told = faults(&world, "POST", "prioritylevelconfigurations", level("x", queuing)).await;
    assert_eq!(
        told,
        [
            "spec.limited.limitResponse.queuing.handSize: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60"
        ]
    );
    let exempt = json!({"spec": {"exempt": {"nominalConcurrencyShares": -1, "lendablePercent": 200}}});
    let told = faults(&world, "PATCH", "prioritylevelconfigurations/exempt", exempt).await;
    assert_eq!(
        told,
        [
            "spec.exempt.nominalConcurrencyShares: -1: must be a non-negative integer",
            "spec.exempt.lendablePercent: 200: must be between 0 and 100, inclusive"
        ]
    );
    // How the exempt level lends is the administrator's; the rest of what must be is not.
    let lends = json!({"spec": {"exempt": {"nominalConcurrencyShares": 5}}});
    assert!(faults(&world, "PATCH", "prioritylevelconfigurations/exempt", lends).await.is_empty());
    let told = faults(
        &world,
        "PATCH",
        "prioritylevelconfigurations/catch-all",
        json!({"spec": {"limited": {"nominalConcurrencyShares": 6}}}),
    )
    .await;
    assert!(
        told.len() == 1 && told[0].ends_with(": spec of 'catch-all' must equal the fixed value"),
        "{told:?}"
    );
    let told =
        faults(&world, "PATCH", "flowschemas/catch-all", json!({"spec": {"matchingPrecedence": 9999}})).await;
    assert!(
        told.len() == 1 && told[0].ends_with(": spec of 'catch-all' must equal the fixed value"),
        "{told:?}"
    );
    let told = faults(&world, "PATCH", "flowschemas/exempt", json!({"spec": {"rules": []}})).await;
    assert!(
        told.len() == 1 && told[0].ends_with(": spec of 'exempt' must equal the fixed value"),
        "{told:?}"
    );
    let account = json!([{"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "A_", "name": "*"}}],
        "resourceRules": [{"verbs": ["get"], "apiGroups": ["*", "a"], "resources": ["*", "b"], "namespaces": ["*", "c"]}]}]);
    let told = faults(&world, "POST", "flowschemas", schema("x", account)).await;
    let at = "spec.rules[0].resourceRules[0]";
    assert_eq!(
        told,
        [
            format!("spec.rules[0].subjects[0].serviceAccount.namespace: \"A_\": {LABEL}"),
            format!("{at}.apiGroups: [\"*\",\"a\"]: if '*' is present, must not specify other api groups"),
            format!("{at}.resources: [\"*\",\"b\"]: if '*' is present, must not specify other resources"),
            format!("{at}.namespaces: [\"*\",\"c\"]: if '*' is present, must not specify other namespaces"),
        ]
    );
    let paths = json!([{"subjects": [{"kind": "User", "user": {"name": "u"}}],
        "resourceRules": [{"verbs": ["get"], "apiGroups": ["a"], "resources": ["b"], "namespaces": ["C_"]}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*", "/x"]},
            {"verbs": ["get"], "nonResourceURLs": ["x", "", "/a b", "/a//b", "/a*b", "/a*", "/a/*", "/"]}]}]);
    let told = faults(&world, "POST", "flowschemas", schema("x", paths)).await;
    let at = "spec.rules[0].nonResourceRules";
    assert_eq!(
        told,
        [
            format!(
                "spec.rules[0].resourceRules[0].namespaces[0]: \"C_\": each member of this list must be '*' or a DNS-1123 label; {LABEL}"
            ),
            format!(
                "{at}[0].nonResourceURLs: [\"*\",\"/x\"]: if '*' is present, must not specify other non-resource URLs"
            ),
            format!("{at}[1].nonResourceURLs[0]: \"x\": must start with slash"),
            format!("{at}[1].nonResourceURLs[1]: \"\": must not be empty"),
            format!("{at}[1].nonResourceURLs[2]: \"/a b\": must not contain white-space"),
            format!("{at}[1].nonResourceURLs[3]: \"/a//b\": must not contain double slash"),
            format!("{at}[1].nonResourceURLs[4]: \"/a*b\": wildcard can only do suffix matching"),
            format!("{at}[1].nonResourceURLs[5]: \"/a*\": wildcard can only do suffix matching"),
        ]
    );
}
