//! Policies and rules in force: what a server with policies answers to those who write through it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::auth::Identity;
use apiserver::auth::certificates::{Authority, Usage};
use apiserver::http::body::{full, read};
use apiserver::{ApiServer, Config, Dial};
use futures::future::BoxFuture;
use http::{Method, Request};
use serde_json::{Value, json};
use store::{Embedded, EmbeddedOptions};
use tokio::net::TcpStream;

struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        Box::pin(async { Err(std::io::Error::other("there are no nodes here")) })
    }
}

struct World {
    server: ApiServer,
    _folder: tempfile::TempDir,
}

struct Answered {
    code: u16,
    body: Value,
    warnings: Vec<String>,
}

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(folder.path()).expect("an authority");
        let config = Config {
            folder: folder.path().to_owned(),
            advertise: SocketAddr::from((Ipv4Addr::new(10, 44, 0, 1), 6443)),
            service_cidr: "10.43.0.0/16".into(),
            dns_address: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
            node_client: authority.issue("x", Usage::Client { group: "g".into() }).expect("issues"),
            authority: authority.certificate.clone(),
            dial: Arc::new(Nowhere),
            authentication: Default::default(),
            requests: Default::default(),
            audit: Default::default(),
            encryption: Default::default(),
        };
        let store = Embedded::open(&folder.path().join("state"), EmbeddedOptions::default()).expect("opens");
        let server = ApiServer::open(config, Arc::new(store)).await.expect("starts");
        Self { server, _folder: folder }
    }

    async fn ask_as(&self, who: &Identity, method: &str, path: &str, body: Value) -> Answered {
        let content_type =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path)
            .header("content-type", content_type)
            .body(full(body.to_string()))
            .expect("a request");
        let answer = self.server.handle(request, Some(who.clone())).await;
        let code = answer.status().as_u16();
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let warnings = answer.headers().get_all("warning").iter().map(text).collect();
        let Ok(bytes) = read(answer.into_body(), 1 << 24).await else { panic!("{method} {path}: no body") };
        Answered { code, body: serde_json::from_slice(&bytes).unwrap_or_default(), warnings }
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Answered {
        self.ask_as(&Identity::new("root", &["system:masters"]), method, path, body).await
    }

    async fn create(&self, path: &str, body: Value) -> Value {
        let answer = self.ask("POST", path, body).await;
        assert_eq!(answer.code, 201, "{path}: {}", answer.body);
        answer.body
    }

    /// A policy about ConfigMaps and a binding for it, both of that name.
    async fn validating(&self, name: &str, spec: Value, binding: Value) {
        let mut spec = spec;
        spec["matchConstraints"] = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["*"], "resources": ["configmaps"]}]});
        self.create(
            &format!("{REGISTRATION}/validatingadmissionpolicies"),
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
        let mut binding = binding;
        binding["policyName"] = name.into();
        if binding["validationActions"].is_null() {
            binding["validationActions"] = json!(["Deny"]);
        }
        let path = format!("{REGISTRATION}/validatingadmissionpolicybindings");
        self.create(&path, json!({"metadata": {"name": name}, "spec": binding})).await;
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_policy_refuses_in_the_words_of_the_original() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression": "!has(object.data) || !('secret' in object.data)"}]});
    // Deletions have no object: the policy is not about them.
    let mut spec = spec;
    spec["matchConditions"] = json!([{"name": "not-gone", "expression": "request.operation != 'DELETE'"}]);
    world.validating("p", spec, json!({})).await;
    world.create(MAPS, map("good", json!({"a": "b"}))).await;
    let refused = world.ask("POST", MAPS, map("bad", json!({"secret": "x"}))).await;
    assert_eq!(refused.code, 422);
    let words = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: failed expression: !has(object.data) || !('secret' in \
                 object.data)";
    assert_eq!(refused.body["message"], format!("configmaps \"bad\" is forbidden: {words}"));
    assert_eq!(refused.body["reason"], "Invalid");
    assert_eq!(refused.body["details"]["causes"], json!([{"message": words}]));
    // Every way by which an object is written.
    let path = format!("{MAPS}/good");
    assert_eq!(world.ask("PUT", &path, map("good", json!({"secret": "x"}))).await.code, 422);
    assert_eq!(world.ask("PATCH", &path, json!({"data": {"secret": "x"}})).await.code, 422);
    assert_eq!(
        world.ask("POST", &format!("{MAPS}?dryRun=All"), map("bad", json!({"secret": "x"}))).await.code,
        422
    );
    assert_eq!(world.ask("DELETE", &path, json!({})).await.code, 200);
    // Without its binding it is not in force, and it never judges what it is itself made of.
    let binding = format!("{REGISTRATION}/validatingadmissionpolicybindings/p");
    assert_eq!(world.ask("DELETE", &binding, json!({})).await.code, 200);
    world.create(MAPS, map("bad", json!({"secret": "x"}))).await;
}

