//! The API's machinery, beside the original's in the same run: the same requests, the same clients, one disk. What is
//! measured of kedge is the whole server with its controllers and its scheduler, so that the original has its own beside it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Cluster;
use testkit::api::Api;

use crate::api::runtime;
use crate::idle::pss_mib;
use crate::load::{Load, join_all, load};
use crate::original::Original;
use crate::{Row, percentile, wire};

const PODS: usize = 10_000;
const MAPS: usize = 100_000;
const WATCHERS: usize = 1000;
const EVENTS: usize = 50;
const WRITERS: usize = 64;
const NAMESPACE: &str = "/api/v1/namespaces/bench";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON: &str = "application/json";

/// One server under measurement: its numbers in the order of [`WHAT`].
struct Numbers {
    rows: Vec<(f64, String)>,
    /// How long its two long lists are.
    lengths_bytes: Vec<usize>,
}

/// What is measured, what a better number is, and how much better it is to be.
const WHAT: &[(&str, Better, &str)] = &[
    ("Pod creates of 2.3 KB, 64 clients", Better::More, "≥ 5 ×"),
    ("memory for 10,000 Pods (PSS)", Better::Less, "≤ a fifth"),
    ("single gets, 16 clients", Better::More, ""),
    ("ConfigMap updates, 16 clients", Better::More, "≥ 5 ×"),
    ("server-side applies, 16 clients", Better::More, "≥ 5 ×"),
    ("custom objects created, 64 clients", Better::More, "≥ 5 ×"),
    ("pages of 500 Pods, JSON, 4 clients", Better::More, "≥ 10 ×"),
    ("pages of 500 Pods, protobuf, 4 clients", Better::More, "≥ 10 ×"),
    ("10,000 Pods at once, JSON", Better::Less, "≥ 10 ×"),
    ("10,000 Pods at once, protobuf", Better::Less, "≥ 10 ×"),
    ("one event to 1,000 watchers, p99", Better::Less, ""),
    ("start-up with 100,000 objects", Better::Less, ""),
];

#[derive(Clone, Copy, PartialEq)]
enum Better {
    More,
    Less,
}

pub fn run(executable: &Path) -> Vec<Row> {
    let mut cluster = Cluster::start(executable);
    let pids = vec![cluster.server_pid()];
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let mut ours = measure("kedge", &api, &pids);
    cluster.kill();
    cluster.launch();
    ours.rows.push(seconds(cluster.started_in));
    let theirs = Original::start(cluster.folder()).map(|mut original| {
        let mut numbers = measure("the original", &original.api(), &original.pids());
        let name = original.name();
        numbers.rows.push(seconds(original.restart()));
        (name, numbers)
    });
    let mut rows = Vec::new();
    for (at, (what, better, aim)) in WHAT.iter().enumerate() {
        let (own, shown) = &ours.rows[at];
        let beside = match &theirs {
            Some((name, theirs)) => {
                let (other, shown) = &theirs.rows[at];
                let ratio = if *better == Better::More { own / other } else { other / own };
                format!("{name}: {shown} → {ratio:.1} × better")
            }
            None => "kube-apiserver is not installed".to_owned(),
        };
        rows.push(Row::new(*what, shown.clone(), *aim, beside));
    }
    for (form, length_bytes) in ["JSON", "protobuf"].iter().zip(&ours.lengths_bytes) {
        let (_, took) = seconds(runtime().block_on(wire::alone(*length_bytes)));
        let what = format!("{:.1} MB from memory, with nothing behind", *length_bytes as f64 / 1e6);
        rows.push(Row::new(
            what,
            took,
            "",
            format!("what the list in {form} takes by TLS and the client alone"),
        ));
    }
    rows
}

fn seconds(took: Duration) -> (f64, String) {
    (took.as_secs_f64(), format!("{:.2} s", took.as_secs_f64()))
}

