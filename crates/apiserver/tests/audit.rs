//! Audit: what is kept of which requests. What the events say is what kube-apiserver v1.36.2 was seen to write for the
//! same requests under the same policy, but for ids, times, addresses and its defaults in what a request brings.

mod world;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::audit::{Feed, Hook, Log, Mode, Rotation, Settings};
use apiserver::auth::Identity;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::Extension;
use world::{World, master};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  nonResourceURLs: ["/readyz*", "/livez*"]
- level: RequestResponse
  namespaces: [aud]
- level: RequestResponse
  resources: [{group: authentication.k8s.io}, {group: authorization.k8s.io}]
- level: Metadata
"#;

struct Audited {
    world: World,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

fn log(path: &Path) -> Log {
    Log { path: path.to_owned(), rotation: Rotation::default(), feed: Feed::for_log() }
}

impl Audited {
    async fn under(policy: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log_path = folder.path().join("audit.log");
        let policy_file = policy.map(|text| {
            let path = folder.path().join("policy.yaml");
            std::fs::write(&path, text).expect("writes");
            path
        });
        let settings = Settings { policy_file, log: Some(log(&log_path)), webhook: None };
        Self { world: World::audited(settings).await, log: log_path, _folder: folder }
    }

    fn events(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Asks and returns the events of that.
    async fn ask(&self, who: &Identity, method: &str, path: &str, body: Value) -> Vec<Value> {
        let before = self.events().len();
        self.world.ask(who, method, path, body).await;
        self.since(before, path)
    }

    /// The events about a path after the first so many: our own parts ask as well.
    fn since(&self, before: usize, path: &str) -> Vec<Value> {
        let events = self.events().into_iter().skip(before);
        events.filter(|event| event["requestURI"] == path).collect()
    }
}

const ALLOWED: &str = r#"{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""}"#;

fn status(code: u16) -> Value {
    json!({"metadata": {}, "code": code})
}

#[tokio::test]
async fn an_event_says_who_asked_for_what_and_how_it_ended() {
    let audited = Audited::under(Some(POLICY)).await;
    let root = master();
    let seen = audited.ask(&root, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "aud"}})).await;
    let stages: Vec<&str> = seen.iter().filter_map(|e| e["stage"].as_str()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let mut last = seen[1].clone();
    assert_eq!(last["objectRef"], json!({"resource": "namespaces", "name": "aud", "apiVersion": "v1"}));
    assert_eq!(seen[0]["objectRef"], json!({"resource": "namespaces", "apiVersion": "v1"}), "not known yet");
    assert!(seen[0].get("annotations").is_none() && seen[0].get("responseStatus").is_none(), "{}", seen[0]);
    for field in ["auditID", "requestReceivedTimestamp", "stageTimestamp"] {
        assert!(last[field].as_str().is_some_and(|t| t.len() >= 27), "{field}: {last}");
        last.as_object_mut().expect("an event").remove(field);
    }
    assert_eq!(
        last,
        json!({"kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
            "requestURI": "/api/v1/namespaces", "verb": "create",
            "user": {"username": "root", "groups": ["system:masters", "system:authenticated"]},
            "objectRef": {"resource": "namespaces", "name": "aud", "apiVersion": "v1"}, "responseStatus": status(201),
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}})
    );
}