#[tokio::test]
async fn deletions_and_old_objects_are_judged() {
    let world = World::new().await;
    let spec = json!({"validations": [
        {"expression": "request.operation != 'DELETE' || oldObject.data.kept != 'yes'", "message": "it is kept", "reason": "Forbidden"},
        {"expression": "request.operation != 'UPDATE' || object.data.n == oldObject.data.n", "messageExpression": "'n was ' + oldObject.data.n"},
    ]});
    world.validating("p", spec, json!({})).await;
    world.create(MAPS, map("a", json!({"kept": "yes", "n": "1"}))).await;
    let path = format!("{MAPS}/a");
    let refused = world.ask("DELETE", &path, json!({})).await;
    assert_eq!((refused.code, refused.body["reason"].as_str()), (403, Some("Forbidden")));
    let refused = world.ask("PATCH", &path, json!({"data": {"n": "2"}})).await;
    assert!(
        refused.body["message"].as_str().is_some_and(|m| m.ends_with("denied request: n was 1")),
        "{}",
        refused.body
    );
    assert_eq!(world.ask("PATCH", &path, json!({"data": {"kept": "no"}})).await.code, 200);
    assert_eq!(world.ask("DELETE", &path, json!({})).await.code, 200);
    // Of many, what is refused is told, and what is not done by then stays.
    for (name, kept) in [("a", "yes"), ("b", "no")] {
        world.create(MAPS, map(name, json!({"kept": kept, "n": "1"}))).await;
    }
    let refused = world.ask("DELETE", MAPS, json!({})).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    let words = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: it is kept";
    assert_eq!(refused.body["message"], format!("configmaps \"Unknown\" is forbidden: {words}"));
    assert_eq!(world.ask("GET", &format!("{MAPS}/a"), Value::Null).await.code, 200);
}

#[tokio::test]
async fn actions_failures_and_selectors_are_heeded() {
    let world = World::new().await;
    let never = json!({"validations": [{"expression": "false", "message": "never"}]});
    world.validating("warn", never.clone(), json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = world.ask("POST", MAPS, map("a", json!({}))).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    assert_eq!(
        answer.warnings,
        ["299 - \"Validation failed for ValidatingAdmissionPolicy 'warn' with binding 'warn': never\""]
    );
    let selected = json!({"matchResources": {"objectSelector": {"matchLabels": {"a": "b"}}}});
    world.validating("labelled", never.clone(), selected).await;
    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}});
    world.validating("elsewhere", never.clone(), elsewhere).await;
    assert_eq!(world.ask("POST", MAPS, map("b", json!({}))).await.code, 201);
    let labelled = json!({"metadata": {"name": "c", "labels": {"a": "b"}}});
    assert_eq!(world.ask("POST", MAPS, labelled).await.code, 422);
    // What fails refuses, unless it is told to be ignored.
    let failing = json!({"validations": [{"expression": "object.nothing == 1"}]});
    let mut ignored = failing.clone();
    ignored["failurePolicy"] = "Ignore".into();
    world.validating("ignored", ignored, json!({})).await;
    assert_eq!(world.ask("POST", MAPS, map("d", json!({}))).await.code, 201);
    world.validating("failing", failing, json!({})).await;
    let refused = world.ask("POST", MAPS, map("e", json!({}))).await;
    let words = "ValidatingAdmissionPolicy 'failing' with binding 'failing' denied request: expression 'object.nothing == 1' resulted in \
                 error: no such key: nothing";
    assert_eq!(refused.body["message"], format!("configmaps \"e\" is forbidden: {words}"));
}

