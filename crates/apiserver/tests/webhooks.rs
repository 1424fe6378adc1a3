//! Admission webhooks: what they are sent, what their answers do, and what their failures mean.

mod world;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use serde_json::{Value, json};
use testkit::Extension;
use world::World;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

/// An answer to a review: `response` with the uid put in.
fn review(body: &Value, mut response: Value) -> Value {
    response["uid"] = body["request"]["uid"].clone();
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn patch(body: &Value, patch: Value) -> Value {
    let patch = STANDARD.encode(patch.to_string());
    review(body, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// By the path of the hook.
fn handle(parts: &Parts, body: &Value) -> Option<(u16, Value)> {
    let has = |label: &str| body["request"]["object"]["metadata"]["labels"].get(label).is_some();
    Some((
        200,
        match parts.uri.path() {
            "/allow" => review(body, json!({"allowed": true, "warnings": ["careful"]})),
            "/deny" => review(
                body,
                json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not today"}}),
            ),
            "/deny-silently" => review(body, json!({"allowed": false})),
            "/first" => {
                let seen = if has("second") { "again" } else { "once" };
                patch(body, json!([{"op": "add", "path": "/metadata/labels", "value": {"first": seen}}]))
            }
            "/second" => {
                patch(body, json!([{"op": "add", "path": "/metadata/labels/second", "value": "yes"}]))
            }
            "/wrong-uid" => {
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "x", "allowed": true}})
            }
            "/broken" => return Some((500, json!("out of order"))),
            // Some megabytes of text, and hundreds once they are decoded.
            "/heavy" => {
                let mut heavy = review(body, json!({"allowed": true}));
                heavy["response"]["status"] = json!({"details": {"causes": vec![json!({}); 1 << 20]}});
                heavy
            }
            "/huge" => review(body, json!({"allowed": true, "patch": "x".repeat(9 << 20)})),
            "/garbage" => json!([1, "two"]),
            "/redirect" => return Some((302, json!(null))),
            "/hang" => return None,
            other => panic!("{other}"),
        },
    ))
}

struct Hooked {
    world: World,
    extension: Extension,
}

impl Hooked {
    async fn new() -> Self {
        let extension = Extension::start(&["localhost", "hook.default.svc"], handle).await;
        Self { world: World::reaching(extension.port).await, extension }
    }

    fn hook(&self, path: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{}.kedge.example", path.trim_start_matches('/')),
            "clientConfig": {"url": format!("https://localhost:{}{path}", self.extension.port),
                "caBundle": STANDARD.encode(&self.extension.authority)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        });
        if let (Value::Object(hook), Value::Object(more)) = (&mut hook, more) {
            hook.extend(more);
        }
        hook
    }

    async fn install(&self, kind: &str, name: &str, hooks: Vec<Value>) {
        let plural = format!("{}s", kind.to_lowercase());
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": hooks});
        let path = format!("{HOOKS}/{plural}");
        self.world.json("DELETE", &format!("{path}/{name}"), Value::Null).await;
        let (code, answer) = self.world.json("POST", &path, object).await;
        assert_eq!(code, 201, "{answer}");
        self.extension.forget();
    }

    async fn validating(&self, path: &str, more: Value) {
        self.install("ValidatingWebhookConfiguration", "test", vec![self.hook(path, more)]).await;
    }

    async fn create(&self, name: &str) -> (u16, Value) {
        self.world.json("POST", MAPS, json!({"metadata": {"name": name}, "data": {"a": "b"}})).await
    }
}

