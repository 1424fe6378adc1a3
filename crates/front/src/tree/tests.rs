//! Trees from fixtures.

use super::*;
use expect_test::expect;
use serde_json::json;

const NOW: &str = "2026-11-20T12:00:00Z";

fn meta(namespace: &str, name: &str, uid: &str, owner: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": uid, "generation": 1, "creationTimestamp": "2026-11-20T11:55:00Z",
        "ownerReferences": [{"uid": owner}]})
}

fn ready(status: &str, message: &str) -> Value {
    json!([{"type": "Ready", "status": status, "reason": "R", "message": message}])
}

fn add(world: &mut World, object: Value) {
    world.objects.insert(Id::of(&object), Some(object));
}

fn world(web_ready: i64) -> World {
    let mut world = World::default();
    let revision = "main@sha1:0123456789abcdef0123456789abcdef01234567";
    world.sources.push(json!({"kind": "GitRepository", "metadata": meta("gitops", "shop", "1", ""),
        "status": {"conditions": ready("True", "stored"), "artifact": {"revision": revision}}}));
    let entry = |id: &str| json!({"id": id, "v": "v1"});
    let entries = [
        entry("shop_web_apps_Deployment"),
        entry("shop_store_apps_StatefulSet"),
        entry("shop_settings__ConfigMap"),
        entry("shop_web__Service"),
    ];
    world.kustomizations.push(json!({"kind": "Kustomization", "metadata": meta("gitops", "shop", "2", ""),
        "spec": {"sourceRef": {"kind": "GitRepository", "name": "shop"}},
        "status": {"conditions": ready("True", "Applied"), "lastAppliedRevision": revision, "inventory": {"entries": entries}}}));
    let template = json!({"spec": {"containers": [{"name": "web", "image": "localhost/shop:v1"}]}});
    let mut web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("shop", "web", "3", ""),
        "spec": {"replicas": 2, "template": template},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": web_ready, "availableReplicas": web_ready}});
    web["metadata"]["annotations"] = json!({DEPLOYMENT_REVISION: "3"});
    add(&mut world, web);
    add(
        &mut world,
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta("shop", "store", "4", ""),
        "spec": {"replicas": 1, "template": template},
        "status": {"observedGeneration": 1, "readyReplicas": 1, "updatedReplicas": 1, "updateRevision": "store-7d9c"}}),
    );
    add(
        &mut world,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("shop", "web", "5", ""), "spec": {}}),
    );
    world.replica_sets.push(json!({"metadata": meta("shop", "web-1", "6", "3")}));
    let pod = |name: &str, owner: &str, ready_status: &str, state: Value| {
        json!({"kind": "Pod", "metadata": meta("shop", name, name, owner),
            "spec": {"containers": [{"name": "web", "image": "localhost/shop:v1"}]},
            "status": {"phase": "Running", "conditions": ready(ready_status, "containers are not ready"),
                "containerStatuses": [{"name": "web", "ready": ready_status == "True", "state": state}]}})
    };
    world.pods.push(pod("web-1-a", "6", "True", json!({"running": {}})));
    let stuck = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    let second = if web_ready < 2 { ("False", stuck) } else { ("True", json!({"running": {}})) };
    world.pods.push(pod("web-1-b", "6", second.0, second.1));
    world.pods.push(pod("store-0", "4", "True", json!({"running": {}})));
    world.pods.push(pod("stranger", "9", "True", json!({"running": {}})));
    world
}

fn rendered(world: &World, wide: bool) -> String {
    render(&build(world), NOW.parse().expect("a time"), wide)
}

#[test]
fn what_is_suspended_is_not_ill() {
    let object = |suspended: bool, ready: &str| {
        engine_node(
            &json!({"kind": "Kustomization", "metadata": {"name": "shop", "generation": 2}, "spec": {"suspend": suspended},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready, "message": "m"}]}}),
        )
    };
    assert_eq!(
        (object(false, "True").health, object(true, "True").health),
        (State::Progressing, State::Healthy)
    );
    assert_eq!(object(true, "True").message, "is suspended");
    assert_eq!(object(true, "False").health, State::Failed, "what was amiss before still is");
}

