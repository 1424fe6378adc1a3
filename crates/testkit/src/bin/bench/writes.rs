//! Durable creates through the whole API, beside bare puts into etcd on the same disk.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use testkit::Cluster;

use crate::Row;
use crate::api::runtime;
use crate::load::{Load, load};
use testkit::api::{Api, Grpc};
use testkit::etcd::Etcd;

const VALUE_BYTES: usize = 256;

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