/// What the original wrote: verb, place, status, whether objects are there.
const ORIGINAL: &[(&str, &str, &str, &str)] = &[
    (
        "POST",
        "configmaps",
        r#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#,
        r#"create {"resource":"configmaps","namespace":"aud","name":"a","apiVersion":"v1"} {"metadata":{},"code":201} request=ConfigMap response=ConfigMap"#,
    ),
    (
        "POST",
        "configmaps?dryRun=All",
        r#"{"metadata":{"generateName":"b-"}}"#,
        r#"create {"resource":"configmaps","namespace":"aud","apiVersion":"v1"} {"metadata":{},"code":201} request=ConfigMap response=ConfigMap"#,
    ),
    (
        "GET",
        "configmaps/a",
        "",
        r#"get {"resource":"configmaps","namespace":"aud","name":"a","apiVersion":"v1"} {"metadata":{},"code":200} request=- response=ConfigMap"#,
    ),
    (
        "GET",
        "configmaps?fieldSelector=metadata.name%3Da",
        "",
        r#"list {"resource":"configmaps","namespace":"aud","name":"a","apiVersion":"v1"} {"metadata":{},"code":200} request=- response=ConfigMapList"#,
    ),
    (
        "PUT",
        "configmaps/a",
        r#"{"metadata":{"name":"a"},"data":{"k":"w"}}"#,
        r#"update {"resource":"configmaps","namespace":"aud","name":"a","apiVersion":"v1"} {"metadata":{},"code":200} request=ConfigMap response=ConfigMap"#,
    ),
    (
        "PATCH",
        "configmaps/a",
        r#"{"data":{"k":null}}"#,
        r#"patch {"resource":"configmaps","namespace":"aud","name":"a","apiVersion":"v1"} {"metadata":{},"code":200} request={"data":{"k":null}} response=ConfigMap"#,
    ),
    (
        "GET",
        "configmaps/none",
        "",
        r#"get {"resource":"configmaps","namespace":"aud","name":"none","apiVersion":"v1"} {"metadata":{},"status":"Failure","message":"configmaps \"none\" not found","reason":"NotFound","details":{"name":"none","kind":"configmaps"},"code":404} request=- response=Status"#,
    ),
    (
        "POST",
        "serviceaccounts/default/token",
        r#"{"spec":{}}"#,
        r#"create {"resource":"serviceaccounts","namespace":"aud","name":"default","apiVersion":"v1","subresource":"token"} {"metadata":{},"status":"Failure","message":"serviceaccounts \"default\" not found","reason":"NotFound","details":{"name":"default","kind":"serviceaccounts"},"code":404} request={"spec":{}} response=Status"#,
    ),
    (
        "GET",
        "madeup",
        "",
        r#"list {"resource":"madeup","namespace":"aud","apiVersion":"v1"} {"metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404} request=- response=Status"#,
    ),
    (
        "DELETE",
        "configmaps",
        "",
        r#"deletecollection {"resource":"configmaps","namespace":"aud","apiVersion":"v1"} {"metadata":{},"code":200} request=- response=ConfigMapList"#,
    ),
];

#[tokio::test]
async fn events_are_what_the_original_was_seen_to_write() {
    let audited = Audited::under(Some(POLICY)).await;
    audited.world.json("POST", "/api/v1/namespaces", json!({"metadata": {"name": "aud"}})).await;
    for (method, place, body, expected) in ORIGINAL {
        let path = format!("/api/v1/namespaces/aud/{place}");
        let body = serde_json::from_str(body).unwrap_or_default();
        let seen = audited.ask(&master(), method, &path, body).await;
        let last = seen.last().unwrap_or_else(|| panic!("{method} {place}: no event"));
        let object = |field: &str| match &last[field] {
            Value::Null => "-".to_owned(),
            object => object["kind"].as_str().map_or_else(|| object.to_string(), str::to_owned),
        };
        let mut words = expected.splitn(2, ' ');
        assert_eq!(last["verb"].as_str(), words.next(), "{method} {place}");
        let rest = words.next().expect("the rest");
        let mut parts = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let (reference, status) = (parts.next().expect("a place"), parts.next().expect("a status"));
        assert_eq!(last["objectRef"], reference.expect("JSON"), "{method} {place}");
        assert_eq!(last["responseStatus"], status.expect("JSON"), "{method} {place}");
        let shown = format!("request={} response={}", object("requestObject"), object("responseObject"));
        assert!(rest.ends_with(&shown), "{method} {place}: {shown}");
        assert_eq!(last["annotations"].to_string(), ALLOWED, "{method} {place}");
        assert_eq!(last["level"], "RequestResponse");
    }
    let path = "/api/v1/namespaces/aud/configmaps";
    audited.ask(&master(), "POST", path, json!({"metadata": {"name": "a"}})).await;
    let seen = audited.ask(&master(), "DELETE", &format!("{path}/a"), Value::Null).await;
    let status = &seen[1]["responseStatus"];
    assert_eq!((&status["status"], &status["code"]), (&json!("Success"), &json!(200)), "{status}");
    assert_eq!(status["details"]["name"], "a", "{status}");
}