#[test]
fn a_healthy_application_is_a_tree() {
    let world = world(2);
    // The ConfigMap of the inventory is gone.
    expect![[r#"
        APP                             READY   HEALTH    REVISION        AGE   MESSAGE
        GitRepository gitops/shop       True    Healthy   main@01234567   5m
        └─ Kustomization gitops/shop    True    Healthy   main@01234567   5m
           ├─ Deployment shop/web       2/2     Healthy   3               5m
           │  ├─ Pod web-1-a            1/1     Healthy                   5m
           │  └─ Pod web-1-b            1/1     Healthy                   5m
           ├─ StatefulSet shop/store    1/1     Healthy   7d9c            5m
           │  └─ Pod store-0            1/1     Healthy                   5m
           └─ ConfigMap shop/settings           Missing                         was applied and is gone
    "#]]
    .assert_eq(&rendered(&world, false));
    assert_eq!(worst(&build(&world)), State::Missing);
}

#[test]
fn what_a_new_revision_takes_away_is_not_missed() {
    let mut world = world(2);
    for condition in world.kustomizations[0]["status"]["conditions"].as_array_mut().expect("conditions") {
        condition["status"] = "Unknown".into();
    }
    let shown = rendered(&world, false);
    assert!(shown.contains("is being replaced or removed"), "{shown}");
    assert_eq!(worst(&build(&world)), State::Progressing);
}

#[test]
fn an_unknown_kind_is_not_told_to_be_gone() {
    let mut world = world(2);
    world.kustomizations[0]["status"]["inventory"]["entries"] =
        json!([{"id": "shop_w_example.org_Widget", "v": "v1"}]);
    world.unknown.insert(("example.org".into(), "Widget".into()));
    let shown = rendered(&world, true);
    assert!(shown.contains("no matches for kind \"Widget\" in version \"example.org/v1\""), "{shown}");
    assert!(!shown.contains("is gone"), "{shown}");
}

#[test]
fn a_failed_job_leads_to_the_log_of_its_pod() {
    let mut world = World::default();
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("shop", "once", "j", ""),
        "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}]}});
    add(&mut world, job);
    world.kustomizations.push(json!({"kind": "Kustomization", "metadata": meta("gitops", "shop", "2", ""),
        "status": {"conditions": ready("False", "health check failed"), "inventory": {"entries": [{"id": "shop_once_batch_Job", "v": "v1"}]}}}));
    let next = |world: &World| crate::explain::next_steps(&build(world));
    assert_eq!(next(&world), ["kedge describe -n shop job once"], "its pods are gone");
    for name in ["once-a", "once-b"] {
        world.pods.push(json!({"kind": "Pod", "metadata": meta("shop", name, name, "j"), "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}}));
    }
    assert_eq!(next(&world), ["kedge logs -n shop once-a", "kedge logs -n shop once-b"]);
    assert!(rendered(&world, false).contains("c: it ended with code 3"));
}

#[test]
fn wide_shows_what_does_not_run_as_well() {
    expect![[r#"
        APP                             READY   HEALTH    REVISION        AGE   IMAGE               MESSAGE
        GitRepository gitops/shop       True    Healthy   main@01234567   5m
        └─ Kustomization gitops/shop    True    Healthy   main@01234567   5m
           ├─ Deployment shop/web       2/2     Healthy   3               5m    localhost/shop:v1
           │  ├─ Pod web-1-a            1/1     Healthy                   5m    localhost/shop:v1
           │  └─ Pod web-1-b            1/1     Healthy                   5m    localhost/shop:v1
           ├─ StatefulSet shop/store    1/1     Healthy   7d9c            5m    localhost/shop:v1
           │  └─ Pod store-0            1/1     Healthy                   5m    localhost/shop:v1
           ├─ ConfigMap shop/settings           Missing                                             was applied and is gone
           └─ Service shop/web                  Healthy                   5m
    "#]].assert_eq(&rendered(&world(2), true));
}

#[test]
fn trouble_is_told_where_it_is() {
    expect![[r#"
        APP                             READY   HEALTH        REVISION        AGE   MESSAGE
        GitRepository gitops/shop       True    Healthy       main@01234567   5m
        └─ Kustomization gitops/shop    True    Healthy       main@01234567   5m
           ├─ Deployment shop/web       1/2     Progressing   3               5m    1 of 2 replicas are available
           │  ├─ Pod web-1-a            1/1     Healthy                       5m
           │  └─ Pod web-1-b            0/1     Failed                        5m    web: ErrImagePull: not found
           ├─ StatefulSet shop/store    1/1     Healthy       7d9c            5m
           │  └─ Pod store-0            1/1     Healthy                       5m
           └─ ConfigMap shop/settings           Missing                             was applied and is gone
    "#]].assert_eq(&rendered(&world(1), false));
}

#[test]
fn a_refused_revision_is_a_failure_and_a_lost_source_shows() {
    let mut world = world(2);
    world.sources.clear();
    world.kustomizations[0]["status"]["conditions"] = ready("False", "a/kustomization.yaml: no such file");
    world.objects.clear();
    world.kustomizations[0]["status"]["inventory"] = json!({});
    expect![[r#"
        APP                         READY   HEALTH   REVISION        AGE   MESSAGE
        Kustomization gitops/shop   False   Failed   main@01234567   5m    a/kustomization.yaml: no such file
    "#]]
    .assert_eq(&rendered(&world, false));
}

#[test]
fn the_tree_is_json() {
    let roots = build(&world(2));
    let json = serde_json::to_value(&roots).expect("json");
    assert_eq!(json[0]["children"][0]["children"][0]["kind"], "Deployment");
    assert_eq!(json[0]["children"][0]["children"][0]["children"][0]["ready"], "1/1");
    assert_eq!(json[0]["health"], "Healthy");
}

#[test]
fn a_pod_that_ends_as_it_should_is_no_trouble() {
    let mut world = world(2);
    world.pods[0]["metadata"]["deletionTimestamp"] = NOW.into();
    world.kustomizations[0]["status"]["inventory"]["entries"] =
        json!([{"id": "shop_web_apps_Deployment", "v": "v1"}]);
    assert_eq!(worst(&build(&world)), State::Terminating);
}