#[tokio::test]
async fn parameters_are_looked_up() {
    let world = World::new().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-params", "expression": "!object.metadata.name.startsWith('param')"}],
        "variables": [{"name": "limit", "expression": "int(params.data.limit)"}],
        "validations": [{"expression": "size(object.data) <= variables.limit", "messageExpression": "'at most ' + params.data.limit"}]});
    world.create(MAPS, map("param-a", json!({"limit": "1"}))).await;
    world
        .create(MAPS, json!({"metadata": {"name": "param-b", "labels": {"p": "1"}}, "data": {"limit": "2"}}))
        .await;
    let named = json!({"paramRef": {"name": "param-a", "parameterNotFoundAction": "Deny"}});
    world.validating("named", spec.clone(), named).await;
    let refused = world.ask("POST", MAPS, map("x", json!({"a": "", "b": ""}))).await;
    assert!(
        refused.body["message"].as_str().is_some_and(|m| m.ends_with("denied request: at most 1")),
        "{}",
        refused.body
    );
    assert_eq!(world.ask("POST", MAPS, map("x", json!({"a": ""}))).await.code, 201);
    assert_eq!(
        world
            .ask("DELETE", &format!("{REGISTRATION}/validatingadmissionpolicies/named"), json!({}))
            .await
            .code,
        200
    );
    let selected =
        json!({"paramRef": {"selector": {"matchLabels": {"p": "1"}}, "parameterNotFoundAction": "Allow"}});
    world.validating("selected", spec.clone(), selected).await;
    assert_eq!(world.ask("POST", MAPS, map("y", json!({"a": "", "b": ""}))).await.code, 201);
    let missing = json!({"paramRef": {"name": "nobody", "parameterNotFoundAction": "Deny"}});
    world.validating("missing", spec, missing).await;
    let refused = world.ask("POST", MAPS, map("z", json!({}))).await;
    let words = "ValidatingAdmissionPolicy 'missing' with binding 'missing' denied request: failed to configure binding: no params found \
                 for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(refused.body["message"], format!("configmaps \"z\" is forbidden: {words}"));
}

#[tokio::test]
async fn expressions_may_ask_what_is_allowed() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()", "message": "no secrets, no maps"}]});
    world.validating("p", spec, json!({})).await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    world
        .create(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "maps"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "maps"}, "roleRef": {"kind": "ClusterRole", "name": "maps"}, "subjects": [{"kind": "User", "name": "jane"}]});
    world.create(&format!("{rbac}/clusterrolebindings"), binding).await;
    let jane = Identity::new("jane", &[]);
    let refused = world.ask_as(&jane, "POST", MAPS, map("a", json!({}))).await;
    assert!(
        refused.body["message"].as_str().is_some_and(|m| m.ends_with("no secrets, no maps")),
        "{}",
        refused.body
    );
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    world
        .create(&format!("{rbac}/clusterroles"), json!({"metadata": {"name": "secrets"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "secrets"}, "roleRef": {"kind": "ClusterRole", "name": "secrets"}, "subjects": [{"kind": "User", "name": "jane"}]});
    world.create(&format!("{rbac}/clusterrolebindings"), binding).await;
    assert_eq!(world.ask_as(&jane, "POST", MAPS, map("a", json!({}))).await.code, 201);
}

