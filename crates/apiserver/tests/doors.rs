//! Each door of the API, tried by somebody without the key: all kinds of the table, all verbs, the wrong scopes, and the
//! ways by which rights might be widened.

mod world;

use api::kinds::{Kind, builtin};
use apiserver::auth::Identity;
use apiserver::http::body::{full, read};
use http::Request;
use serde_json::{Value, json};
use world::{RBAC, World, master};

fn path_of(kind: &Kind, namespace: Option<&str>, name: &str) -> String {
    let group = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let place = namespace.map(|n| format!("/namespaces/{n}")).unwrap_or_default();
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("{group}{place}/{}{name}", kind.plural)
}

const VERBS: &[(&str, bool)] = &[
    ("GET", false),
    ("GET", true),
    ("POST", false),
    ("PUT", true),
    ("PATCH", true),
    ("DELETE", true),
    ("DELETE", false),
];

#[tokio::test]
async fn without_rights_every_verb_on_every_kind_is_refused() {
    let world = World::new().await;
    let nobody = Identity::new("nobody", &[]);
    // What everybody may ask: about themselves.
    let open = |kind: &Kind| kind.kind.starts_with("Self");
    for kind in builtin().iter().filter(|k| !open(k)) {
        let namespace = kind.namespaced.then_some("default");
        for (method, named) in VERBS {
            let path = path_of(kind, namespace, if *named { "x" } else { "" });
            let (code, answer) = world.ask(&nobody, method, &path, json!({})).await;
            assert_eq!(code, 403, "{method} {path}: {answer}");
        }
        for sub in &kind.subresources {
            let path = format!("{}/{}", path_of(kind, namespace, "x"), sub.name);
            let (code, answer) = world.ask(&nobody, "POST", &path, json!({})).await;
            assert_eq!(code, 403, "POST {path}: {answer}");
        }
    }
    // Whoever shows nothing gets no further than the probes; whoever is said to be nobody has no rights.
    let (code, _) = world.unknown("GET", "/api/v1/secrets", &[]).await;
    assert_eq!(code, 401);
    let anonymous = Identity::anonymous();
    let (code, _) = world.ask(&anonymous, "GET", "/api/v1/secrets", Value::Null).await;
    assert_eq!(code, 403);
    let (code, _) = world.unknown("GET", "/healthz", &[]).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn rights_in_a_namespace_reach_nothing_beyond_it() {
    let world = World::new().await;
    let binding = json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "jane"}]});
    world.grant(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await;
    let jane = Identity::new("jane", &[]);
    let (code, _) = world.ask(&jane, "GET", "/api/v1/namespaces/default/secrets", Value::Null).await;
    assert_eq!(code, 200, "her own namespace");
    for kind in builtin().iter().filter(|k| !k.namespaced && !k.is_virtual()) {
        // A namespace lies in itself: her rights there include it.
        if kind.kind == "Namespace" {
            continue;
        }
        for (method, named) in VERBS {
            let name = if *named { "x" } else { "" };
            let (code, answer) = world
                .ask(&jane, method, &path_of(kind, Some("default"), name), json!({"metadata": {"name": "x"}}))
                .await;
            assert_eq!(code, 404, "{method} {} below her namespace: {answer}", kind.plural);
            let (code, answer) = world
                .ask(&jane, method, &path_of(kind, None, name), json!({"metadata": {"name": "x"}}))
                .await;
            assert_eq!(code, 403, "{method} {}: {answer}", kind.plural);
        }
    }
    for kind in builtin().iter().filter(|k| k.namespaced) {
        let (code, answer) =
            world.ask(&jane, "GET", &path_of(kind, Some("kube-system"), "x"), Value::Null).await;
        assert_eq!(code, 403, "{} elsewhere: {answer}", kind.plural);
    }
}

