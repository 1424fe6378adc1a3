//! Priority and fairness over a whole server in one process: the objects that say who waits for whom, and requests that do.

mod world;

use std::time::{Duration, Instant};

use apiserver::RequestLimits;
use apiserver::auth::Identity;
use apiserver::http::body::{Body, read, stream};
use bytes::Bytes;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use world::{World, master};

const API: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LIMIT: Duration = Duration::from_secs(20);
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) => assert!(begun.elapsed() < LIMIT, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn level(name: &str, shares: u32, response: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares,
        "borrowingLimitPercent": 0, "limitResponse": response}}})
}

fn queue(queues: u32, hand: u32, length: u32) -> Value {
    json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}})
}

fn schema(name: &str, level: &str, precedence: u32, users: &[&str]) -> Value {
    let subjects: Vec<Value> = users.iter().map(|u| json!({"kind": "User", "user": {"name": u}})).collect();
    json!({"metadata": {"name": name}, "spec": {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence,
        "distinguisherMethod": {"type": "ByUser"}, "rules": [{"subjects": subjects,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
}

/// A world where `jane` and `joe`, who may do everything, have a level with one seat to themselves.
async fn narrow(response: Value) -> World {
    narrowed(World::seating(10).await, response).await
}

async fn narrowed(world: World, response: Value) -> World {
    for (name, user) in [("jane", "jane"), ("joe", "joe")] {
        let subject = json!({"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"});
        let role =
            json!({"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"});
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]});
        world.grant(&format!("{}/clusterrolebindings", world::RBAC), binding).await;
    }
    world.grant(&format!("{API}/prioritylevelconfigurations"), level("narrow", 1, response)).await;
    world.grant(&format!("{API}/flowschemas"), schema("narrow", "narrow", 50, &["jane", "joe"])).await;
    world
}

fn jane() -> Identity {
    Identity::new("jane", &[])
}

/// A request whose body comes when the test says so: it holds its seat until then.
struct Slow {
    body: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<Response<Body>>,
}

impl Slow {
    fn begin(world: &World, who: &Identity) -> Self {
        use futures::StreamExt;
        let (body, coming) = mpsc::unbounded();
        let request = Request::post(MAPS)
            .header("content-type", "application/json")
            .body(stream(coming.map(Ok)))
            .expect("a request");
        let answer = tokio::spawn(world.server.handle(request, Some(who.clone())));
        Self { body, answer }
    }

    /// Its body comes, and it is answered.
    async fn end(self, name: &str) -> u16 {
        let body = json!({"metadata": {"name": name}}).to_string();
        // One that was refused reads no more of it.
        drop(self.body.unbounded_send(body.into()));
        drop(self.body);
        self.answer.await.expect("an answer").status().as_u16()
    }
}

async fn raw(world: &World, who: &Identity, method: &str, path: &str) -> (u16, HeaderMap, String) {
    let request =
        Request::builder().method(method).uri(path).body(apiserver::http::body::full("")).expect("a request");
    let (parts, body) = world.server.handle(request, Some(who.clone())).await.into_parts();
    let Ok(bytes) = read(body, 1 << 24).await else { panic!("{path}: no body") };
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

async fn metric(world: &World, name: &str, labels: &[&str]) -> f64 {
    let (_, _, text) = raw(world, &master(), "GET", "/metrics").await;
    let name = format!("apiserver_flowcontrol_{name}{{");
    let lines = text.lines().filter(|l| l.starts_with(&name) && labels.iter().all(|label| l.contains(label)));
    lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

async fn waiting(world: &World, count: f64) {
    until("requests that wait", async || {
        let now = metric(world, "current_inqueue_requests", &["priority_level=\"narrow\""]).await;
        if now == count { Ok(()) } else { Err(format!("{now} and not {count}")) }
    })
    .await;
}

async fn running(world: &World, count: f64) {
    until("requests that run", async || {
        let now = metric(world, "current_executing_requests", &["priority_level=\"narrow\""]).await;
        if now == count { Ok(()) } else { Err(format!("{now} and not {count}")) }
    })
    .await;
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn every_cluster_begins_with_the_originals_objects() {
    let world = World::new().await;
    let (_, levels) = world.json("GET", &format!("{API}/prioritylevelconfigurations"), Value::Null).await;
    let (_, schemas) = world.json("GET", &format!("{API}/flowschemas"), Value::Null).await;
    let told = |list: &Value, about: fn(&Value) -> String| -> Vec<String> {
        list["items"].as_array().expect("a list").iter().map(about).collect()
    };
    let shares = told(&levels, |l| {
        let own = if l["spec"]["limited"].is_null() { &l["spec"]["exempt"] } else { &l["spec"]["limited"] };
        format!(
            "{} {} {}",
            l["metadata"]["name"].as_str().unwrap_or_default(),
            own["nominalConcurrencyShares"],
            own["lendablePercent"]
        )
    });
    let original = [
        "catch-all 5 0",
        "exempt 0 0",
        "global-default 20 50",
        "leader-election 10 0",
        "node-high 40 25",
        "system 30 33",
        "workload-high 40 50",
        "workload-low 100 90",
    ];
    assert_eq!(shares, original);
    let leads = told(&schemas, |s| {
        let spec = &s["spec"];
        format!(
            "{} {} {}",
            s["metadata"]["name"].as_str().unwrap_or_default(),
            spec["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default(),
            spec["matchingPrecedence"]
        )
    });
    let original = [
        "catch-all catch-all 10000",
        "exempt exempt 1",
        "global-default global-default 9900",
        "kube-controller-manager workload-high 800",
        "kube-scheduler workload-high 800",
        "kube-system-service-accounts workload-high 900",
        "probes exempt 2",
        "service-accounts workload-low 9000",
        "system-leader-election leader-election 100",
        "system-node-high node-high 400",
        "system-nodes system 500",
    ];
    assert_eq!(leads, original);
    for object in levels["items"].as_array().into_iter().chain(schemas["items"].as_array()).flatten() {
        assert_eq!(object["metadata"]["annotations"][AUTOUPDATE], "true", "{object}");
        assert_eq!(object["metadata"]["generation"], 1, "{object}");
    }
    for schema in schemas["items"].as_array().expect("a list") {
        let condition = &schema["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&json!("Dangling"), &json!("False"), &json!("Found")),
            "{schema}"
        );
    }
    let (_, _, ready) = raw(&world, &master(), "GET", "/readyz?verbose").await;
    assert!(ready.contains("[+]poststarthook/priority-and-fairness-config-producer ok"), "{ready}");
}

#[tokio::test]
async fn what_is_ours_is_kept_and_what_was_taken_over_is_left() {
    let world = World::new().await;
    let low = format!("{API}/prioritylevelconfigurations/workload-low");
    let high = format!("{API}/prioritylevelconfigurations/workload-high");
    let shares = |n: u32| json!({"spec": {"limited": {"nominalConcurrencyShares": n}}});
    let mut taken = shares(77);
    taken["metadata"] = json!({"annotations": {AUTOUPDATE: "false"}});
    assert_eq!(world.json("PATCH", &high, taken).await.0, 200);
    assert_eq!(world.json("PATCH", &low, shares(77)).await.0, 200);
    assert_eq!(
        world.json("DELETE", &format!("{API}/flowschemas/service-accounts"), Value::Null).await.0,
        200
    );
    until("the server's own", async || {
        let (_, low) = world.json("GET", &low, Value::Null).await;
        let (code, _) = world.json("GET", &format!("{API}/flowschemas/service-accounts"), Value::Null).await;
        match low["spec"]["limited"]["nominalConcurrencyShares"] == 100 && code == 200 {
            true => Ok(()),
            false => Err(format!("{code} {low}")),
        }
    })
    .await;
    let (_, high) = world.json("GET", &high, Value::Null).await;
    assert_eq!(high["spec"]["limited"]["nominalConcurrencyShares"], 77, "{high}");
}

#[tokio::test]
async fn a_schema_says_when_its_level_is_missing() {
    let world = World::new().await;
    world.grant(&format!("{API}/flowschemas"), schema("lost", "to-come", 60, &["jane"])).await;
    let condition = async |status: &str| {
        until("a condition", async || {
            let (_, schema) = world.json("GET", &format!("{API}/flowschemas/lost"), Value::Null).await;
            let condition = schema["status"]["conditions"][0].clone();
            if condition["status"] == status { Ok(condition) } else { Err(schema.to_string()) }
        })
        .await
    };
    let told = condition("True").await;
    let why = "This FlowSchema references the PriorityLevelConfiguration object named \"to-come\" but there is no such object";
    assert_eq!((&told["reason"], &told["message"]), (&json!("NotFound"), &json!(why)));
    // One that leads nowhere leads nobody.
    let (_, headers, _) = raw(&world, &jane(), "GET", "/version").await;
    let (_, default) = world.json("GET", &format!("{API}/flowschemas/global-default"), Value::Null).await;
    assert_eq!(default["metadata"]["uid"], text(&headers, "x-kubernetes-pf-flowschema-uid"));
    world.grant(&format!("{API}/prioritylevelconfigurations"), level("to-come", 1, queue(1, 1, 1))).await;
    assert_eq!(condition("False").await["reason"], "Found");
    let (_, headers, _) = raw(&world, &jane(), "GET", "/version").await;
    let (_, lost) = world.json("GET", &format!("{API}/flowschemas/lost"), Value::Null).await;
    assert_eq!(lost["metadata"]["uid"], text(&headers, "x-kubernetes-pf-flowschema-uid"));
}

#[tokio::test]
async fn answers_say_what_the_request_was_taken_for() {
    let world = narrow(queue(1, 1, 1)).await;
    let uids = async |schema: &str, level: &str| {
        let (_, schema) = world.json("GET", &format!("{API}/flowschemas/{schema}"), Value::Null).await;
        let (_, level) =
            world.json("GET", &format!("{API}/prioritylevelconfigurations/{level}"), Value::Null).await;
        [&schema, &level].map(|o| o["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    };
    let node = Identity::new("system:node:n", &["system:nodes"]);
    for (who, method, path, schema, level) in [
        (&jane(), "GET", MAPS, "narrow", "narrow"),
        // Also where it is refused.
        (&jane(), "GET", "/api/v1/nothing", "narrow", "narrow"),
        (&master(), "GET", MAPS, "exempt", "exempt"),
        (&Identity::anonymous(), "GET", "/livez", "probes", "exempt"),
        (
            &node,
            "GET",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
            "system-node-high",
            "node-high",
        ),
        (&node, "GET", MAPS, "system-nodes", "system"),
    ] {
        let (code, headers, _) = raw(&world, who, method, path).await;
        let told = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
            .map(|n| text(&headers, n).to_owned());
        assert_eq!(told, uids(schema, level).await, "{code} {} {path}", who.username);
    }
    // What lasts as long as whoever asks wants is not counted.
    let (_, headers, _) = raw(&world, &jane(), "GET", "/api/v1/namespaces/default/pods/x/log").await;
    assert_eq!(text(&headers, "x-kubernetes-pf-flowschema-uid"), "");
}

#[tokio::test]
async fn without_a_seat_a_request_is_refused_in_the_originals_words_and_others_go_on() {
    let world = narrow(json!({"type": "Reject"})).await;
    let slow = Slow::begin(&world, &jane());
    running(&world, 1.0).await;
    let (code, headers, body) = raw(&world, &jane(), "GET", MAPS).await;
    assert_eq!((code, body.as_str()), (429, "Too many requests, please try again later.\n"));
    assert_eq!(text(&headers, "retry-after"), "1");
    assert_eq!(text(&headers, "content-type"), "text/plain; charset=utf-8");
    assert_ne!(text(&headers, "x-kubernetes-pf-flowschema-uid"), "");
    assert_ne!(text(&headers, "audit-id"), "");
    let labels = ["flow_schema=\"narrow\"", "reason=\"concurrency-limit\""];
    assert_eq!(metric(&world, "rejected_requests_total", &labels).await, 1.0);
    // Nobody else is concerned.
    let node = Identity::new("system:node:n", &["system:nodes"]);
    assert_eq!(raw(&world, &Identity::new("jill", &[]), "GET", "/version").await.0, 200);
    assert_eq!(raw(&world, &node, "GET", "/version").await.0, 200);
    assert_eq!(slow.end("a").await, 201);
    assert_eq!(raw(&world, &jane(), "GET", MAPS).await.0, 200);
}

#[tokio::test]
async fn requests_wait_their_turn_and_who_goes_leaves_the_queue() {
    let world = narrow(queue(1, 1, 2)).await;
    let first = Slow::begin(&world, &jane());
    running(&world, 1.0).await;
    let second = Slow::begin(&world, &jane());
    waiting(&world, 1.0).await;
    let third = Slow::begin(&world, &Identity::new("joe", &[]));
    waiting(&world, 2.0).await;
    let (code, ..) = raw(&world, &jane(), "GET", MAPS).await;
    assert_eq!(code, 429, "the queue is full");
    assert_eq!(metric(&world, "rejected_requests_total", &["narrow", "reason=\"queue-full\""]).await, 1.0);
    let (_, _, dump) = raw(
        &world,
        &master(),
        "GET",
        "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1",
    )
    .await;
    let lines: Vec<Vec<&str>> = dump
        .lines()
        .filter(|l| l.starts_with("narrow,"))
        .map(|l| l.split(',').map(str::trim).collect())
        .collect();
    let places: Vec<_> =
        lines.iter().map(|cells| (cells[2], cells[3], cells[4], cells[10], cells[11], cells[16])).collect();
    assert_eq!(
        places,
        [
            ("-1", "-1", "jane", "jane", "create", "configmaps"),
            ("0", "0", "jane", "jane", "create", "configmaps"),
            ("0", "1", "joe", "joe", "create", "configmaps"),
        ],
        "{dump}"
    );
    let (_, _, dump) =
        raw(&world, &master(), "GET", "/debug/api_priority_and_fairness/dump_priority_levels").await;
    let line: Vec<&str> =
        dump.lines().find(|l| l.starts_with("narrow,")).expect("a line").split(',').map(str::trim).collect();
    assert_eq!(line[1..6], ["1", "false", "false", "2", "1"], "{dump}");
    let (_, _, dump) = raw(&world, &master(), "GET", "/debug/api_priority_and_fairness/dump_queues").await;
    let line: Vec<&str> =
        dump.lines().find(|l| l.starts_with("narrow,")).expect("a line").split(',').map(str::trim).collect();
    assert_eq!(line[1..5], ["0", "2", "1", "1"], "{dump}");
    assert_eq!(raw(&world, &master(), "GET", "/debug/api_priority_and_fairness/other").await.0, 404);
    assert_eq!(
        raw(&world, &Identity::new("jill", &[]), "GET", "/debug/api_priority_and_fairness/dump_queues")
            .await
            .0,
        403
    );
    // The second has had enough: the third is next.
    second.answer.abort();
    waiting(&world, 1.0).await;
    assert_eq!(metric(&world, "rejected_requests_total", &["narrow", "reason=\"cancelled\""]).await, 1.0);
    assert_eq!(first.end("first").await, 201);
    waiting(&world, 0.0).await;
    assert_eq!(third.end("third").await, 201);
    running(&world, 0.0).await;
    assert_eq!(
        metric(&world, "request_wait_duration_seconds_count", &["narrow", "execute=\"true\""]).await,
        2.0
    );
}

#[tokio::test]
async fn nobody_waits_longer_than_a_quarter_of_a_requests_time() {
    let limits = RequestLimits { seats: Some(10), timeout: Duration::from_secs(4) };
    let world = narrowed(World::limited(limits).await, queue(1, 1, 2)).await;
    let slow = Slow::begin(&world, &jane());
    running(&world, 1.0).await;
    let begun = Instant::now();
    let (code, headers, _) = raw(&world, &jane(), "GET", MAPS).await;
    let waited = begun.elapsed();
    assert_eq!((code, text(&headers, "retry-after")), (429, "1"));
    assert!((0.9..3.5).contains(&waited.as_secs_f64()), "{waited:?}");
    assert_eq!(metric(&world, "rejected_requests_total", &["narrow", "reason=\"time-out\""]).await, 1.0);
    // The other does not come to its end either.
    let answer = slow.answer.await.expect("an answer");
    assert_eq!((answer.status().as_u16(), begun.elapsed().as_secs() < 15), (504, true));
}

#[tokio::test]
async fn a_change_of_the_configuration_holds_from_the_next_request_on() {
    let world = narrow(queue(1, 1, 10)).await;
    let first = Slow::begin(&world, &jane());
    running(&world, 1.0).await;
    let second = Slow::begin(&world, &jane());
    waiting(&world, 1.0).await;
    let wider = json!({"spec": {"limited": {"nominalConcurrencyShares": 500}}});
    assert_eq!(world.json("PATCH", &format!("{API}/prioritylevelconfigurations/narrow"), wider).await.0, 200);
    running(&world, 2.0).await;
    assert!(metric(&world, "nominal_limit_seats", &["\"narrow\""]).await >= 6.0);
    // Whoever is in a level that is deleted comes to their end, and the next one goes elsewhere.
    assert_eq!(
        world.json("DELETE", &format!("{API}/prioritylevelconfigurations/narrow"), Value::Null).await.0,
        200
    );
    assert_eq!(raw(&world, &jane(), "GET", MAPS).await.0, 200);
    assert_eq!((first.end("a").await, second.end("b").await), (201, 201));
}

#[tokio::test]
async fn a_watch_has_its_seat_until_it_has_begun() {
    let world = narrow(json!({"type": "Reject"})).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let request =
            Request::get(format!("{MAPS}?watch=1")).body(apiserver::http::body::full("")).expect("a request");
        let answer = world.server.handle(request, Some(jane())).await;
        assert_eq!(answer.status(), 200);
        assert_ne!(text(answer.headers(), "x-kubernetes-pf-flowschema-uid"), "");
        open.push(answer);
    }
    assert_eq!(raw(&world, &jane(), "GET", MAPS).await.0, 200);
}

#[tokio::test]
async fn a_level_borrows_what_others_do_not_need() {
    let world = World::seating(20).await;
    let mut free = level("free", 1, queue(1, 1, 50));
    free["spec"]["limited"].as_object_mut().expect("an object").remove("borrowingLimitPercent");
    world.grant(&format!("{API}/prioritylevelconfigurations"), free).await;
    world.grant(&format!("{API}/flowschemas"), schema("free", "free", 50, &["jane"])).await;
    let subject = json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"});
    let role =
        json!({"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"});
    world
        .grant(
            &format!("{}/clusterrolebindings", world::RBAC),
            json!({"metadata": {"name": "jane"}, "roleRef": role, "subjects": [subject]}),
        )
        .await;
    let mut slow = Vec::new();
    until("more seats than are its own", async || {
        if slow.len() < 10 {
            slow.push(Slow::begin(&world, &jane()));
        }
        let running = metric(&world, "current_executing_requests", &["priority_level=\"free\""]).await;
        if running >= 4.0 { Ok(()) } else { Err(format!("{running}")) }
    })
    .await;
    assert_eq!(metric(&world, "nominal_limit_seats", &["\"free\""]).await, 1.0);
    for (i, one) in slow.into_iter().enumerate() {
        assert_eq!(one.end(&format!("m{i}")).await, 201);
    }
}