#[tokio::test]
async fn a_review_says_what_is_asked_and_warnings_come_back() {
    let hooked = Hooked::new().await;
    hooked.validating("/allow", json!({})).await;
    let body = json!({"metadata": {"name": "a"}}).to_string();
    let headers = [("content-type", "application/json")];
    let (code, headers, _) =
        hooked.world.send("POST", &format!("{MAPS}?fieldManager=me"), &headers, body).await;
    assert_eq!(code, 201);
    assert_eq!(headers.get("warning").and_then(|w| w.to_str().ok()), Some("299 - \"careful\""));
    let (path, asked) = hooked.extension.asked().remove(0);
    assert_eq!(path, "/allow?timeout=1s");
    assert_eq!(
        (&asked["apiVersion"], &asked["kind"]),
        (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
    );
    let request = &asked["request"];
    for (field, expected) in [
        ("kind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("requestKind", json!({"group": "", "version": "v1", "kind": "ConfigMap"})),
        ("resource", json!({"group": "", "version": "v1", "resource": "configmaps"})),
        ("name", json!("a")),
        ("namespace", json!("default")),
        ("operation", json!("CREATE")),
        ("oldObject", Value::Null),
        ("dryRun", json!(false)),
    ] {
        assert_eq!(request[field], expected, "{field}");
    }
    assert_eq!(request["userInfo"]["username"], "root");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    assert_eq!(request["options"]["fieldManager"], "me");
    assert_eq!(request["object"]["metadata"]["name"], "a");

    hooked.extension.forget();
    let patch = json!({"data": {"a": "c"}});
    assert_eq!(hooked.world.json("PATCH", &format!("{MAPS}/a"), patch).await.0, 200);
    assert_eq!(hooked.world.json("DELETE", &format!("{MAPS}/a"), Value::Null).await.0, 200);
    let asked = hooked.extension.asked();
    let operations: Vec<&Value> = asked.iter().map(|(_, body)| &body["request"]["operation"]).collect();
    assert_eq!(operations, ["UPDATE", "DELETE"]);
    assert_eq!(asked[0].1["request"]["object"]["data"]["a"], "c");
    assert!(asked[1].1["request"]["object"].is_null());
    assert_eq!(asked[1].1["request"]["oldObject"]["data"]["a"], "c");
}

#[tokio::test]
async fn a_refusal_is_the_clients_to_read_and_nothing_is_stored() {
    let hooked = Hooked::new().await;
    hooked.validating("/deny", json!({})).await;
    let (code, answer) = hooked.create("a").await;
    assert_eq!(code, 403, "{answer}");
    assert_eq!(answer["reason"], "Forbidden");
    assert_eq!(answer["message"], "admission webhook \"deny.kedge.example\" denied the request: not today");
    hooked.validating("/deny-silently", json!({})).await;
    let (code, answer) = hooked.create("a").await;
    assert_eq!(code, 400, "{answer}");
    assert_eq!(
        answer["message"],
        "admission webhook \"deny-silently.kedge.example\" denied the request without explanation"
    );
    assert_eq!(hooked.world.json("GET", &format!("{MAPS}/a"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn mutations_come_in_order_and_once_more_for_those_who_ask() {
    let hooked = Hooked::new().await;
    let first = hooked.hook("/first", json!({"reinvocationPolicy": "IfNeeded"}));
    let hooks = vec![first, hooked.hook("/second", json!({}))];
    hooked.install("MutatingWebhookConfiguration", "test", hooks).await;
    let (code, answer) = hooked.create("a").await;
    assert_eq!(code, 201, "{answer}");
    // The first was asked again, and replaced what the second had put in.
    assert_eq!(answer["metadata"]["labels"], json!({"first": "again"}));
    let paths: Vec<String> = hooked.extension.asked().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/first?timeout=1s", "/second?timeout=1s", "/first?timeout=1s"]);
    // What a hook has set is nobody's: ownership is of what was asked for.
    let fields = answer["metadata"]["managedFields"][0]["fieldsV1"].to_string();
    assert!(fields.contains("f:data") && !fields.contains("f:first"), "{fields}");
}

#[tokio::test]
async fn hooks_that_change_things_see_whose_the_fields_are() {
    let hooked = Hooked::new().await;
    hooked.create("a").await;
    let hooks = vec![hooked.hook("/allow", json!({}))];
    hooked.install("MutatingWebhookConfiguration", "test", hooks).await;
    let path = format!("{MAPS}/a");
    let send = async |media: &str, manager: &str, body: Value| {
        hooked.extension.forget();
        let path = format!("{path}?fieldManager={manager}");
        let (code, _, answer) =
            hooked.world.send("PATCH", &path, &[("content-type", media)], body.to_string()).await;
        assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
        let asked = hooked.extension.asked();
        let owners = asked[0].1["request"]["object"]["metadata"]["managedFields"].clone();
        let answer: Value = serde_json::from_slice(&answer).expect("an object");
        assert!(owners.is_array(), "{}", asked[0].1);
        // What was shown is what is stored, for the hook has changed nothing.
        assert_eq!(owners, answer["metadata"]["managedFields"]);
        owners.to_string()
    };
    let owners = send("application/merge-patch+json", "changer", json!({"data": {"c": "d"}})).await;
    assert!(owners.contains("\"changer\"") && owners.contains("f:c"), "{owners}");
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"e": "f"}});
    let owners = send("application/apply-patch+yaml", "applier", applied).await;
    assert!(owners.contains("\"applier\"") && owners.contains("f:e"), "{owners}");
}

#[tokio::test]
async fn failures_stop_or_are_overlooked_as_configured() {
    let hooked = Hooked::new().await;
    for (path, wanted) in [
        ("/wrong-uid", "received invalid webhook response: expected response.uid"),
        ("/broken", "the server responded with 500"),
        ("/redirect", "the server responded with 302"),
        ("/heavy", "the answer cannot be read: the body has too many elements"),
        ("/huge", "the answer is larger than"),
        ("/garbage", "the answer is not an AdmissionReview"),
        ("/hang", "context deadline exceeded"),
    ] {
        // Only who hangs is waited for in vain.
        let seconds = if path == "/hang" { 1 } else { 30 };
        hooked.validating(path, json!({"timeoutSeconds": seconds})).await;
        let (code, answer) = hooked.create("a").await;
        assert_eq!(code, 500, "{path}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        let name =
            format!("Internal error occurred: failed calling webhook \"{}.kedge.example\": ", &path[1..]);
        assert!(message.starts_with(&name) && message.contains(wanted), "{path}: {message}");
        hooked.validating(path, json!({"failurePolicy": "Ignore", "timeoutSeconds": seconds})).await;
        let (code, answer) = hooked.create("a").await;
        assert_eq!(code, 201, "{path}: {answer}");
        hooked.world.json("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    }
    // Nobody listens; nobody is trusted.
    for (config, wanted) in [
        (
            json!({"url": "https://localhost:1/x", "caBundle": STANDARD.encode(&hooked.extension.authority)}),
            "connect",
        ),
        (json!({"url": format!("https://localhost:{}/allow", hooked.extension.port)}), "certificate"),
    ] {
        hooked.validating("/allow", json!({"clientConfig": config})).await;
        let (code, answer) = hooked.create("a").await;
        let message = answer["message"].as_str().unwrap_or_default().to_lowercase();
        assert!(code == 500 && message.contains(wanted), "{answer}");
    }
}

#[tokio::test]
async fn only_what_is_selected_is_sent() {
    let hooked = Hooked::new().await;
    let rules = |rule: Value| json!({"rules": [rule]});
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    let with = |field: &str, value: Value| {
        let mut rule = rule.clone();
        rule[field] = value;
        rules(rule)
    };
    for (more, expected) in [
        (with("resources", json!(["*"])), true),
        (with("resources", json!(["*/*"])), true),
        (with("resources", json!(["secrets"])), false),
        (with("resources", json!(["configmaps/status"])), false),
        (with("operations", json!(["UPDATE"])), false),
        (with("apiGroups", json!(["apps"])), false),
        (with("apiVersions", json!(["v2"])), false),
        (with("scope", json!("Cluster")), false),
        (with("scope", json!("Namespaced")), true),
        (json!({"objectSelector": {"matchLabels": {"a": "b"}}}), false),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}), false),
    ] {
        hooked.validating("/deny", more.clone()).await;
        let (code, _) = hooked.create("a").await;
        assert_eq!(code, if expected { 403 } else { 201 }, "{more}");
        hooked.install("ValidatingWebhookConfiguration", "test", Vec::new()).await;
        hooked.world.json("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    }
    // A hook for everything is not asked about hooks: it could never be removed.
    let all = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    hooked.validating("/deny", json!({"rules": all})).await;
    let path = format!("{HOOKS}/validatingwebhookconfigurations/test");
    assert_eq!(hooked.world.json("DELETE", &path, Value::Null).await.0, 200);
}

#[tokio::test]
async fn conditions_choose_what_rules_cannot() {
    let hooked = Hooked::new().await;
    let condition = |expression: &str| json!({"matchConditions": [{"name": "c", "expression": expression}]});
    for (expression, code) in [
        ("object.data.a == 'b'", 403),
        ("object.data.a == 'c'", 201),
        ("request.userInfo.username != 'root'", 201),
        ("authorizer.group('').resource('secrets').check('get').allowed()", 403),
        // What cannot be told stops the operation, unless failures are overlooked.
        ("object.data.nothing == 'b'", 403),
    ] {
        hooked.validating("/deny", condition(expression)).await;
        let (answered, answer) = hooked.create("a").await;
        assert_eq!(answered, code, "{expression}: {answer}");
        hooked.world.json("DELETE", &format!("{MAPS}/a"), Value::Null).await;
        hooked.install("ValidatingWebhookConfiguration", "test", Vec::new()).await;
        hooked.world.json("DELETE", &format!("{MAPS}/a"), Value::Null).await;
    }
    let mut overlooked = condition("object.data.nothing == 'b'");
    overlooked["failurePolicy"] = "Ignore".into();
    hooked.validating("/deny", overlooked).await;
    assert_eq!(hooked.create("a").await.0, 201);
    assert!(hooked.extension.asked().is_empty());
}

#[tokio::test]
async fn dry_runs_reach_only_hooks_without_side_effects() {
    let hooked = Hooked::new().await;
    let dry = format!("{MAPS}?dryRun=All");
    let map = json!({"metadata": {"name": "a"}});
    hooked.validating("/allow", json!({"sideEffects": "NoneOnDryRun"})).await;
    assert_eq!(hooked.world.json("POST", &dry, map.clone()).await.0, 201);
    let request = hooked.extension.asked().remove(0).1["request"].clone();
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}

#[tokio::test]
async fn subresources_streams_and_services_are_reached() {
    let hooked = Hooked::new().await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": 8443}], "selector": {"a": "b"}}});
    assert_eq!(hooked.world.json("POST", "/api/v1/namespaces/default/services", service).await.0, 201);
    let config = json!({"service": {"namespace": "default", "name": "hook", "path": "/deny"},
        "caBundle": STANDARD.encode(&hooked.extension.authority)});
    let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments/scale"]},
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/exec"]}]);
    hooked.validating("/deny", json!({"clientConfig": config, "rules": rules})).await;
    let labels = json!({"a": "b"});
    let pod = json!({"containers": [{"name": "c", "image": "i"}]});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(hooked.world.json("POST", path, deployment).await.0, 201);
    let (code, answer) =
        hooked.world.json("PATCH", &format!("{path}/d/scale"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(code, 403, "{answer}");
    let request = hooked.extension.asked().remove(0).1["request"].clone();
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(request["object"]["spec"]["replicas"], 3);
    assert_eq!(
        (&request["subResource"], &request["oldObject"]["spec"]["replicas"]),
        (&json!("scale"), &json!(1))
    );
    assert_eq!(
        hooked.world.json("PATCH", &format!("{path}/d"), json!({"spec": {"replicas": 2}})).await.0,
        200
    );

    let account = json!({"metadata": {"name": "default"}});
    hooked.world.json("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    let object = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(hooked.world.json("POST", "/api/v1/namespaces/default/pods", object).await.0, 201);
    hooked.extension.forget();
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=ls&command=-l&stdout=true";
    let (code, answer) = hooked.world.json("POST", exec, Value::Null).await;
    assert_eq!(code, 403, "{answer}");
    let request = hooked.extension.asked().remove(0).1["request"].clone();
    assert_eq!(request["object"]["kind"], "PodExecOptions");
    assert_eq!(request["object"]["command"], json!(["ls", "-l"]));
    assert_eq!(request["operation"], "CONNECT");
}

const AUTOSCALERS: &str = "horizontalpodautoscalers";

fn autoscaler() -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": 60,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

fn rules(version: &str) -> Value {
    json!([{"apiGroups": ["autoscaling"], "apiVersions": [version], "operations": ["CREATE"], "resources": [AUTOSCALERS]}])
}

#[tokio::test]
async fn a_hook_sees_the_version_that_its_rule_names() {
    let hooked = Hooked::new().await;
    let older = format!("/apis/autoscaling/v1/namespaces/default/{AUTOSCALERS}");
    let hook = hooked.hook("/first", json!({"rules": rules("v2")}));
    hooked.install("MutatingWebhookConfiguration", "test", vec![hook]).await;
    hooked.validating("/allow", json!({"rules": rules("v2")})).await;
    let (code, made) = hooked.world.json("POST", &older, autoscaler()).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    assert_eq!(
        (&made["metadata"]["labels"]["first"], &made["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("once"), &json!(60))
    );
    let asked = hooked.extension.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    for (_, body) in &asked {
        let request = &body["request"];
        let kind = |version: &str| json!({"group": "autoscaling", "version": version, "kind": "HorizontalPodAutoscaler"});
        assert_eq!((&request["kind"], &request["requestKind"]), (&kind("v2"), &kind("v1")));
        assert_eq!(request["resource"]["version"], "v2");
        assert_eq!(request["requestResource"]["version"], "v1");
        assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
        assert_eq!(request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    }

    // Unless it wants no other.
    let exact = hooked.hook("/deny", json!({"rules": rules("v2"), "matchPolicy": "Exact"}));
    hooked.install("ValidatingWebhookConfiguration", "test", vec![exact]).await;
    let mut other = autoscaler();
    other["metadata"]["name"] = "b".into();
    let (code, made) = hooked.world.json("POST", &older, other).await;
    assert_eq!(code, 201, "{made}");
}

/// Bodies that may come to much, as far as is known before they are read, and that wait for a hook: there is room for four.
#[tokio::test]
async fn what_waits_keeps_its_place_and_there_are_so_many() {
    let hooked = Hooked::new().await;
    hooked.validating("/hang", json!({"failurePolicy": "Ignore", "timeoutSeconds": 9})).await;
    let body =
        |name: usize| format!("metadata: {{name: a{name}}}\ndata: {{a: \"{}\"}}\n", ":".repeat(100_000));
    let headers = [("content-type", "application/yaml")];
    let large = |name| hooked.world.send("POST", MAPS, &headers, body(name));
    let large = futures::future::join_all((0..5).map(large));
    let secret = json!({"metadata": {"name": "a"}});
    let small = async {
        let began = std::time::Instant::now();
        let (code, answer) = hooked.world.json("POST", "/api/v1/namespaces/default/secrets", secret).await;
        (code, began.elapsed() < std::time::Duration::from_secs(5), answer)
    };
    let (large, (code, at_once, answer)) = tokio::join!(large, small);
    assert!((code, at_once) == (201, true), "{code}: {answer}");
    let (refused, stored): (Vec<_>, Vec<_>) = large.into_iter().partition(|(code, ..)| *code == 429);
    assert!(stored.iter().all(|(code, ..)| *code == 201) && stored.len() == 4, "{}", stored.len());
    let (_, headers, answer) = &refused[0];
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    assert_eq!(headers.get("retry-after").and_then(|v| v.to_str().ok()), Some("1"), "{answer}");
    assert_eq!(answer["details"]["retryAfterSeconds"], 1, "{answer}");
    // What was held is given back.
    hooked.world.json("DELETE", &format!("{HOOKS}/validatingwebhookconfigurations/test"), Value::Null).await;
    let (code, ..) = hooked.world.send("POST", MAPS, &[("content-type", "application/yaml")], body(9)).await;
    assert_eq!(code, 201);
}