fn measure(who: &str, api: &Api, pids: &[u32]) -> Numbers {
    let (mut numbers, mut lengths_bytes) = (Vec::new(), Vec::new());
    let memory = || pids.iter().map(|pid| pss_mib(*pid)).sum::<f64>();
    runtime().block_on(async {
        prepare(api).await;
        let step = |text: &str| eprintln!("   {who}: {text}");
        step("Pods");
        let before = at_rest(memory).await;
        numbers.push(rate(pods(api).await));
        let held = at_rest(memory).await - before;
        numbers.push((held.max(0.1), format!("{held:.0} MiB")));
        step("gets, updates, applies");
        numbers.push(rate(gets(api).await));
        numbers.push(rate(updates(api).await));
        numbers.push(rate(applies(api).await));
        numbers.push(rate(customs(api).await));
        step("lists");
        for accept in [JSON, PROTOBUF] {
            numbers.push(rate(pages(api, accept).await));
        }
        for accept in [JSON, PROTOBUF] {
            let (took, length_bytes) = whole(api, accept).await;
            numbers.push(seconds(took));
            lengths_bytes.push(length_bytes);
        }
        step("watchers");
        numbers.push(fan_out(api).await);
        step("100,000 objects");
        fill(api).await;
    });
    Numbers { rows: numbers, lengths_bytes }
}

/// What a server holds on to: collectors and allocators give back a while after a load what it left behind.
async fn at_rest(memory: impl Fn() -> f64) -> f64 {
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    let mut last = f64::INFINITY;
    for _ in 0..12 {
        looks.tick().await;
        let now = memory();
        if (now - last).abs() < last * 0.01 {
            return now;
        }
        last = now;
    }
    last
}

fn rate(mut load: Load) -> (f64, String) {
    (load.per_second, load.shown())
}

fn unique() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

async fn prepare(api: &Api) {
    let mut connection = api.connect().await;
    let group = "bench.kedge.example";
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 1000},
                "numbers": {"type": "array", "items": {"type": "integer", "minimum": 0}}}}}}}}]}});
    for (path, object) in [
        (
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}),
        ),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition),
        (
            "/api/v1/namespaces/bench/serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        ),
    ] {
        // What is there already, as the default account may be, is as good.
        let answer = connection.send("POST", path, object.to_string()).await;
        drop(http_body_util::BodyExt::collect(answer.into_body()).await);
    }
    // The kind is served a moment after its definition.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        let answer = connection.send("GET", &things(), "").await;
        let served = answer.status().is_success();
        drop(http_body_util::BodyExt::collect(answer.into_body()).await);
        if served {
            return;
        }
        assert!(Instant::now() < deadline, "the custom kind is not served");
    }
}

fn things() -> String {
    "/apis/bench.kedge.example/v1/namespaces/bench/things".to_owned()
}

/// A Pod of about 2.3 KB that nobody schedules.
fn pod(name: &str) -> Value {
    let env: Vec<Value> =
        (0..24).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "v".repeat(40)})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}}, "spec": {
        "schedulerName": "nobody", "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "localhost/none:1", "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

/// Exactly [`PODS`] of them, so that what follows is the same for both.
async fn pods(api: &Api) -> Load {
    let next = AtomicU64::new(0);
    let started = Instant::now();
    let latencies = std::sync::Mutex::new(Vec::new());
    let clients = (0..WRITERS).map(|_| async {
        let mut connection = api.connect().await;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= PODS as u64 {
                return;
            }
            let body = pod(&format!("pod-{number:05}")).to_string();
            let started = Instant::now();
            connection.done("POST", &format!("{NAMESPACE}/pods"), body).await;
            latencies.lock().expect("not poisoned").push(started.elapsed().as_secs_f64() * 1000.0);
        }
    });
    join_all(clients.collect()).await;
    let per_second = PODS as f64 / started.elapsed().as_secs_f64();
    Load { per_second, latencies_ms: latencies.into_inner().expect("not poisoned") }
}

