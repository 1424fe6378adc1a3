//! Who may do what, beside kube-apiserver v1.36.2: its answers to the access reviews, the roles that it begins with, and each way
//! to more rights than one has.

mod world;

use std::collections::BTreeSet;

use apiserver::auth::Identity;
use serde_json::{Value, json};
use world::World;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// The four access reviews beside what kube-apiserver v1.36.2 was heard to answer: `access_reviews.json` has roles, bindings,
/// and what was asked by whom.
#[tokio::test]
async fn access_reviews_are_answered_as_by_the_original() {
    let world = World::new().await;
    let recorded: Value = serde_json::from_str(include_str!("access_reviews.json")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for step in recorded["setup"].as_array().expect("steps") {
        let (code, answer) = world.json(&text(&step[0]), &text(&step[1]), step[2].clone()).await;
        assert_eq!(code, 201, "{step}: {answer}");
    }
    let cases = recorded["cases"].as_array().expect("cases");
    let mut differences = Vec::new();
    for case in cases {
        let path = format!("/apis/authorization.k8s.io/v1/{}", text(&case["path"]));
        let who = match case["user"].as_str() {
            None => world::master(),
            Some(user) => {
                let groups = case["groups"].as_array().into_iter().flatten().map(text);
                let groups: Vec<String> = groups.chain(["system:authenticated".to_owned()]).collect();
                Identity { username: user.into(), groups, ..Default::default() }
            }
        };
        let (code, answer) = world.ask(&who, "POST", &path, case["body"].clone()).await;
        let same = match case["message"].as_str() {
            // It shows the metadata as a whole, with times in it.
            Some(message) if message.contains("managedFields") => {
                let begins =
                    message.split("managedFields").next().unwrap_or_default().trim_end_matches(",\"");
                text(&answer["message"]).starts_with(begins)
                    && text(&answer["message"]).ends_with(": must be empty")
            }
            Some(message) => answer["message"] == message,
            None => sorted(&answer["status"]) == sorted(&case["status"]),
        };
        if case["code"] != code || !same {
            differences.push(format!("{case}\n  answered with {code} {answer}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
}

/// Rules have no order.
fn sorted(status: &Value) -> Value {
    let mut status = status.clone();
    for rules in ["resourceRules", "nonResourceRules"] {
        if let Some(rules) = status[rules].as_array_mut() {
            rules.sort_by_key(Value::to_string);
        }
    }
    status
}

/// Roles and bindings that are there from the start, and differ on purpose.
const OWN: [(&str, &str); 1] = [(
    "system:kube-controller-manager",
    "our controllers are one user, who does what the original's many accounts do",
)];

/// `default_roles.json` is what the original made of an empty store.
#[tokio::test]
async fn every_cluster_begins_with_the_originals_roles() {
    let world = World::new().await;
    let recorded: Vec<Value> = serde_json::from_str(include_str!("default_roles.json")).expect("JSON");
    let mut differences = Vec::new();
    for wanted in &recorded {
        let [kind, name, namespace] =
            ["kind", "name", "namespace"].map(|field| wanted[field].as_str().unwrap_or_default());
        let place = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
        let path = format!("{RBAC}{place}/{}s/{name}", kind.to_lowercase());
        let (code, ours) = world.json("GET", &path, Value::Null).await;
        if OWN.iter().any(|(own, _)| *own == name) {
            continue;
        }
        if code != 200 {
            differences.push(format!("{kind} {name} is not there"));
            continue;
        }
        for (theirs, here) in [(wanted, &ours), (&ours, wanted)] {
            let missing: Vec<String> = parts(theirs).difference(&parts(here)).cloned().collect();
            if !missing.is_empty() {
                let side = if std::ptr::eq(here, &ours) { "lacks" } else { "has beside it" };
                differences.push(format!("{kind} {name} {side} {missing:?}"));
            }
        }
    }
    // And nothing beside them, but what is ours.
    for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let (_, list) = world.json("GET", &format!("{RBAC}/{plural}"), Value::Null).await;
        for object in list["items"].as_array().into_iter().flatten() {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let kind =
                |known: &Value| format!("{}s", known["kind"].as_str().unwrap_or_default().to_lowercase());
            let is_known = recorded.iter().any(|known| known["name"] == name && kind(known) == plural);
            // Ports of load-balanced services are put on the host by a part that the original has not.
            if !is_known && name != "system:service-publisher" {
                differences.push(format!("{plural}: {name} is there beside them"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {}:\n{}",
        differences.len(),
        recorded.len(),
        differences.join("\n")
    );
}

/// A role as the single rights it gives, a binding as its role and its subjects: in no order.
fn parts(object: &Value) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        let list = value.as_array().cloned().unwrap_or_default();
        if list.is_empty() { vec!["-".into()] } else { list.iter().map(Value::to_string).collect() }
    };
    let mut parts = BTreeSet::new();
    // What a role gathers from others is told by those.
    let gathers = !object["aggregationRule"].is_null();
    for rule in object["rules"].as_array().into_iter().flatten().filter(|_| !gathers) {
        for verb in list(&rule["verbs"]) {
            let urls = list(&rule["nonResourceURLs"]);
            parts.extend(urls.iter().filter(|url| *url != "-").map(|url| format!("{verb} {url}")));
            for (group, resource) in list(&rule["apiGroups"])
                .iter()
                .flat_map(|g| list(&rule["resources"]).into_iter().map(move |r| (g, r)))
            {
                let names = list(&rule["resourceNames"]);
                parts.extend(
                    names
                        .iter()
                        .filter(|_| resource != "-")
                        .map(|name| format!("{verb} {group}/{resource} {name}")),
                );
            }
        }
    }
    for subject in object["subjects"].as_array().into_iter().flatten() {
        let text = |field: &str| subject[field].as_str().unwrap_or_default().to_owned();
        parts.insert(format!("to {} {} {}", text("kind"), text("namespace"), text("name")));
    }
    if let Some(role) = object["roleRef"].as_object() {
        parts.insert(format!("of {} {}", role["kind"], role["name"]));
    }
    parts.extend(
        object["aggregationRule"]["clusterRoleSelectors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|s| format!("gathers {s}")),
    );
    let labels = object.pointer("/metadata/labels").unwrap_or(&object["labels"]);
    parts.extend(labels.as_object().into_iter().flatten().map(|(k, v)| format!("label {k}={v}")));
    parts
}

async fn role(world: &World, name: &str, rules: Value) {
    world.grant(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": name}, "rules": rules})).await;
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]})
}

/// Not only by creating: by every verb that writes, in a namespace as well; and whoever may escalate or bind may.
#[tokio::test]
async fn nobody_widens_rights_by_any_verb() {
    let world = World::new().await;
    let of = |resources: &[&str], verbs: &[&str]| json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": resources, "verbs": verbs});
    let all = ["create", "update", "patch", "get"];
    let (roles, bindings) = (["roles", "clusterroles"], ["rolebindings", "clusterrolebindings"]);
    let manage = json!([of(&[&roles[..], &bindings].concat(), &all)]);
    role(&world, "manager", manage.clone()).await;
    role(&world, "raiser", json!([of(&roles, &[&all[..], &["escalate"]].concat())])).await;
    role(&world, "binder", json!([of(&bindings, &all), of(&["clusterroles"], &["bind"])])).await;
    for user in ["manager", "raiser", "binder"] {
        world.grant(&format!("{RBAC}/clusterrolebindings"), binding(user, "ClusterRole", user, user)).await;
    }
    let secrets = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    for (place, kind) in [("", "ClusterRole"), ("/namespaces/default", "Role")] {
        let plural = format!("{RBAC}{place}/{}s", kind.to_lowercase());
        let bound = format!("{RBAC}{place}/{}bindings", kind.to_lowercase());
        world.grant(&plural, json!({"metadata": {"name": "held"}, "rules": []})).await;
        world.grant(&bound, binding("held", "ClusterRole", "view", "nobody")).await;
        let api = "rbac.authorization.k8s.io/v1";
        let wider = json!({"apiVersion": api, "kind": kind, "metadata": {"name": "held"}, "rules": secrets});
        let other = |verb: &str| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": [verb]}]);
        let mut applied = wider.clone();
        applied["rules"] = other("watch");
        let group = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "all"});
        let mut masters = binding("held", "ClusterRole", "view", "somebody");
        masters["apiVersion"] = api.into();
        masters["kind"] = format!("{kind}Binding").into();
        let mut fresh = masters.clone();
        fresh["metadata"]["name"] = "fresh".into();
        fresh["roleRef"]["name"] = "cluster-admin".into();
        let tries = [
            ("POST", plural.clone(), json!({"metadata": {"name": "new"}, "rules": secrets}), "raiser"),
            ("PUT", format!("{plural}/held"), wider.clone(), "raiser"),
            ("PATCH", format!("{plural}/held"), json!({"rules": other("list")}), "raiser"),
            ("APPLY", format!("{plural}/held"), applied, "raiser"),
            ("POST", bound.clone(), binding("new", "ClusterRole", "cluster-admin", "x"), "binder"),
            ("PUT", format!("{bound}/held"), masters.clone(), "binder"),
            ("PATCH", format!("{bound}/held"), json!({"subjects": [group]}), "binder"),
            ("APPLY", format!("{bound}/fresh"), fresh, "binder"),
        ];
        for (method, path, body, who) in tries {
            let ask = async |user: &str| {
                let user = Identity::new(user, &[]);
                match method {
                    "APPLY" => world.apply(&user, &path, &body).await,
                    method => world.ask(&user, method, &path, body.clone()).await,
                }
            };
            let (code, answer) = ask("manager").await;
            assert_eq!(code, 403, "{method} {path}: {answer}");
            let (code, answer) = ask(who).await;
            assert!([200, 201].contains(&code), "{who} {method} {path}: {answer}");
        }
    }
}

/// What is given beyond what one has is listed; who changes nothing gives nothing. Recorded from the original.
#[tokio::test]
async fn what_is_not_held_is_told() {
    let world = World::new().await;
    let rule = |group: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": group, "resources": resources, "verbs": verbs});
    role(&world, "wide", json!([rule(&[""], &["secrets"], &["get"])])).await;
    role(
        &world,
        "mgr",
        json!([rule(
            &["rbac.authorization.k8s.io"],
            &["clusterroles"],
            &["create", "update", "patch", "get"]
        )]),
    )
    .await;
    world.grant(&format!("{RBAC}/clusterrolebindings"), binding("mgr", "ClusterRole", "mgr", "mgr")).await;
    let mgr = Identity::new("mgr", &[]);
    let path = format!("{RBAC}/clusterroles/wide");
    for (body, wanted) in [
        (json!({"rules": [rule(&[""], &["secrets"], &["get"])]}), 200),
        (json!({"metadata": {"finalizers": ["a.b/c"]}}), 200),
        (json!({"metadata": {"labels": {"a": "b"}}}), 403),
    ] {
        let (code, answer) = world.ask(&mgr, "PATCH", &path, body.clone()).await;
        assert_eq!(code, wanted, "{body}: {answer}");
    }
    let mut named = rule(&["apps", "batch"], &["deployments"], &["list", "get"]);
    named["resourceNames"] = json!(["z", "a"]);
    let rules = json!([named, {"nonResourceURLs": ["/b", "/a"], "verbs": ["post", "get"]}, rule(&[""], &["secrets"], &["watch", "get"]),
        rule(&[""], &["configmaps"], &["get", "watch"]), rule(&["rbac.authorization.k8s.io"], &["clusterroles", "roles"], &["get", "delete"])]);
    let (code, answer) = world.ask(&mgr, "PATCH", &path, json!({"rules": rules})).await;
    let wanted = r#"clusterroles.rbac.authorization.k8s.io "wide" is forbidden: user "mgr" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["configmaps"], Verbs:["get" "watch"]}
{APIGroups:[""], Resources:["secrets"], Verbs:["watch" "get"]}
{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["a"], Verbs:["list" "get"]}
{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["z"], Verbs:["list" "get"]}
{APIGroups:["batch"], Resources:["deployments"], ResourceNames:["a"], Verbs:["list" "get"]}
{APIGroups:["batch"], Resources:["deployments"], ResourceNames:["z"], Verbs:["list" "get"]}
{APIGroups:["rbac.authorization.k8s.io"], Resources:["clusterroles"], Verbs:["delete"]}
{APIGroups:["rbac.authorization.k8s.io"], Resources:["roles"], Verbs:["get" "delete"]}
{NonResourceURLs:["/a"], Verbs:["get"]}
{NonResourceURLs:["/a"], Verbs:["post"]}
{NonResourceURLs:["/b"], Verbs:["get"]}
{NonResourceURLs:["/b"], Verbs:["post"]}"#;
    assert_eq!((code, answer["message"].as_str()), (403, Some(wanted)));
    let gathering = json!({"metadata": {"name": "agg"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let (code, answer) = world.ask(&mgr, "POST", &format!("{RBAC}/clusterroles"), gathering).await;
    let wanted = "clusterroles.rbac.authorization.k8s.io \"agg\" is forbidden: must have cluster-admin privileges to use the aggregationRule";
    assert_eq!((code, answer["message"].as_str()), (403, Some(wanted)));
}

/// A few kilobytes of lists may come to any number of rights.
#[tokio::test]
async fn rules_that_come_to_too_many_rights_are_refused() {
    let world = World::new().await;
    role(
        &world,
        "mgr",
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create"]}]),
    )
    .await;
    world.grant(&format!("{RBAC}/clusterrolebindings"), binding("mgr", "ClusterRole", "mgr", "mgr")).await;
    let mgr = Identity::new("mgr", &[]);
    let many = |prefix: &str| (0..1000).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let wide = json!({"metadata": {"name": "wide"}, "rules": [{"apiGroups": many("g"), "resources": many("r"), "verbs": many("v"), "resourceNames": many("n")}]});
    let path = format!("{RBAC}/namespaces/default/roles");
    let (code, answer) = world.ask(&mgr, "POST", &path, wide).await;
    let told = answer["message"].as_str().unwrap_or_default();
    assert!(code == 403 && told.contains("make several roles of it"), "{code} {told}");
    let broad = json!({"metadata": {"name": "broad"}, "rules": [{"apiGroups": [""], "resources": many("r"), "verbs": ["get"]}]});
    let (code, answer) = world.ask(&mgr, "POST", &path, broad).await;
    let told = answer["message"].as_str().unwrap_or_default();
    assert!(code == 403 && told.ends_with("\nand 800 more"), "{code} {told}");
}

/// What is taken back holds no longer: at the very next request.
#[tokio::test]
async fn a_right_that_is_taken_back_is_gone_at_once() {
    let world = World::new().await;
    role(&world, "reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])).await;
    let (jane, pods) = (Identity::new("jane", &[]), "/api/v1/namespaces/default/pods");
    let list = async || world.ask(&jane, "GET", pods, Value::Null).await.0;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let own = format!("{bindings}/jane");
    let roles = format!("{RBAC}/clusterroles/reader");
    assert_eq!(list().await, 403);
    for (method, path, body) in [
        ("DELETE", &own, Value::Null),
        ("PATCH", &own, json!({"subjects": []})),
        ("PATCH", &roles, json!({"rules": []})),
        ("DELETE", &roles, Value::Null),
    ] {
        // An earlier round may have left it there.
        world.json("DELETE", &own, Value::Null).await;
        world.grant(&bindings, binding("jane", "ClusterRole", "reader", "jane")).await;
        let (code, answer) = world
            .json(
                "PATCH",
                &roles,
                json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}),
            )
            .await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(list().await, 200, "before {method} {path}");
        assert_eq!(world.json(method, path, body).await.0, 200, "{method} {path}");
        assert_eq!(list().await, 403, "after {method} {path}");
    }
}