#[tokio::test]
async fn nobody_widens_their_own_rights() {
    let world = World::new().await;
    let verbs = ["create", "update", "patch", "get", "list"];
    let rules = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": verbs}]);
    world
        .grant(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": "manager"}, "rules": rules}))
        .await;
    let subjects = json!([{"kind": "User", "name": "lim"}]);
    let bind = |name: &str, role: &str| json!({"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects});
    world.grant(&format!("{RBAC}/clusterrolebindings"), bind("manager", "manager")).await;
    let lim = Identity::new("lim", &[]);
    let tries = [
        ("clusterrolebindings", bind("b1", "cluster-admin"), 403),
        ("clusterrolebindings", bind("b2", "not-there-yet"), 404),
        (
            "clusterroles",
            json!({"metadata": {"name": "r1"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}),
            403,
        ),
        (
            "clusterroles",
            json!({"metadata": {"name": "r2"}, "aggregationRule": {"clusterRoleSelectors": [{}]}}),
            403,
        ),
        ("clusterroles", json!({"metadata": {"name": "r3"}, "rules": rules}), 201),
    ];
    for (plural, object, expected) in tries {
        let (code, answer) = world.ask(&lim, "POST", &format!("{RBAC}/{plural}"), object).await;
        assert_eq!(code, expected, "{answer}");
    }
    // A PUT that creates is a creation.
    let updater =
        json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["update"]}]);
    world
        .grant(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": "updater"}, "rules": updater}))
        .await;
    let binding = json!({"metadata": {"name": "updater"}, "roleRef": {"kind": "ClusterRole", "name": "updater"}, "subjects": [{"kind": "User", "name": "up"}]});
    world.grant(&format!("{RBAC}/clusterrolebindings"), binding).await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let (code, answer) =
        world.ask(&Identity::new("up", &[]), "PUT", lease, json!({"metadata": {"name": "l"}})).await;
    assert_eq!(code, 403, "{answer}");
}

#[tokio::test]
async fn a_trial_writes_nothing_and_other_trials_are_refused() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    world.grant(maps, json!({"metadata": {"name": "kept"}})).await;
    let root = master();
    let before = world.ask(&root, "GET", &format!("{maps}/kept"), Value::Null).await.1;
    let changed = json!({"metadata": {"name": "kept"}, "data": {"k": "tried"}});
    for (method, path, body, expected) in [
        ("POST", format!("{maps}?dryRun=All"), json!({"metadata": {"name": "tried"}}), 201),
        ("POST", format!("{maps}?dryRun=Foo"), json!({"metadata": {"name": "tried"}}), 422),
        ("PUT", format!("{maps}/kept?dryRun=All"), changed.clone(), 200),
        ("PUT", format!("{maps}/kept?dryRun=Foo"), changed.clone(), 422),
        ("PATCH", format!("{maps}/kept?dryRun=All"), json!({"data": {"k": "tried"}}), 200),
        ("DELETE", format!("{maps}/kept?dryRun=All"), json!({}), 200),
        ("DELETE", format!("{maps}/kept"), json!({"dryRun": ["Foo"]}), 422),
        ("DELETE", maps.to_owned(), json!({"dryRun": ["All"]}), 200),
    ] {
        let (code, answer) = world.ask(&root, method, &path, body).await;
        assert_eq!(code, expected, "{method} {path}: {answer}");
    }
    let (code, after) = world.ask(&root, "GET", &format!("{maps}/kept"), Value::Null).await;
    assert_eq!((code, after), (200, before));
    let (code, _) = world.ask(&root, "GET", &format!("{maps}/tried"), Value::Null).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn speaking_for_somebody_is_a_right_for_each_part_of_them() {
    let world = World::new().await;
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["impersonate"]});
    let rules = [rule("", "users"), rule("authentication.k8s.io", "userextras/scopes")];
    world
        .grant(&format!("{RBAC}/clusterroles"), json!({"metadata": {"name": "speaker"}, "rules": rules}))
        .await;
    let binding = json!({"metadata": {"name": "speaker"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "speaker"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.grant(&format!("{RBAC}/clusterrolebindings"), binding).await;
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(full("{}")).expect("a request");
        let answer = world.server.handle(request, Some(Identity::new("jane", &[]))).await;
        let code = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 20).await else { panic!("no body") };
        (code, serde_json::from_slice::<Value>(&bytes).expect("JSON"))
    };
    let user = ("impersonate-user", "bob");
    let (code, answer) = ask(&[user, ("impersonate-extra-scopes", "view")]).await;
    assert_eq!(code, 201, "{answer}");
    let info = &answer["status"]["userInfo"];
    assert_eq!((&info["username"], &info["extra"]["scopes"]), (&json!("bob"), &json!(["view"])));
    for refused in [
        &[user, ("impersonate-uid", "1")][..],
        &[user, ("impersonate-extra-other", "x")],
        &[user, ("impersonate-group", "system:masters")],
    ] {
        assert_eq!(ask(refused).await.0, 403, "{refused:?}");
    }
    assert_eq!(ask(&[("impersonate-uid", "1")]).await.0, 400, "nobody is spoken for");
}
