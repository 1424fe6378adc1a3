//! Resource quotas at admission: what is counted, what is refused and how, and that nothing slips through at once.

mod world;

use serde_json::{Value, json};
use world::World;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A quota whose controller has counted nothing yet.
async fn quota(world: &World, name: &str, spec: Value) {
    let mut used = spec["hard"].clone();
    used.as_object_mut().expect("amounts").values_mut().for_each(|v| *v = "0".into());
    let status = json!({"status": {"hard": spec["hard"], "used": used}});
    world.grant(QUOTAS, json!({"metadata": {"name": name}, "spec": spec})).await;
    let (code, answer) = world.json("PATCH", &format!("{QUOTAS}/{name}/status"), status).await;
    assert_eq!(code, 200, "{answer}");
}

async fn used(world: &World, name: &str) -> Value {
    world.json("GET", &format!("{QUOTAS}/{name}"), Value::Null).await.1["status"]["used"].clone()
}

fn pod(name: &str, requests: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]}})
}

#[tokio::test]
async fn as_many_as_there_is_room_for_also_at_once() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": "5", "count/configmaps": "5"}})).await;
    let create =
        async |n: usize| world.json("POST", MAPS, json!({"metadata": {"name": format!("m{n}")}})).await;
    let codes: Vec<u16> =
        futures::future::join_all((0..20).map(create)).await.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 15, "{codes:?}");
    assert_eq!(used(&world, "q").await["configmaps"], "5");
    let (code, answer) = create(99).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "configmaps \"m99\" is forbidden: exceeded quota: q, requested: configmaps=1,count/configmaps=1, used: \
         configmaps=5,count/configmaps=5, limited: configmaps=5,count/configmaps=5"
    );
    // A trial is refused like the real thing, and one that would fit takes nothing.
    assert_eq!(
        world.json("POST", &format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "x"}})).await.0,
        403
    );
}

#[tokio::test]
async fn pods_say_how_much_they_use_and_scopes_choose_them() {
    let world = World::new().await;
    let account = json!({"metadata": {"name": "default"}});
    world.json("POST", "/api/v1/namespaces/default/serviceaccounts", account).await;
    quota(&world, "cpu", json!({"hard": {"requests.cpu": "1", "pods": "3"}})).await;
    quota(&world, "idle", json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]})).await;
    let (code, answer) = world.json("POST", PODS, pod("a", json!({}))).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("failed quota: cpu: must specify requests.cpu for: c"), "{message}");
    assert_eq!(world.json("POST", PODS, pod("a", json!({"cpu": "600m"}))).await.0, 201);
    assert_eq!(used(&world, "cpu").await, json!({"pods": "1", "requests.cpu": "600m"}));
    assert_eq!(used(&world, "idle").await, json!({"pods": "0"}), "it is not best effort");
    let (code, answer) = world.json("POST", PODS, pod("b", json!({"cpu": "600m"}))).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap_or_default();
    let wanted =
        "exceeded quota: cpu, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert!(message.ends_with(wanted), "{message}");
}

#[tokio::test]
async fn what_has_not_been_counted_is_not_given_away() {
    let world = World::new().await;
    world.grant(QUOTAS, json!({"metadata": {"name": "new"}, "spec": {"hard": {"configmaps": "5"}}})).await;
    let (code, answer) = world.json("POST", MAPS, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("status unknown for quota: new, resources: configmaps"), "{message}");
}

/// What the controller of quotas does: counts what is there, and writes that down unless the quota has changed since it was
/// read.
async fn recount(world: &World) {
    let (_, mut quota) = world.json("GET", &format!("{QUOTAS}/q"), Value::Null).await;
    quota["status"]["used"]["configmaps"] = count(world).await.to_string().into();
    let (code, answer) = world.json("PUT", &format!("{QUOTAS}/q/status"), quota).await;
    assert!(matches!(code, 200 | 409), "{answer}");
}

async fn count(world: &World) -> usize {
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    list["items"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_recount_gives_nothing_away_that_is_being_made() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": "3"}})).await;
    for round in 0..30 {
        let over = std::cell::Cell::new(false);
        let creating = async {
            let create = |n: usize| world.json("POST", MAPS, json!({"metadata": {"name": format!("m{n}")}}));
            let answers = futures::future::join_all((0..12).map(create)).await;
            over.set(true);
            answers.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
        };
        let recounting = async {
            while !over.get() {
                recount(&world).await;
            }
        };
        let (codes, (), ()) = futures::future::join3(creating, recounting, async {
            while !over.get() {
                recount(&world).await;
            }
        })
        .await;
        assert_eq!(count(&world).await, 3, "round {round}: {codes:?}");
        assert_eq!(used(&world, "q").await["configmaps"], "3", "round {round}: {codes:?}");
        assert_eq!(world.json("DELETE", MAPS, Value::Null).await.0, 200);
        recount(&world).await;
    }
}

#[tokio::test]
async fn what_is_not_stored_is_not_charged() {
    let world = World::new().await;
    quota(&world, "q", json!({"hard": {"configmaps": "3"}})).await;
    let map = || json!({"metadata": {"name": "twice"}});
    assert_eq!(world.json("POST", MAPS, map()).await.0, 201);
    assert_eq!(world.json("POST", MAPS, map()).await.0, 409);
    assert_eq!(used(&world, "q").await["configmaps"], "1");
}
