//! Far more than a server can serve, and beside it a node that renews its lease: what becomes of each. Clients speak
//! for users of their own by impersonation; the administrator whose certificate they show would wait for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::api::{Api, Streams};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const NODE: &[(&str, &str)] =
    &[("impersonate-user", "system:node:overload"), ("impersonate-group", "system:nodes")];
const RUNAWAY: &[(&str, &str)] = &[("impersonate-user", "runaway")];
const WATCHER: &[(&str, &str)] = &[("impersonate-user", "watcher")];
const CALM: &[(&str, &str)] = &[("impersonate-user", "calm")];
const LARGE: &str = "/api/v1/namespaces/flood/configmaps";
const SMALL: &str = "/api/v1/namespaces/calm/configmaps";
/// Nearly as large as an object may be.
const OBJECT_BYTES: usize = 1 << 20;
const OBJECTS: usize = 5;
/// Fewer than a connection may have.
const STREAMS: usize = 80;
/// Whoever has no answer by then hangs: a request has a minute, and a quarter of it to wait.
const PATIENCE: Duration = Duration::from_secs(40);
/// A runaway client that heeds nothing, but leaves the machine to the server.
const PAUSE: Duration = Duration::from_millis(20);
const RENEWAL_PERIOD: Duration = Duration::from_millis(50);

/// How much is asked at once, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub clients: usize,
    pub watchers: usize,
    /// Who ask for the large list and never read it.
    pub lazy: usize,
    pub duration: Duration,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of the runaway clients: answers by their code, and how many took longer than anybody waits.
    pub codes: BTreeMap<u16, u64>,
    pub hung: u64,
    pub broken: u64,
    /// Refusals that did not say when to come back.
    pub unsaid: u64,
    /// How many watched, and what they were told in all.
    pub watching: u64,
    pub events: u64,
    pub renewals_ms: Vec<f64>,
    pub failed_renewals: Vec<String>,
    pub memory_peak_bytes: u64,
}

fn headers<'a>(who: &[(&'a str, &'a str)], content_type: &'a str) -> Vec<(&'a str, &'a str)> {
    who.iter().copied().chain([("content-type", content_type)]).collect()
}

/// Resident memory of a process.
pub fn memory_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

fn large(number: u64) -> Value {
    let text = "x".repeat(OBJECT_BYTES - 1024);
    json!({"metadata": {"name": format!("large-{number}")}, "data": {"number": number.to_string(), "text": text}})
}

