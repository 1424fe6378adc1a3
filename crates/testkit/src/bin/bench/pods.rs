//! A pod from its creation to Running, its image present, beside what runc takes for a container's very bundle.

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
    let beside = match runc(&cluster, &api) {
        Some(mut times) => format!(
            "runc create + start of the same bundle: p50 {:.0} ms, p99 {:.0} ms",
            percentile(&mut times, 0.5),
            percentile(&mut times, 0.99)
        ),
        None => "runc is not installed".to_owned(),
    };
    let shown =
        format!("p50 {:.0} ms, p99 {:.0} ms", percentile(&mut ours, 0.5), percentile(&mut ours, 0.99));
    vec![Row::new("pod create → Running", shown, "p50 ≤ 80 ms", beside)]
}

/// Milliseconds of `runc create` and `runc start` of what a pod's container is: its root, its mounts, its namespaces.
fn runc(cluster: &Cluster, api: &Api) -> Option<Vec<f64>> {
    let bundle = cluster.folder().join("bundle");
    std::fs::create_dir_all(&bundle).ok()?;
    Command::new("runc").arg("--version").output().ok()?;
    let mut spec = spec_of_a_pod(cluster, api);
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let id = format!("kedge-t-bench-{}-{n}", std::process::id());
        spec["linux"]["cgroupsPath"] = format!("/{id}").into();
        std::fs::write(bundle.join("config.json"), spec.to_string()).ok()?;
        let runc = |args: &[&str]| {
            let mut command = Command::new("runc");
            command.arg("--root").arg(cluster.folder().join("runc")).args(args).arg(&id).current_dir(&bundle);
            // To a file: a container that has the end of a pipe would keep whoever reads it waiting.
            let told = std::fs::File::create(bundle.join("told")).expect("a file");
            command.stdin(Stdio::null()).stdout(told.try_clone().expect("a file")).stderr(told);
            let status = command.status().expect("runc runs");
            let told = || std::fs::read_to_string(bundle.join("told")).unwrap_or_default();
            assert!(status.success(), "runc {args:?}: {}", told());
        };
        let started = Instant::now();
        runc(&["create"]);
        runc(&["start"]);
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        runc(&["delete", "--force"]);
    }
    Some(times)
}

/// The OCI configuration of a container that runs.
fn spec_of_a_pod(cluster: &Cluster, api: &Api) -> serde_json::Value {
    let path =
        "/api/v1/namespaces/default/pods?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dbundle";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bundle"}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "1000"]}]}});
    let create = async |c: &mut testkit::api::Connection| {
        c.done("POST", "/api/v1/namespaces/default/pods", pod.to_string()).await;
    };
    runtime().block_on(watch_until(api, path, create, |e| e["object"]["status"]["phase"] == "Running"));
    // The newest is that pod's: those before it are being taken away.
    let mut newest = None;
    let mut folders = vec![cluster.data_dir().join("containers")];
    while let Some(folder) = folders.pop() {
        let file = folder.join("config.json");
        if let Ok(time) = std::fs::metadata(&file).and_then(|metadata| metadata.modified()) {
            newest = newest.max(Some((time, file)));
        }
        let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    let (_, file) = newest
        .unwrap_or_else(|| panic!("no container has a configuration below {}", cluster.data_dir().display()));
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    // As seen from another folder.
    let root = file.with_file_name(spec["root"]["path"].as_str().expect("a root"));
    spec["root"]["path"] = root.display().to_string().into();
    spec
}
