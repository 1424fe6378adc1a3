//! Durable creates through the whole API, beside bare puts into etcd on the same disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::Cluster;

use crate::api::runtime;
use crate::etcd::Etcd;
use crate::{Row, percentile};
use testkit::api::{Api, Grpc};

const DURATION: Duration = Duration::from_secs(5);
const VALUE_BYTES: usize = 256;

/// Writes in a second and their latencies in milliseconds.
struct Load {
    per_second: f64,
    latencies_ms: Vec<f64>,
}

impl Load {
    fn shown(&mut self) -> String {
        let (p50, p99) = (percentile(&mut self.latencies_ms, 0.5), percentile(&mut self.latencies_ms, 0.99));
        format!("{:.0}/s (p50 {p50:.2} ms, p99 {p99:.2} ms)", self.per_second)
    }
}

pub fn run(executable: &Path) -> Vec<Row> {
    let cluster = Cluster::start(executable);
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let etcd = Etcd::start(cluster.folder());
    let runtime = runtime();
    [1, 64]
        .into_iter()
        .map(|clients| {
            let mut ours = runtime.block_on(creates(&api, clients));
            let beside = match &etcd {
                Some(etcd) => {
                    let mut theirs = runtime.block_on(puts(&etcd.address, clients));
                    let ratio = ours.per_second / theirs.per_second;
                    format!("etcd puts: {} → {ratio:.2} ×", theirs.shown())
                }
                None => "etcd is not installed".to_owned(),
            };
            Row::new(format!("durable creates, {clients} client(s)"), ours.shown(), "", beside)
        })
        .collect()
}

async fn creates(api: &Api, clients: usize) -> Load {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let value = "x".repeat(VALUE_BYTES);
    load(clients, async |end, latencies: &mut Vec<f64>| {
        let mut connection = api.connect().await;
        while Instant::now() < end {
            let name = format!("w-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}});
            let started = Instant::now();
            connection.done("POST", "/api/v1/namespaces/default/configmaps", map.to_string()).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

async fn puts(address: &str, clients: usize) -> Load {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    load(clients, async |end, latencies: &mut Vec<f64>| {
        let mut connection = Grpc::connect(address).await;
        while Instant::now() < end {
            let key = format!("/registry/configmaps/default/w-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            // PutRequest{key: 1, value: 2}
            let mut message = vec![0x0a, u8::try_from(key.len()).expect("short")];
            message.extend_from_slice(key.as_bytes());
            message.extend_from_slice(&[0x12, 0xf4, 0x03]);
            message.resize(message.len() + 500, b'x');
            let started = Instant::now();
            connection.call("/etcdserverpb.KV/Put", &message).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}

async fn load(clients: usize, client: impl AsyncFn(Instant, &mut Vec<f64>)) -> Load {
    let started = Instant::now();
    let end = started + DURATION;
    let latencies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = (0..clients).map(|_| async {
        let mut own = Vec::new();
        client(end, &mut own).await;
        latencies.lock().expect("not poisoned").append(&mut own);
    });
    join_all(all.collect()).await;
    let latencies_ms = std::mem::take(&mut *latencies.lock().expect("not poisoned"));
    Load { per_second: latencies_ms.len() as f64 / started.elapsed().as_secs_f64(), latencies_ms }
}

/// All of some futures, on this task.
async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(|f| Some(Box::pin(f))).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for slot in &mut futures {
            if let Some(future) = slot {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(()) => *slot = None,
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
}
