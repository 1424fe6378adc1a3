//! A pod from its creation to Running, its image present, beside what runc takes for the same bundle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;
use testkit::Cluster;

use crate::api::{runtime, watch_until};
use crate::{Row, percentile};
use testkit::api::Api;

const ROUNDS: usize = 30;

pub fn run(executable: &Path) -> Vec<Row> {
    let cluster = Cluster::start(executable);
    cluster.busybox();
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let mut ours: Vec<f64> = Vec::new();
    runtime().block_on(async {
        for n in 0..ROUNDS {
            let name = format!("pod-{n}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "1000"]}]}});
            let path = format!("/api/v1/namespaces/default/pods?watch=true&resourceVersion=0&fieldSelector=metadata.name%3D{name}");
            let create = async |c: &mut testkit::api::Connection| {
                c.done("POST", "/api/v1/namespaces/default/pods", pod.to_string()).await;
            };
            let took = watch_until(&api, &path, create, |e| e["object"]["status"]["phase"] == "Running").await;
            ours.push(took.as_secs_f64() * 1000.0);
            let delete = async |c: &mut testkit::api::Connection| {
                c.done("DELETE", &format!("/api/v1/namespaces/default/pods/{name}"), "").await;
            };
            watch_until(&api, &path, delete, |e| e["type"] == "DELETED").await;
        }
    });
    let beside = match runc(cluster.folder()) {
        Some(mut times) => format!(
            "runc create + start: p50 {:.0} ms, p99 {:.0} ms",
            percentile(&mut times, 0.5),
            percentile(&mut times, 0.99)
        ),
        None => "runc is not installed".to_owned(),
    };
    let shown =
        format!("p50 {:.0} ms, p99 {:.0} ms", percentile(&mut ours, 0.5), percentile(&mut ours, 0.99));
    vec![Row::new("pod create → Running", shown, "p50 ≤ 80 ms", beside)]
}

/// Milliseconds of `runc create` and `runc start` on the same file system and command.
fn runc(folder: &Path) -> Option<Vec<f64>> {
    let bundle = folder.join("bundle");
    std::fs::create_dir_all(bundle.join("rootfs/bin")).ok()?;
    std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/sleep")).ok()?;
    let runc = |args: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(folder.join("runc")).args(args).current_dir(&bundle);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()
            .filter(|s| s.success())
    };
    runc(&["spec"])?;
    let spec = std::fs::read_to_string(bundle.join("config.json")).ok()?;
    let mut spec: serde_json::Value = serde_json::from_str(&spec).ok()?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
    std::fs::write(bundle.join("config.json"), spec.to_string()).ok()?;
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let id = format!("kedge-t-bench-{}-{n}", std::process::id());
        let started = Instant::now();
        runc(&["create", &id])?;
        runc(&["start", &id])?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        runc(&["delete", "--force", &id])?;
    }
    Some(times)
}
