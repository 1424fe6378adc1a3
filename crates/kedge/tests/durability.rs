//! kill -9 of the server under write load: nothing acknowledged is lost, no container notices, watches resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::Api;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn what_was_acknowledged_survives_a_kill_and_containers_go_on() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: steady}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'echo \
               started; sleep 1000']}]}}";
    cluster.apply(pod).ok();
    let before = until("the pod runs", LIMIT, || {
        let pod = cluster.get("pod", "default", "steady")?;
        let status = pod["status"]["containerStatuses"][0].clone();
        if status["ready"] == true { Ok(status) } else { Err(status.to_string()) }
    });

    let version = current_version(&cluster);
    let acknowledged = write_until_killed(&mut cluster);
    assert!(!acknowledged.is_empty(), "the load wrote nothing");
    cluster.launch();

    let maps = cluster.list("configmaps", "default").expect("lists");
    let held: BTreeMap<String, String> = maps
        .iter()
        .map(|m| {
            (
                m["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                m["data"]["n"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    for (name, value) in &acknowledged {
        let found: Option<u64> = held.get(name).and_then(|v| v.parse().ok());
        // A later write may have been taken without its answer being heard; an earlier one may not come back.
        assert!(found.is_some_and(|found| found >= *value), "{name}: acknowledged {value}, found {found:?}");
    }
    check_watch_resumes(&cluster, &version, &held);
    let after =
        cluster.get("pod", "default", "steady").expect("the pod")["status"]["containerStatuses"][0].clone();
    assert_eq!(after["containerID"], before["containerID"]);
    assert_eq!(after["restartCount"], 0, "{after}");
    assert_eq!(cluster.kedge(&["logs", "steady"]).ok(), "started\n");

    // The agent has taken the container over again: it notices its end.
    cluster.kedge(&["delete", "pod", "steady"]).ok();
    until("the pod is gone", LIMIT, || match cluster.get("pod", "default", "steady") {
        Err(error) if error.contains("not found") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Puts a copy of the program where it may be replaced, as an installation does: under those who run it.
fn install(program: &Path) {
    let beside = program.with_extension("new");
    std::fs::copy(env!("CARGO_BIN_EXE_kedge"), &beside).expect("copied");
    std::fs::rename(&beside, program).expect("renamed");
}

fn ready(cluster: &Cluster, name: &str, restarts: u64) -> Value {
    until(&format!("{name} runs after {restarts} restarts"), LIMIT, || {
        let pod = cluster.get("pod", "default", name)?;
        let status = pod["status"]["containerStatuses"][0].clone();
        let is = status["ready"] == true && status["restartCount"] == restarts;
        if is { Ok(status) } else { Err(status.to_string()) }
    })
}

/// The programs that this cluster's shims run, by their process.
fn shims(cluster: &Cluster) -> BTreeMap<String, PathBuf> {
    let (data_dir, mut found) = (cluster.data_dir().display().to_string(), BTreeMap::new());
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.split('\0').nth(1) == Some("shim") && line.contains(&data_dir) {
            let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            found.insert(entry.file_name().to_string_lossy().into_owned(), program);
        }
    }
    found
}

fn read(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// There may be more.
fn assert_has(labels: &Value, wanted: &Value) {
    for (name, value) in wanted.as_object().expect("labels") {
        assert_eq!(&labels[name], value, "{name}");
    }
}

/// Another build finds a pod's containers by what this one wrote beside them: as long as it is the same, none is taken for another's
/// or for one that was changed.
fn is_recorded_as_ever(cluster: &Cluster, name: &str) {
    let pod = cluster.get("pod", "default", name).expect("the pod");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let of_pod = json!({"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": uid});
    let id = base::id::sha256_hex(format!("{uid}/c/0").as_bytes());
    let sandboxes = base::layout::Layout::new(cluster.data_dir()).containers().join("sandboxes");
    let folders = std::fs::read_dir(sandboxes).expect("a folder").flatten().map(|entry| entry.path());
    let mut found = folders.filter(|folder| folder.join("containers").join(&id).exists());
    let folder = found.next().expect("the pod's sandbox");
    let sandbox = &read(&folder.join("sandbox.json"))["config"];
    assert_has(&sandbox["labels"], &of_pod);
    assert_eq!(sandbox["annotations"]["kedge.dev/pod-ip"], pod["status"]["podIP"]);
    let container = &read(&folder.join("containers").join(&id).join("container.json"))["config"];
    assert_has(&container["labels"], &of_pod);
    assert_eq!(container["labels"]["io.kubernetes.container.name"], "c");
    let noted = &container["annotations"];
    // Of the name and the image, whose change means another container.
    assert_eq!(noted["io.kubernetes.container.hash"], "089f2943");
    assert_eq!(noted["io.kubernetes.container.terminationMessagePolicy"], "File");
    assert_eq!(noted["kedge.dev/image-name"], "localhost/busybox:1");
    assert!(noted["kedge.dev/termination-message-file"].is_string(), "{noted}");
}

/// An upgrade: another server takes over what shims of the program before hold, and has of them what it needs.
#[test]
fn containers_go_on_under_a_program_that_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("kedge");
    install(&program);
    let mut cluster = Cluster::start(&program);
    cluster.busybox();
    let pod = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'localhost/busybox:1', \
             command: [sh, -c, 'echo begun; until [ -e /tmp/end ]; do sleep 0.1; done; exit 5']}}]}}}}"
        )
    };
    cluster.apply(&pod("early")).ok();
    let before = ready(&cluster, "early", 0);
    is_recorded_as_ever(&cluster, "early");
    install(&program);
    // Who runs on has the program that it began with.
    cluster.apply(&pod("late")).ok();
    ready(&cluster, "late", 0);
    let old = shims(&cluster);
    assert_eq!(old.len(), 2, "{old:?}");
    let gone = format!("{} (deleted)", program.display());
    assert!(old.values().all(|path| path.display().to_string() == gone), "{old:?}");
    cluster.kill();
    cluster.launch();

    let after = ready(&cluster, "early", 0);
    assert_eq!((&after["containerID"], &after["state"]), (&before["containerID"], &before["state"]));
    assert_eq!(cluster.kedge(&["logs", "early"]).ok(), "begun\n");
    for name in ["early", "late"] {
        assert_eq!(cluster.kedge(&["exec", name, "--", "echo", "inside"]).ok(), "inside\n");
        cluster.kedge(&["exec", name, "--", "touch", "/tmp/end"]).ok();
        let again = ready(&cluster, name, 1);
        assert_eq!(again["lastState"]["terminated"]["exitCode"], 5, "{again}");
        assert_eq!(cluster.kedge(&["logs", "-p", name]).ok(), "begun\n");
    }
    assert_eq!(shims(&cluster), old, "the shims of before hold them still");
    cluster.apply(&pod("new")).ok();
    ready(&cluster, "new", 0);
    let now = shims(&cluster);
    assert_eq!(now.values().filter(|path| **path == program).count(), 1, "{now:?}");
    // By a pod's end or the cluster's, theirs is come as well.
    cluster.kedge(&["delete", "pod", "early"]).ok();
    until("a shim ends with its pod", LIMIT, || match shims(&cluster) {
        left if left.len() == 2 => Ok(()),
        left => Err(left),
    });
    cluster.kill();
    cluster.kedge(&["down"]).ok();
    assert_eq!(shims(&cluster), BTreeMap::new());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The version that a list of now is true at.