/// Makes what the clients ask for, and the rights to it.
pub async fn prepare(api: &Api) {
    let mut connection = api.connect().await;
    for namespace in ["flood", "calm"] {
        let body = json!({"metadata": {"name": namespace}}).to_string();
        connection.done("POST", "/api/v1/namespaces", body).await;
    }
    let subjects: Vec<Value> = ["runaway", "watcher", "calm"]
        .iter()
        .map(|name| json!({"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}))
        .collect();
    let role = json!({"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "overload"}, "roleRef": role, "subjects": subjects});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    connection.done("POST", path, binding.to_string()).await;
    for number in 0..OBJECTS as u64 {
        connection.done("POST", LARGE, large(number).to_string()).await;
    }
    connection.done("POST", SMALL, json!({"metadata": {"name": "news"}}).to_string()).await;
    let lease = json!({"metadata": {"name": "overload"}, "spec": {"holderIdentity": "overload", "leaseDurationSeconds": 40}});
    connection.done_with("POST", LEASE, &headers(NODE, "application/json"), lease.to_string()).await;
}

/// Renews the node's lease until then; how long each renewal took, in milliseconds, and what went wrong.
pub async fn renew(api: &Api, until: Instant) -> (Vec<f64>, Vec<String>) {
    let (mut taken_ms, mut failed) = (Vec::new(), Vec::new());
    let mut streams = api.connect_http2().await.expect("connects");
    let path = format!("{LEASE}/overload");
    let headers = headers(NODE, "application/merge-patch+json");
    let mut number = 0_u32;
    while Instant::now() < until {
        number += 1;
        let time = format!("2026-01-01T00:00:00.{number:06}Z");
        let body = json!({"spec": {"renewTime": time}}).to_string();
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, finished(&mut streams, "PATCH", &path, &headers, body)).await {
            Ok(Some((200, _))) => taken_ms.push(begun.elapsed().as_secs_f64() * 1000.0),
            other => failed.push(format!("{other:?}")),
        }
        tokio::time::sleep(RENEWAL_PERIOD).await;
    }
    (taken_ms, failed)
}

/// Sends a request and reads its answer: code, and whether it says when to come back.
async fn finished(
    streams: &mut Streams,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: String,
) -> Option<(u16, bool)> {
    let answer = streams.send(method, path, headers, body).await.ok()?;
    let told = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    drained(answer.into_body()).await.then_some(told)
}

/// Reads to the end, keeping nothing.
async fn drained(mut body: Incoming) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

async fn runaway(mut streams: Streams, number: u64, until: Instant, outcome: Arc<Mutex<Outcome>>) {
    let headers = headers(RUNAWAY, "application/json");
    for turn in number.. {
        if Instant::now() >= until {
            return;
        }
        let object = turn % OBJECTS as u64;
        let (method, path, body) = match turn % 8 {
            0 => ("PUT", format!("{LARGE}/large-{object}"), large(object).to_string()),
            1 | 2 => ("GET", LARGE.to_owned(), String::new()),
            3 => ("POST", SMALL.to_owned(), json!({"metadata": {"generateName": "r-"}}).to_string()),
            _ => ("GET", format!("{LARGE}/large-{object}"), String::new()),
        };
        let asking = finished(&mut streams, method, &path, &headers, body);
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let refused = {
            let mut outcome = outcome.lock().expect("not poisoned");
            match answer {
                Ok(Some((code, said))) => {
                    *outcome.codes.entry(code).or_default() += 1;
                    outcome.unsaid += u64::from(code == 429 && !said);
                    code == 429
                }
                Ok(None) => {
                    outcome.broken += 1;
                    return;
                }
                Err(_) => {
                    outcome.hung += 1;
                    return;
                }
            }
        };
        if refused {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Watches, and counts what it is told. Comes back when it is told to.
async fn watch(mut streams: Streams, until: Instant, begun: Arc<AtomicU64>, events: Arc<AtomicU64>) {
    let path = format!("{SMALL}?watch=1&fieldSelector=metadata.name%3Dnews");
    let mut body = loop {
        match streams.send("GET", &path, WATCHER, "").await {
            Ok(answer) if answer.status().is_success() => break answer.into_body(),
            Ok(answer) if answer.status().as_u16() == 429 && Instant::now() < until => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            _ => return,
        }
    };
    let until = tokio::time::Instant::from_std(until);
    let mut first = true;
    while let Ok(Some(Ok(_))) = tokio::time::timeout_at(until, body.frame()).await {
        begun.fetch_add(u64::from(std::mem::take(&mut first)), Ordering::Relaxed);
        events.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connections(api: &Api, streams: usize) -> Vec<Streams> {
    let mut out = Vec::new();
    for _ in 0..streams.div_ceil(STREAMS) {
        out.push(api.connect_http2().await.expect("connects"));
    }
    out
}

/// Asks for all of it at once, of the server that this process is.
pub async fn flood(api: &Api, pid: u32, flood: Flood) -> Outcome {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let (watching, events) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watched = connections(api, flood.watchers).await;
    let flooded = connections(api, flood.clients).await;
    let (mut tasks, mut watches) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    let all = flood.watchers as u64;
    let watchers_until = Instant::now() + PATIENCE + flood.duration;
    for number in 0..flood.watchers {
        let streams = watched[number / STREAMS].clone();
        watches.spawn(watch(streams, watchers_until, Arc::clone(&watching), Arc::clone(&events)));
    }
    while watching.load(Ordering::Relaxed) < all && Instant::now() < watchers_until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let until = Instant::now() + flood.duration;
    let mut lazy = Vec::new();
    for _ in 0..flood.lazy {
        let mut streams = api.connect_http2().await.expect("connects");
        tasks.spawn(async move {
            let answer = streams.send("GET", LARGE, RUNAWAY, "").await;
            tokio::time::sleep_until(until.into()).await;
            drop(answer);
        });
        // And a connection that has not even begun.
        lazy.push(tokio::net::TcpStream::connect(api.address()).await.expect("connects"));
    }
    for number in 0..flood.clients {
        let streams = flooded[number / STREAMS].clone();
        tasks.spawn(runaway(streams, number as u64, until, Arc::clone(&outcome)));
    }
    let news = news(api, until);
    let memory = async {
        let mut peak = 0;
        while Instant::now() < until {
            peak = peak.max(memory_bytes(pid));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        peak
    };
    let ((renewals_ms, failed_renewals), peak, ()) = tokio::join!(renew(api, until), memory, news);
    while tasks.join_next().await.is_some() {}
    // Those who watch would do so for longer.
    watches.shutdown().await;
    drop((lazy, watched, flooded));
    let mut outcome = std::mem::take(&mut *outcome.lock().expect("not poisoned"));
    outcome.watching = watching.load(Ordering::Relaxed);
    outcome.events = events.load(Ordering::Relaxed);
    outcome.renewals_ms = renewals_ms;
    outcome.failed_renewals = failed_renewals;
    outcome.memory_peak_bytes = peak;
    outcome
}

/// Something for the watchers to be told.
async fn news(api: &Api, until: Instant) {
    let mut streams = api.connect_http2().await.expect("connects");
    let headers = headers(CALM, "application/merge-patch+json");
    let path = format!("{SMALL}/news");
    for number in 0_u32.. {
        let body = json!({"data": {"number": number.to_string()}}).to_string();
        let asked = finished(&mut streams, "PATCH", &path, &headers, body);
        if Instant::now() >= until || tokio::time::timeout(PATIENCE, asked).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// How long a request of a user who has done nothing takes.
pub async fn calm(api: &Api) -> Option<Duration> {
    let mut streams = api.connect_http2().await.ok()?;
    let begun = Instant::now();
    let path = format!("{SMALL}/news");
    let (code, _) = finished(&mut streams, "GET", &path, CALM, String::new()).await?;
    (code == 200).then(|| begun.elapsed())
}

/// The value below which this share of the samples lies.
pub fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