#[tokio::test]
async fn who_is_refused_and_who_is_spoken_for_is_told() {
    let audited = Audited::under(Some(POLICY)).await;
    let jane = Identity::new("jane", &[]);
    let path = "/api/v1/namespaces/aud/secrets/s";
    let seen = audited.ask(&jane, "GET", path, Value::Null).await;
    assert_eq!(seen[1]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(seen[1]["responseStatus"]["reason"], "Forbidden");
    let before = audited.events().len();
    let (code, _) = audited.world.unknown("GET", path, &[("authorization", "Bearer wrong")]).await;
    assert_eq!(code, 401);
    let seen = audited.since(before, path);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((&seen[0]["stage"], &seen[0]["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!(seen[0]["responseStatus"]["message"], "Unauthorized");
    assert!(!seen[0].to_string().contains("wrong"), "a token is not told: {}", seen[0]);
    let before = audited.events().len();
    let as_joe = [("impersonate-user", "joe"), ("impersonate-group", "g"), ("impersonate-extra-foo", "bar")];
    let path = "/api/v1/namespaces/aud/configmaps";
    audited.world.raw("GET", path, &as_joe, "").await;
    let seen = audited.since(before, path);
    let joe = json!({"username": "joe", "groups": ["g", "system:authenticated"], "extra": {"foo": ["bar"]}});
    assert_eq!(seen[1]["impersonatedUser"], joe);
    assert_eq!(seen[1]["user"]["username"], "root");
    // By which right is told where it is a narrow one: a key without a domain is none that those know.
    assert_eq!(seen[1]["authenticationMetadata"], Value::Null);
    let before = audited.events().len();
    audited.world.raw("GET", path, &[("impersonate-user", "joe")], "").await;
    let told = &audited.since(before, path)[1]["authenticationMetadata"];
    assert_eq!(*told, json!({"impersonationConstraint": "impersonate:user-info"}));
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    audited.world.grant(&format!("{}/clusterroles", world::RBAC), role).await;
    let binding = json!({"metadata": {"name": "jane-reads"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}});
    audited.world.grant(&format!("{}/clusterrolebindings", world::RBAC), binding).await;
    let seen = audited.ask(&jane, "GET", "/api/v1/pods", Value::Null).await;
    assert_eq!(
        seen[1]["annotations"]["authorization.k8s.io/reason"],
        "RBAC: allowed by ClusterRoleBinding \"jane-reads\" of ClusterRole \"reader\" to User \"jane\""
    );
}

#[tokio::test]
async fn ids_are_taken_and_given_back_and_what_lasts_has_a_stage_more() {
    let audited = Audited::under(Some(POLICY)).await;
    let (_, headers, _) = audited
        .world
        .send(
            "GET",
            "/version",
            &[("audit-id", "mine-1"), ("user-agent", "probe/1"), ("x-forwarded-for", "192.0.2.1, nonsense")],
            "",
        )
        .await;
    assert_eq!(headers["audit-id"], "mine-1");
    let last = audited.since(0, "/version").pop().expect("an event");
    assert_eq!(
        (&last["auditID"], &last["userAgent"], &last["sourceIPs"]),
        (&json!("mine-1"), &json!("probe/1"), &json!(["192.0.2.1"]))
    );
    assert!(last.get("objectRef").is_none(), "{last}");
    let before = audited.events().len();
    audited.world.send("GET", "/readyz", &[], "").await;
    assert_eq!(audited.since(before, "/readyz").len(), 0, "the policy keeps nothing of it");
    let path = "/api/v1/namespaces/aud/configmaps?watch=1";
    let answer = audited.world.raw("GET", path, &[], "").await;
    let stages = |audited: &Audited| -> Vec<String> {
        let seen = audited.since(before, path);
        seen.iter().map(|e| e["stage"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(stages(&audited), ["RequestReceived", "ResponseStarted"]);
    drop(answer);
    let ended = async {
        while stages(&audited).len() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the end of the watch is kept");
    let last = audited.since(0, path).pop().expect("an event");
    assert_eq!((&last["stage"], &last["responseStatus"]), (&json!("ResponseComplete"), &status(200)));
    assert!(last.get("responseObject").is_none(), "{last}");
}

#[tokio::test]
async fn bodies_are_kept_only_where_a_policy_asks_for_them() {
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden-words"}});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "hidden-words"}});
    let ask = async |audited: &Audited| {
        audited.ask(&master(), "POST", "/api/v1/namespaces/default/secrets", secret.clone()).await;
        audited.ask(&master(), "GET", "/api/v1/namespaces/default/secrets", Value::Null).await;
        let wrong = json!({"metadata": {"name": "t", "labels": {"a": "hidden-words "}}, "data": {"k": "hidden-words"}});
        audited.ask(&master(), "POST", "/api/v1/namespaces/default/secrets", wrong).await;
        let wrong = json!({"metadata": {"labels": "hidden-words"}});
        audited.ask(&master(), "PATCH", "/api/v1/namespaces/default/secrets/s", wrong).await;
        audited.ask(&master(), "POST", "/apis/authentication.k8s.io/v1/tokenreviews", review.clone()).await;
        let account = json!({"metadata": {"name": "sa"}});
        audited.ask(&master(), "POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
        audited
            .ask(
                &master(),
                "POST",
                "/api/v1/namespaces/default/serviceaccounts/sa/token",
                json!({"spec": {}}),
            )
            .await;
        std::fs::read_to_string(&audited.log).expect("a log")
    };
    let hidden = STANDARD.encode("hidden-words");
    let text = ask(&Audited::under(None).await).await;
    assert!(!text.contains("hidden-words") && !text.contains(&hidden) && !text.contains("eyJ"), "{text}");
    assert!(text.contains("authentication.kubernetes.io/issued-credential-id"), "{text}");
    assert!(!text.contains("RequestReceived"), "one event a request is enough: {text}");
    let all = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitManagedFields: true, rules: [{level: RequestResponse}]}";
    let text = ask(&Audited::under(Some(all)).await).await;
    assert!(text.contains(&hidden) && text.contains("eyJ"), "the policy asks for them, as the original's");
    assert!(!text.contains("managedFields"), "{text}");
}

#[tokio::test]
async fn admission_tells_what_it_would_have_said() {
    let audited = Audited::under(Some(POLICY)).await;
    let labels = json!({"pod-security.kubernetes.io/audit": "restricted"});
    audited
        .world
        .json("POST", "/api/v1/namespaces", json!({"metadata": {"name": "aud", "labels": labels}}))
        .await;
    audited
        .world
        .json("POST", "/api/v1/namespaces/aud/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "named"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "validations": [{"expression": "object.metadata.name != 'p'", "message": "not p"}],
        "auditAnnotations": [{"key": "pod", "valueExpression": "object.metadata.name"}]}});
    audited.world.grant(&format!("{group}/validatingadmissionpolicies"), policy).await;
    let binding =
        json!({"metadata": {"name": "all"}, "spec": {"policyName": "named", "validationActions": ["Audit"]}});
    audited.world.grant(&format!("{group}/validatingadmissionpolicybindings"), binding).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let seen = audited.ask(&master(), "POST", "/api/v1/namespaces/aud/pods", pod).await;
    let said = &seen[1]["annotations"];
    assert_eq!(said["pod-security.kubernetes.io/enforce-policy"], "privileged:latest", "{said}");
    let violations = said["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{said}"
    );
    assert_eq!(said["named/pod"], "p");
    let failure = said["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap_or_default();
    let expected = json!([{"message": "not p", "policy": "named", "binding": "all", "expressionIndex": "0", "validationActions": ["Audit"]}]);
    assert_eq!(serde_json::from_str::<Value>(failure).ok(), Some(expected), "{said}");
}

/// Hooks by the paths that they answer at; each looks at ConfigMaps.
async fn install_hooks(world: &World, service: &Extension, kind: &str, hooks: &[(&str, Value)]) {
    let hook = |(path, more): &(&str, Value)| {
        let mut hook = json!({
            "name": format!("{path}.kedge.example"),
            "clientConfig": {"url": format!("https://localhost:{}/{path}", service.port), "caBundle": STANDARD.encode(&service.authority)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        });
        hook.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        hook
    };
    let hooks: Vec<Value> = hooks.iter().map(hook).collect();
    let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations");
    world.grant(&path, json!({"metadata": {"name": kind}, "webhooks": hooks})).await;
}

/// What the original was seen to say of the same hooks for the same requests.
#[tokio::test]
async fn hooks_are_told_of_with_what_they_changed_and_where_they_failed() {
    let service = Extension::start(&["localhost"], |parts, body| {
        let patch = match parts.uri.path() {
            "/first" => json!([{"op": "add", "path": "/metadata/labels", "value": {"first": "yes"}}]),
            "/second" => json!([{"op": "add", "path": "/metadata/labels/second", "value": "yes"}]),
            "/empty" => json!([]),
            "/broken" => return Some((500, json!("out of order"))),
            "/hang" => return None,
            _ => Value::Null,
        };
        let mut response = json!({"uid": body["request"]["uid"], "allowed": true});
        if !patch.is_null() {
            response["patchType"] = "JSONPatch".into();
            response["patch"] = STANDARD.encode(patch.to_string()).into();
        }
        Some((
            200,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
        ))
    })
    .await;
    let audited = Audited::under(Some(POLICY)).await;
    let world = &audited.world;
    world.grant("/api/v1/namespaces", json!({"metadata": {"name": "aud"}})).await;
    let ignore = json!({"failurePolicy": "Ignore"});
    let mutating = [
        ("first", json!({"reinvocationPolicy": "IfNeeded"})),
        ("second", json!({})),
        ("broken", ignore.clone()),
        ("empty", json!({})),
    ];
    install_hooks(world, &service, "mutating", &mutating).await;
    install_hooks(world, &service, "validating", &[("allow", json!({})), ("broken", ignore.clone())]).await;
    let told = |event: &Value| -> Vec<(String, String)> {
        let annotations = event["annotations"].as_object().expect("annotations").iter();
        let of_hooks = annotations.filter(|(key, _)| key.contains("webhook.admission.k8s.io"));
        of_hooks.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    let mutation = |round: u8, index: u8, hook: &str, mutated: bool| {
        let value =
            format!(r#"{{"configuration":"mutating","webhook":"{hook}.kedge.example","mutated":{mutated}}}"#);
        (format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"), value)
    };
    let patch = |round: u8, index: u8, hook: &str, patch: &str| {
        let value = format!(
            r#"{{"configuration":"mutating","webhook":"{hook}.kedge.example","patch":[{patch}],"patchType":"JSONPatch"}}"#
        );
        (format!("patch.webhook.admission.k8s.io/round_{round}_index_{index}"), value)
    };
    let failed = |role: &str, index: u8| {
        let key = format!("failed-open.{role}.webhook.admission.k8s.io/round_0_index_{index}");
        (key, "broken.kedge.example".to_owned())
    };
    let (first, second) = (
        r#"{"op":"add","path":"/metadata/labels","value":{"first":"yes"}}"#,
        r#"{"op":"add","path":"/metadata/labels/second","value":"yes"}"#,
    );
    let mut expected = vec![
        failed("mutation", 2),
        failed("validating", 1),
        mutation(0, 0, "first", true),
        mutation(0, 1, "second", true),
        mutation(0, 2, "broken", false),
        mutation(0, 3, "empty", false),
        mutation(1, 0, "first", true),
    ];
    let map = json!({"metadata": {"name": "c"}});
    let events = audited.ask(&master(), "POST", "/api/v1/namespaces/default/configmaps", map.clone()).await;
    assert_eq!(told(events.last().expect("an event")), expected, "no patch where no bodies are told");
    expected.extend([
        patch(0, 0, "first", first),
        patch(0, 1, "second", second),
        patch(1, 0, "first", first),
    ]);
    let events = audited.ask(&master(), "POST", "/api/v1/namespaces/aud/configmaps", map.clone()).await;
    let event = events.last().expect("an event");
    assert_eq!(told(event), expected);
    let latencies = |event: &Value| -> Vec<String> {
        let keys = event["annotations"].as_object().into_iter().flatten().map(|(key, _)| key);
        keys.filter_map(|key| key.strip_prefix("apiserver.latency.k8s.io/")).map(str::to_owned).collect()
    };
    let quick = audited.ask(&master(), "GET", "/api/v1/namespaces/aud/configmaps/c", Value::Null).await;
    assert!(latencies(&quick[0]).is_empty(), "{quick:?}");

    // One that is waited for until its time is over makes a request slow.
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/validating";
    world.json("DELETE", path, Value::Null).await;
    install_hooks(world, &service, "validating", &[("hang", ignore)]).await;
    let path = "/api/v1/namespaces/aud/configmaps/c";
    let events = audited.ask(&master(), "PATCH", path, json!({"data": {"a": "b"}})).await;
    let event = events.last().expect("an event");
    let names = latencies(event);
    for name in ["authorization", "etcd", "mutating-webhook", "total", "validating-webhook"] {
        assert!(names.iter().any(|told| told == name), "{name}: {event}");
    }
    let took = |name: &str| event["annotations"][format!("apiserver.latency.k8s.io/{name}")].as_str();
    assert!(
        took("validating-webhook").is_some_and(|took| took.starts_with("1.") && took.ends_with('s')),
        "{event}"
    );
}

#[tokio::test]
async fn a_service_gets_events_together_and_again_when_it_was_away() {
    let got = Arc::new(Mutex::new(Vec::<Value>::new()));
    let service = {
        let (got, asked) = (Arc::clone(&got), AtomicU32::new(0));
        Extension::start(&["localhost"], move |_, body| {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return Some((503, Value::Null));
            }
            got.lock().expect("no panic").push(body.clone());
            Some((200, Value::Null))
        })
        .await
    };
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("webhook.yaml");
    let authority = STANDARD.encode(&service.authority);
    std::fs::write(&config, format!("clusters:\n- cluster: {{server: 'https://localhost:{}/audit', certificate-authority-data: {authority}}}\n", service.port)).expect("writes");
    let feed = Feed { batch_wait: Duration::from_millis(200), ..Feed::for_webhook() };
    let webhook = Hook { config_file: config, initial_backoff: Duration::from_millis(10), feed };
    let world = World::audited(Settings { webhook: Some(webhook), ..Default::default() }).await;
    for name in ["a", "b"] {
        world
            .json("POST", "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": name}}))
            .await;
    }
    world.server.flush_audit().await;
    let lists = got.lock().expect("no panic").clone();
    let items: Vec<&Value> = lists.iter().flat_map(|list| list["items"].as_array().expect("items")).collect();
    assert!(lists.iter().all(|list| list["kind"] == "EventList" && list["apiVersion"] == "audit.k8s.io/v1"));
    assert!(items.len() > lists.len(), "together: {} in {}", items.len(), lists.len());
    for name in ["a", "b"] {
        assert_eq!(
            items
                .iter()
                .filter(|e| e["objectRef"]["resource"] == "configmaps" && e["objectRef"]["name"] == name)
                .count(),
            1
        );
    }
    let (_, _, metrics) = world.send("GET", "/metrics", &[], "").await;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("apiserver_audit_error_total{plugin=\"webhook\"} 0"), "{metrics}");
    assert!(metrics.contains("apiserver_audit_level_total{level=\"Metadata\"}"), "{metrics}");
}

#[tokio::test]
async fn in_the_strict_mode_what_cannot_be_kept_is_not_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy_file = folder.path().join("policy.yaml");
    // Our own parts are not kept, so that the server can start.
    let of_root = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, nonResourceURLs: ['*']}, {level: Metadata, users: [root]}]}";
    std::fs::write(&policy_file, of_root).expect("writes");
    let mut settings =
        Settings { policy_file: Some(policy_file), log: Some(log(Path::new("/dev/full"))), webhook: None };
    let create = json!({"metadata": {"name": "a"}});
    let path = "/api/v1/namespaces/default/configmaps";
    let lax = World::audited(settings.clone()).await;
    assert_eq!(lax.json("POST", path, create.clone()).await.0, 201);
    let (_, _, metrics) = lax.send("GET", "/metrics", &[], "").await;
    assert!(!String::from_utf8_lossy(&metrics).contains("apiserver_audit_error_total{plugin=\"log\"} 0"));
    settings.log.as_mut().expect("a log").feed.mode = Mode::BlockingStrict;
    let strict = World::audited(settings).await;
    let (code, answer) = strict.json("POST", path, create).await;
    assert_eq!((code, answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
    assert!(
        answer["message"].as_str().is_some_and(|m| m.contains("failed to store audit event")),
        "{answer}"
    );
    assert_eq!(strict.json("GET", "/readyz", Value::Null).await.0, 200, "nothing of it is kept");
}