async fn gets(api: &Api) -> Load {
    load(16, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        while Instant::now() < end {
            let path = format!("{NAMESPACE}/pods/pod-{:05}", unique() % PODS as u64);
            let started = Instant::now();
            connection.done("GET", &path, "").await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

async fn updates(api: &Api) -> Load {
    load(16, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        let name = format!("update-{}", unique());
        let map = |n: u64| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": n.to_string()}});
        connection.done("POST", &format!("{NAMESPACE}/configmaps"), map(0).to_string()).await;
        while Instant::now() < end {
            let body = map(unique()).to_string();
            let started = Instant::now();
            connection.done("PUT", &format!("{NAMESPACE}/configmaps/{name}"), body).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

/// Templates, so that it is the API that works and not controllers.
async fn applies(api: &Api) -> Load {
    load(16, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        let name = format!("apply-{}", unique());
        let path = format!("/api/v1/namespaces/bench/podtemplates/{name}?fieldManager=bench&force=true");
        while Instant::now() < end {
            let labels = json!({"app": name});
            let body = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": {
                "metadata": {"labels": labels}, "spec": {
                    "containers": [{"name": "c", "image": format!("localhost/none:{}", unique())}]}}});
            let headers = [("content-type", "application/apply-patch+yaml")];
            let started = Instant::now();
            connection.done_with("PATCH", &path, &headers, body.to_string()).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

async fn customs(api: &Api) -> Load {
    load(WRITERS, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        while Instant::now() < end {
            let thing = json!({"apiVersion": "bench.kedge.example/v1", "kind": "Thing", "metadata": {"name": format!("t-{}", unique())},
                "spec": {"text": "x".repeat(500), "numbers": [1, 2, 3]}});
            let started = Instant::now();
            connection.done("POST", &things(), thing.to_string()).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

async fn pages(api: &Api, accept: &str) -> Load {
    load(4, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        while Instant::now() < end {
            let started = Instant::now();
            connection
                .done_with("GET", &format!("{NAMESPACE}/pods?limit=500"), &[("accept", accept)], "")
                .await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

/// How long all of them take, and how many bytes they are.
async fn whole(api: &Api, accept: &str) -> (Duration, usize) {
    let mut connection = api.connect().await;
    let (mut times, mut length_bytes) = (Vec::new(), 0);
    for _ in 0..5 {
        let started = Instant::now();
        let bytes =
            connection.done_with("GET", &format!("{NAMESPACE}/pods"), &[("accept", accept)], "").await;
        times.push(started.elapsed().as_secs_f64());
        assert!(bytes.len() > PODS * 500, "{} bytes are not {PODS} Pods", bytes.len());
        length_bytes = bytes.len();
    }
    (Duration::from_secs_f64(percentile(&mut times, 0.5)), length_bytes)
}

/// From the moment an update is sent until each of many watchers has it.
async fn fan_out(api: &Api) -> (f64, String) {
    let mut writer = api.connect().await;
    let map = |n: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}, "data": {"n": format!("event-{n}")}});
    writer.done("POST", &format!("{NAMESPACE}/configmaps"), map(0).to_string()).await;
    let path =
        format!("{NAMESPACE}/configmaps?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dwatched");
    let (sent, delays) = (std::sync::Mutex::new(Vec::new()), std::sync::Mutex::new(Vec::new()));
    let (standing, news) = (AtomicU64::new(0), tokio::sync::Notify::new());
    let watchers = (0..WATCHERS).map(|_| async {
        let mut connection = api.connect().await;
        let mut lines = connection.lines(&path).await;
        // What is there already comes first.
        lines.next().await.expect("the watch stands");
        standing.fetch_add(1, Ordering::Relaxed);
        news.notify_one();
        for n in 0..EVENTS {
            let line = lines.next().await.expect("the watch goes on");
            let now = Instant::now();
            let sent: Instant = sent.lock().expect("not poisoned")[n];
            assert!(line.len() > 10);
            delays.lock().expect("not poisoned").push((now - sent).as_secs_f64() * 1000.0);
            news.notify_one();
        }
    });
    let watching = join_all(watchers.collect());
    let writing = async {
        while standing.load(Ordering::Relaxed) < WATCHERS as u64 {
            news.notified().await;
        }
        for n in 1..=EVENTS {
            sent.lock().expect("not poisoned").push(Instant::now());
            writer.done("PUT", &format!("{NAMESPACE}/configmaps/watched"), map(n).to_string()).await;
            // Each event by itself: it is the fan-out that is measured, not a queue.
            while delays.lock().expect("not poisoned").len() < n * WATCHERS {
                news.notified().await;
            }
        }
    };
    tokio::join!(watching, writing);
    let mut delays = delays.into_inner().expect("not poisoned");
    let (p50, p99) = (percentile(&mut delays, 0.5), percentile(&mut delays, 0.99));
    (p99, format!("{p99:.0} ms (p50 {p50:.0})"))
}

/// Objects enough that reading them at the start takes time.
async fn fill(api: &Api) {
    let next = AtomicU64::new(0);
    let value = "x".repeat(500);
    let clients = (0..WRITERS).map(|_| async {
        let mut connection = api.connect().await;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= MAPS as u64 {
                return;
            }
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m-{number}")}, "data": {"v": value}});
            connection.done("POST", &format!("{NAMESPACE}/configmaps"), map.to_string()).await;
        }
    });
    join_all(clients.collect()).await;
}
