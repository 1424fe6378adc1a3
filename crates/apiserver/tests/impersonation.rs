//! Speaking for somebody: every way to be allowed it, the narrow ones and that of old, beside what kube-apiserver 1.36.2
//! answered (`impersonation.json`: accounts with the roles there, each asking with the headers there).

mod world;

use apiserver::auth::Identity;
use apiserver::http::body::{full, read};
use http::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use world::{RBAC, World};

#[derive(Deserialize)]
struct Recorded {
    roles: Map<String, Value>,
    headers: Vec<Vec<(String, String)>>,
    /// The role of who asks, which headers, what for, and the code and the words or the user that came of it.
    answers: Vec<(String, usize, String, String, u16, Value)>,
}

fn recorded() -> Recorded {
    serde_json::from_str(include_str!("impersonation.json")).expect("recorded answers")
}

/// An account of a role's namespace; where its token is bound to a node, its identity says so.
fn account(role: &str, number: usize) -> Identity {
    let namespace = format!("speak-{role}");
    let group = format!("system:serviceaccounts:{namespace}");
    let name = format!("system:serviceaccount:{namespace}:case-{number}");
    let mut who = Identity::new(name, &["system:serviceaccounts", &group]);
    if role.contains("own-node") {
        who.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["n1".into()]);
    }
    who
}

async fn grant(world: &World, roles: &Map<String, Value>) {
    for (role, rules) in roles {
        let name = format!("speak-{role}");
        let made = json!({"metadata": {"name": name}, "rules": rules});
        world.grant(&format!("{RBAC}/clusterroles"), made).await;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "Group", "apiGroup": group, "name": format!("system:serviceaccounts:{name}")}]});
        world.grant(&format!("{RBAC}/clusterrolebindings"), binding).await;
    }
}

/// What an answer told: a refusal's words, the user of a review, or else of which kind it is.
fn told(body: &Value) -> Value {
    match body["kind"].as_str() {
        Some("Status") => body["message"].clone(),
        Some("SelfSubjectReview") => body["status"]["userInfo"].clone(),
        Some(kind) => kind.into(),
        None => "".into(),
    }
}

#[tokio::test]
async fn who_may_speak_for_whom_is_answered_as_by_the_original() {
    let world = World::new().await;
    let Recorded { roles, headers, answers } = recorded();
    grant(&world, &roles).await;
    let (mut role_before, mut number) = (String::new(), 0);
    let (mut differing, mut granted) = (Vec::new(), 0);
    for (role, which, method, path, code, expected) in &answers {
        number = if *role == role_before { number + 1 } else { 0 };
        role_before.clone_from(role);
        let mut request =
            Request::builder().method(method.as_str()).uri(path).header("content-type", "application/json");
        for (name, value) in &headers[*which] {
            request = request.header(name, value);
        }
        let body = if method == "POST" { "{}" } else { "" };
        let request = request.body(full(body)).expect("a request");
        let answer = world.server.handle(request, Some(account(role, number))).await;
        let got = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 20).await else { panic!("no body") };
        let said = told(&serde_json::from_slice(&bytes).unwrap_or_default());
        granted += u32::from(got < 300);
        if (got, &said) != (*code, expected) {
            differing.push(format!(
                "{role} as {:?} {method} {path}\n  theirs {code} {expected}\n  ours   {got} {said}",
                headers[*which]
            ));
        }
    }
    println!("{} answers compared, {granted} granted", answers.len());
    assert!(granted > 100 && answers.len() > 500, "{granted} of {}", answers.len());
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}
