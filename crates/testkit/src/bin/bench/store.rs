//! A full store: how long a server takes to start on it, and to give out a backup while it runs.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use testkit::Cluster;
use testkit::api::Api;

use crate::Row;
use crate::api::runtime;

const OBJECTS: usize = 100_000;
const VALUE_BYTES: usize = 600;
const WRITERS: usize = 32;

pub fn run(executable: &Path) -> Vec<Row> {
    if cfg!(debug_assertions) {
        eprintln!("this is no release build: the figures say little");
    }
    let mut cluster = Cluster::start(executable);
    let empty = cluster.started_in;
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    runtime().block_on(fill(&api));
    let file = cluster.folder().join("backup");
    let started = Instant::now();
    let told = cluster.kedge(&["store", "backup", &file.to_string_lossy()]).ok();
    let backup = started.elapsed();
    eprintln!("{}", told.trim());
    cluster.kill();
    let started = Instant::now();
    cluster.kedge(&["store", "check"]).ok();
    let check = started.elapsed();
    cluster.launch();
    let row = |what: &str, took: std::time::Duration, beside: String| {
        Row::new(format!("{OBJECTS} objects: {what}"), format!("{:.2} s", took.as_secs_f64()), "", beside)
    };
    vec![
        row("start to node Ready", cluster.started_in, format!("with none: {:.2} s", empty.as_secs_f64())),
        row("backup of the running server", backup, String::new()),
        row("check of the stopped one", check, String::new()),
    ]
}

async fn fill(api: &Api) {
    let next = AtomicUsize::new(0);
    let value = "x".repeat(VALUE_BYTES);
    let writer = async || {
        let mut connection = api.connect().await;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= OBJECTS {
                return;
            }
            let name = format!("full-{number}");
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}});
            connection.done("POST", "/api/v1/namespaces/default/configmaps", map.to_string()).await;
        }
    };
    futures::future::join_all((0..WRITERS).map(|_| writer())).await;
}