#[tokio::test]
async fn mutations_change_what_is_stored() {
    let world = World::new().await;
    let policy = |name: &str, reinvocation: &str, mutations: Value| {
        json!({"metadata": {"name": name}, "spec": {"reinvocationPolicy": reinvocation, "mutations": mutations,
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}}})
    };
    let apply = |expression: &str| json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}});
    let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
    // The first counts what others add, and sees it when it is asked again.
    let policies = [
        policy(
            "a-counts",
            "IfNeeded",
            json!([apply("Object{data: Object.data{count: string(size(object.data))}}")]),
        ),
        policy(
            "b-adds",
            "Never",
            json!([patch("[JSONPatch{op: 'add', path: '/data/added', value: request.userInfo.username}]")]),
        ),
    ];
    for policy in policies {
        world.create(&format!("{REGISTRATION}/mutatingadmissionpolicies"), policy.clone()).await;
        let binding =
            json!({"metadata": policy["metadata"], "spec": {"policyName": policy["metadata"]["name"]}});
        world.create(&format!("{REGISTRATION}/mutatingadmissionpolicybindings"), binding).await;
    }
    let stored = world.create(MAPS, map("a", json!({"x": "y"}))).await;
    assert_eq!(stored["data"], json!({"x": "y", "added": "root", "count": "3"}));
    let broken = policy("c-breaks", "Never", json!([apply("Object{spec: Object.wrong{}}")]));
    world.create(&format!("{REGISTRATION}/mutatingadmissionpolicies"), broken).await;
    let binding = json!({"metadata": {"name": "c-breaks"}, "spec": {"policyName": "c-breaks"}});
    world.create(&format!("{REGISTRATION}/mutatingadmissionpolicybindings"), binding).await;
    let refused = world.ask("POST", MAPS, map("b", json!({"x": "y"}))).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.body["message"]
            .as_str()
            .is_some_and(|m| m
                .starts_with("policy 'c-breaks' with binding 'c-breaks' denied request: type mismatch: ")),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn rules_of_custom_resources_hold_on_every_write() {
    let world = World::new().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self <= 5"}, {"rule": "self >= oldSelf", "message": "only grows"}]}}},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}}},
        "x-kubernetes-validations": [{"rule": "!has(self.status) || self.status.ready <= self.spec.size", "message": "more ready than there are"}]});
    let definition = json!({"metadata": {"name": "apps.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "apps", "kind": "App"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}});
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let created = world.ask("POST", crds, definition).await;
    assert_eq!((created.code, created.warnings.len()), (201, 0), "{}", created.body);
    let apps = "/apis/example.com/v1/namespaces/default/apps";
    let app = |size: i64| json!({"apiVersion": "example.com/v1", "kind": "App", "metadata": {"name": "a"}, "spec": {"size": size}});
    let refused = world.ask("POST", apps, app(6)).await;
    assert_eq!(
        (refused.code, refused.body["message"].as_str()),
        (422, Some("App.example.com \"a\" is invalid: spec.size: Invalid value: 6: failed rule: self <= 5"))
    );
    world.create(apps, app(3)).await;
    let path = format!("{apps}/a");
    let refused = world.ask("PATCH", &path, json!({"spec": {"size": 2}})).await;
    assert_eq!(
        refused.body["message"],
        "App.example.com \"a\" is invalid: spec.size: Invalid value: 2: only grows"
    );
    assert_eq!(world.ask("PATCH", &path, json!({"spec": {"size": 4}})).await.code, 200);
    let refused = world.ask("PATCH", &format!("{path}/status"), json!({"status": {"ready": 5}})).await;
    assert_eq!(
        refused.body["message"],
        "App.example.com \"a\" is invalid: <nil>: Invalid value: more ready than there are"
    );
    assert_eq!(
        world.ask("PATCH", &format!("{path}/status"), json!({"status": {"ready": 4}})).await.code,
        200
    );
}

#[tokio::test]
async fn a_policy_sees_the_version_that_its_rule_names() {
    let world = World::new().await;
    let rules = json!([{"apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["CREATE"],
        "resources": ["horizontalpodautoscalers"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules}, "validations": [
        {"expression": "object.spec.metrics[0].resource.target.averageUtilization < 50", "messageExpression": "request.requestKind.version + ' as ' + request.kind.version"}]});
    world
        .create(
            &format!("{REGISTRATION}/validatingadmissionpolicies"),
            json!({"metadata": {"name": "p"}, "spec": spec}),
        )
        .await;
    let binding =
        json!({"metadata": {"name": "p"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    world.create(&format!("{REGISTRATION}/validatingadmissionpolicybindings"), binding).await;
    let older = |percent: i32| {
        json!({"metadata": {"generateName": "a-"}, "spec": {"maxReplicas": 2, "targetCPUUtilizationPercentage": percent,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
    };
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    world.create(path, older(40)).await;
    let refused = world.ask("POST", path, older(60)).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let message = refused.body["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("denied request: v1 as v2"), "{message}");
}
