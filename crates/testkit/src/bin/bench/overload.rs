//! What a flood does to those who have nothing to do with it: how long a node's lease takes to renew, idle and under ten
//! times as many requests as there are seats.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::Cluster;
use testkit::api::Api;
use testkit::overload::{Flood, flood, percentile, prepare, renew};

use crate::Row;
use crate::api::runtime;

const FLOOD: Flood = Flood { clients: 1000, watchers: 2000, lazy: 20, duration: Duration::from_secs(15) };
/// A node renews its lease every ten seconds, and has forty.
const AIM: &str = "< 1 s";

pub fn run(executable: &Path) -> Vec<Row> {
    let cluster = Cluster::start(executable);
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    runtime().block_on(async {
        prepare(&api).await;
        let (idle, _) = renew(&api, Instant::now() + Duration::from_secs(5)).await;
        let outcome = flood(&api, cluster.server_pid(), FLOOD).await;
        let shown = |samples: &[f64]| {
            format!("p50 {:.1} ms, p99 {:.1} ms", percentile(samples, 0.5), percentile(samples, 0.99))
        };
        let memory = format!("{} MiB", outcome.memory_peak_bytes >> 20);
        vec![
            Row::new("lease renewal, idle", shown(&idle), "", ""),
            Row::new("lease renewal, under a flood", shown(&outcome.renewals_ms), AIM, ""),
            Row::new("answers to the flood, by code", format!("{:?}", outcome.codes), "", ""),
            Row::new("memory under a flood", memory, "< 1 GiB", ""),
        ]
    })
}