fn current_version(cluster: &Cluster) -> String {
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let path = "/api/v1/namespaces/default/configmaps";
    let list = runtime().block_on(async { api.connect().await.done("GET", path, "").await });
    let list: serde_json::Value = serde_json::from_slice(&list).expect("a list");
    list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

/// A watch from before the load, opened after the restart, tells every object's whole story once and in order.
fn check_watch_resumes(cluster: &Cluster, version: &str, held: &BTreeMap<String, String>) {
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let path = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={version}&timeoutSeconds=2"
    );
    let events: Vec<serde_json::Value> = runtime().block_on(async {
        let mut lines = api.connect().await.lines(&path).await;
        let mut events = Vec::new();
        while let Some(line) = lines.next().await {
            events.push(serde_json::from_slice(&line).expect("an event"));
        }
        events
    });
    let number = |value: &serde_json::Value| value.as_str().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let versions: Vec<u64> =
        events.iter().map(|e| number(&e["object"]["metadata"]["resourceVersion"])).collect();
    assert!(versions.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {versions:?}");
    for (name, last) in held.iter().filter(|(name, _)| name.starts_with("load-")) {
        let seen: Vec<u64> = events
            .iter()
            .filter(|e| e["object"]["metadata"]["name"] == **name)
            .map(|e| number(&e["object"]["data"]["n"]))
            .collect();
        let last: u64 = last.parse().expect("a number");
        assert_eq!(seen, (1..=last).collect::<Vec<u64>>(), "{name}");
    }
}

/// Several writers, each counting up in an object of its own; what each last heard acknowledged.
fn write_until_killed(cluster: &mut Cluster) -> BTreeMap<String, u64> {
    let stop = AtomicBool::new(false);
    let commands: Vec<_> = (0..3).map(|_| cluster.command(&["apply", "-f", "-"])).collect();
    let program = commands[0].get_program().to_owned();
    let data_dir = cluster.data_dir();
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (program, data_dir, stop) = (&program, &data_dir, &stop);
                scope.spawn(move || {
                    let name = format!("load-{writer}");
                    let mut last = None;
                    for n in 1_u64.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let manifest = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{n: '{n}'}}}}");
                        let done = apply(program, data_dir, &manifest);
                        if done {
                            last = Some(n);
                        }
                    }
                    (name, last)
                })
            })
            .collect();
        until("some load", LIMIT, || {
            let maps = cluster.list("configmaps", "default")?;
            let deep = maps
                .iter()
                .filter(|m| m["data"]["n"].as_str().and_then(|n| n.parse().ok()).unwrap_or(0) >= 5)
                .count();
            if deep == 3 { Ok(()) } else { Err(format!("{deep} writers are at work")) }
        });
        cluster.kill();
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .filter_map(|w| w.join().ok())
            .filter_map(|(name, last)| Some((name, last?)))
            .collect()
    })
}

fn apply(program: &std::ffi::OsStr, data_dir: &std::path::Path, manifest: &str) -> bool {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut command = Command::new(program);
    command.args(["apply", "-f", "-"]).env("KEDGE_DATA_DIR", data_dir).env_remove("KUBECONFIG");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(manifest.as_bytes()));
    }
    child.wait().is_ok_and(|status| status.success())
}
