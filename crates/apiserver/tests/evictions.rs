//! Evictions beside budgets, as kube-apiserver v1.36.2 answers them.

mod world;

use serde_json::{Value, json};
use store::Op;
use world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod that runs, and is ready or not.
async fn pod(world: &World, name: &str, ready: bool) {
    let object = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"nodeName": "n",
        "automountServiceAccountToken": false, "containers": [{"name": "a", "image": "x"}]}});
    world.grant(PODS, object).await;
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    let (code, answer) = world.json("PATCH", &format!("{PODS}/{name}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
}

/// A budget for the pods of an application: how many evictions it allows, how many are well, how many have to be.
async fn budget(
    world: &World,
    name: &str,
    app: &str,
    (allowed, healthy, desired): (i32, i32, i32),
    more: Value,
) {
    let mut spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": app}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    world.grant(BUDGETS, json!({"metadata": {"name": name}, "spec": spec})).await;
    let status = json!({"status": {"observedGeneration": 1, "expectedPods": 1, "disruptionsAllowed": allowed,
        "currentHealthy": healthy, "desiredHealthy": desired}});
    let (code, answer) = world.json("PATCH", &format!("{BUDGETS}/{name}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
}

async fn evict(world: &World, name: &str, query: &str, options: Value) -> (u16, Value) {
    let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    if !options.is_null() {
        eviction["deleteOptions"] = options;
    }
    world.json("POST", &format!("{PODS}/{name}/eviction{query}"), eviction).await
}

async fn is_going(world: &World, name: &str) -> bool {
    let (code, pod) = world.json("GET", &format!("{PODS}/{name}"), Value::Null).await;
    code == 404 || !pod["metadata"]["deletionTimestamp"].is_null()
}

async fn allowed(world: &World, name: &str) -> (Value, bool) {
    let status = world.json("GET", &format!("{BUDGETS}/{name}"), Value::Null).await.1["status"].clone();
    let noted = status["disruptedPods"].as_object().is_some_and(|pods| !pods.is_empty());
    (status["disruptionsAllowed"].clone(), noted)
}

async fn world() -> World {
    let world = World::new().await;
    let account = json!({"metadata": {"name": "default"}});
    world.json("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    world
}

#[tokio::test]
async fn two_budgets_are_one_too_many() {
    let world = world().await;
    pod(&world, "two", true).await;
    for name in ["b1", "b2"] {
        budget(&world, name, "two", (1, 2, 1), Value::Null).await;
    }
    let (code, answer) = evict(&world, "two", "", Value::Null).await;
    let why =
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((code, &answer["message"], &answer["reason"]), (500, &json!(why), &Value::Null), "{answer}");
    assert!(!is_going(&world, "two").await);
    assert_eq!(allowed(&world, "b1").await, (json!(1), false), "nothing was taken");
}

#[tokio::test]
async fn pods_that_are_not_ready_go_as_the_policy_says() {
    let world = world().await;
    let always = json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"});
    let if_healthy = json!({"unhealthyPodEvictionPolicy": "IfHealthyBudget"});
    for (name, ready, numbers, policy, wanted) in [
        // The others are well without it.
        ("spare", false, (0, 1, 1), &Value::Null, 201),
        ("spare-said", false, (0, 1, 1), &if_healthy, 201),
        ("needed", false, (0, 0, 1), &Value::Null, 429),
        ("nobody-needs", false, (0, 0, 0), &Value::Null, 429),
        ("needed-always", false, (0, 0, 1), &always, 201),
        // What is ready counts whatever the policy.
        ("ready", true, (0, 1, 1), &always, 429),
    ] {
        pod(&world, name, ready).await;
        budget(&world, name, name, numbers, policy.clone()).await;
        let (code, answer) = evict(&world, name, "", Value::Null).await;
        assert_eq!(code, wanted, "{name}: {answer}");
        assert_eq!(is_going(&world, name).await, wanted == 201, "{name}");
        assert_eq!(allowed(&world, name).await, (json!(0), false), "{name}");
    }
}

#[tokio::test]
async fn a_disruption_is_taken_once_and_by_no_trial() {
    let world = world().await;
    pod(&world, "well", true).await;
    budget(&world, "well", "well", (1, 2, 1), Value::Null).await;
    for (query, options) in [("?dryRun=All", Value::Null), ("", json!({"dryRun": ["All"]}))] {
        assert_eq!(evict(&world, "well", query, options).await.0, 201);
        assert!(!is_going(&world, "well").await);
        assert_eq!(allowed(&world, "well").await, (json!(1), false));
    }
    // The number is taken before the pod is looked at again.
    let (code, answer) = evict(&world, "well", "", json!({"preconditions": {"uid": "nope"}})).await;
    assert_eq!(code, 409, "{answer}");
    assert_eq!(allowed(&world, "well").await, (json!(0), true));
    for query in ["", "?dryRun=All"] {
        let (code, answer) = evict(&world, "well", query, Value::Null).await;
        let cause = &answer["details"]["causes"][0]["message"];
        let why = "The disruption budget well does not allow evicting pods currently";
        assert_eq!((code, cause), (429, &json!(why)), "{answer}");
    }
    // One is meant or the other.
    for (name, code) in [("other", 400), ("", 400), ("well", 429)] {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        let (answered, answer) = world.json("POST", &format!("{PODS}/well/eviction"), eviction).await;
        assert_eq!(answered, code, "{name}: {answer}");
        let why = "name in URL does not match name in Eviction object";
        assert_eq!(answer["message"] == why, code == 400, "{answer}");
    }
    assert!(!is_going(&world, "well").await);
    assert_eq!(evict(&world, "nobody", "", Value::Null).await.0, 404);
}

/// Others' budgets are not read, of which there may be many: one that cannot be read is in nobody's way elsewhere.
#[tokio::test]
async fn the_budgets_of_other_namespaces_are_not_looked_at() {
    let world = world().await;
    pod(&world, "a", true).await;
    let put = |namespace: &str| Op::create(format!("/registry/poddisruptionbudgets/{namespace}/b"), "{");
    world.store.txn(vec![put("elsewhere")]).await.expect("written");
    let (code, answer) = evict(&world, "a", "?dryRun=All", Value::Null).await;
    assert_eq!(code, 201, "{answer}");
    world.store.txn(vec![put("default")]).await.expect("written");
    let (code, _) = evict(&world, "a", "?dryRun=All", Value::Null).await;
    assert_eq!(code, 500, "its own namespace's are");
}
