//! What an idle cluster takes: memory of all of our processes (PSS), and processor over a minute.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::{Cluster, until};

use crate::Row;

const MINUTE: Duration = Duration::from_secs(60);
const TICKS_PER_SECOND: f64 = 100.0;

pub fn run(executable: &Path) -> Vec<Row> {
    let cluster = Cluster::start(executable);
    cluster.busybox();
    let pod = |n: u32| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: idle-{n}}}, spec: {{containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}}]}}}}"
        )
    };
    (0..3).for_each(|n| drop(cluster.apply(&pod(n)).ok()));
    until("three running pods", Duration::from_secs(30), || {
        let pods = cluster.list("pods", "default")?;
        let running = pods.iter().filter(|p| p["status"]["phase"] == "Running").count();
        if running == 3 { Ok(()) } else { Err(running.to_string()) }
    });
    let ours = ours(&cluster);
    let before: f64 = ours.iter().map(|pid| ticks(*pid)).sum();
    let started = Instant::now();
    while started.elapsed() < MINUTE {
        std::thread::park_timeout(MINUTE.saturating_sub(started.elapsed()));
    }
    let spent = (ours.iter().map(|pid| ticks(*pid)).sum::<f64>() - before) / TICKS_PER_SECOND;
    let memory: f64 = ours.iter().map(|pid| pss_mib(*pid)).sum();
    let server = pss_mib(cluster.server_pid());
    vec![
        Row::new(
            "idle memory, server and 3 shims (PSS)",
            format!("{memory:.1} MiB (server {server:.1})"),
            "≤ 60 MiB",
            "not measured here; a one-node cluster of originals took 1,044 MiB when noted on such a machine",
        ),
        Row::new(
            "idle processor over a minute",
            format!("{:.2} % of a core", spent / 60.0 * 100.0),
            "≤ 0.5 %",
            "not measured here; the originals took 5.6 % when noted",
        ),
    ]
}

/// The server and its shims.
fn ours(cluster: &Cluster) -> Vec<u32> {
    let data_dir = cluster.data_dir().display().to_string();
    let mut found = vec![cluster.server_pid()];
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let command =
            std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default().replace('\0', " ");
        if pid != cluster.server_pid() && command.contains(&data_dir) && command.contains(" shim ") {
            found.push(pid);
        }
    }
    found
}

fn ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields: Vec<f64> = after_name.split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    fields.get(11).unwrap_or(&0.0) + fields.get(12).unwrap_or(&0.0)
}

pub fn pss_mib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
