//! Durable writes: into our store beside puts into etcd on the same disk, and creates through the whole API.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use store::{Embedded, EmbeddedOptions, Op, Store, TxnResponse};
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
    let path = cluster.folder().join("writes.redb");
    let store = Embedded::open(&path, EmbeddedOptions::default()).expect("a new store");
    let runtime = runtime();
    let mut rows = Vec::new();
    for (clients, aim) in [(1, "no slower"), (64, "≥ 2.4 ×")] {
        let mut theirs = etcd.as_ref().map(|etcd| runtime.block_on(puts(&etcd.address, clients)));
        let mut row = |what: &str, aim: &str, mut ours: Load| {
            let beside = match &mut theirs {
                Some(theirs) => {
                    let ratio = ours.per_second / theirs.per_second;
                    format!("etcd puts: {} → {ratio:.2} ×", theirs.shown())
                }
                None => "etcd is not installed".to_owned(),
            };
            rows.push(Row::new(format!("{what}, {clients} client(s)"), ours.shown(), aim, beside));
        };
        row("durable writes into the store", aim, runtime.block_on(transactions(&store, clients)));
        row("durable creates through the API", "", runtime.block_on(creates(&api, clients)));
    }
    rows
}

/// As much as the puts into etcd hold.
const STORED_BYTES: usize = 500;

async fn transactions(store: &Embedded, clients: usize) -> Load {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    load(clients, async |end, latencies: &mut Vec<f64>| {
        while Instant::now() < end {
            let key = format!("/registry/configmaps/default/w-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let started = Instant::now();
            let done = store.txn(vec![Op::create(key, vec![b'x'; STORED_BYTES])]).await;
            assert!(matches!(done, Ok(TxnResponse::Committed { .. })), "{done:?}");
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
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
            message.resize(message.len() + STORED_BYTES, b'x');
            let started = Instant::now();
            connection.call("/etcdserverpb.KV/Put", &message).await;
            latencies.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    })
    .await
}
