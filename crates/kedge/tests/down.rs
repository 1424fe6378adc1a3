//! `down` and a start on the same data directory are to a pod what a reboot of its node is: its containers run again, and
//! what the run before came to, and said, can still be read.

use std::path::Path;
use std::time::Duration;

use base::layout::Layout;
use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);

/// What lies in memory is made for each run anew. Ends with 3 when it is asked to end, and says how often its volume has seen it run.
const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: again}, spec: {terminationGracePeriodSeconds: 5, \
    volumes: [{name: e, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}], \
    initContainers: [{name: i, image: 'localhost/busybox:1', volumeMounts: [{name: m, mountPath: /m}], command: [touch, /m/made]}], containers: [{name: c, image: 'localhost/busybox:1', \
    readinessProbe: {exec: {command: [test, -e, /tmp/said]}, periodSeconds: 1}, \
    volumeMounts: [{name: e, mountPath: /e}, {name: m, mountPath: /m}], command: [sh, -c, \
    'trap \"echo asked; echo -n bye > /dev/termination-log; exit 3\" TERM; echo run >> /e/runs; echo run $(wc -l < /e/runs); test -e /m/made || echo not made; \
    touch /tmp/said; while true; do sleep 0.1; done']}]}}";

/// Ends as it should, and stays as it is.
const DONE: &str = "{apiVersion: v1, kind: Pod, metadata: {name: done}, spec: {restartPolicy: Never, \
    containers: [{name: c, image: 'localhost/busybox:1', command: ['true']}]}}";

/// The status of the pod's only container in its run of this number, once it is ready.
fn run(cluster: &Cluster, restarts: u64) -> Value {
    until("the pod runs", LIMIT, || {
        let pod = cluster.get("pod", "default", "again")?;
        let status = pod["status"]["containerStatuses"][0].clone();
        let runs = status["ready"] == true && status["restartCount"] == restarts;
        if runs { Ok(status) } else { Err(status.to_string()) }
    })
}

/// What the status says of the run before, and whether it says when that was.
fn before(status: &Value) -> (Value, Value, Value, bool) {
    let ended = &status["lastState"]["terminated"];
    let timed = ended["startedAt"].is_string() && ended["finishedAt"].is_string();
    (ended["exitCode"].clone(), ended["reason"].clone(), ended["containerID"].clone(), timed)
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Of the pod: its sandboxes, the roots of its containers, its logs.
fn kept(cluster: &Cluster, uid: &str) -> (usize, usize, Vec<String>) {
    let layout = Layout::new(cluster.data_dir());
    let sandboxes = entries(&layout.containers().join("sandboxes"));
    let own: Vec<&String> = sandboxes.iter().filter(|name| name.starts_with(uid)).collect();
    let containers = own.iter().map(|name| {
        let containers = layout.containers().join("sandboxes").join(name).join("containers");
        if containers.exists() { entries(&containers).len() } else { 0 }
    });
    let logs = layout.node().join("logs").join(format!("default_again_{uid}")).join("c");
    (own.len(), containers.sum(), entries(&logs))
}

#[test]
fn a_pod_remembers_its_run_before() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    cluster.apply(POD).ok();
    cluster.apply(DONE).ok();
    let first = run(&cluster, 0)["containerID"].clone();
    until("the other has ended", LIMIT, || {
        let pod = cluster.get("pod", "default", "done")?;
        if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    let pod = cluster.get("pod", "default", "again").expect("the pod");
    let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();

    cluster.down(&[]);
    cluster.launch();
    let second = run(&cluster, 1);
    assert_eq!(before(&second), (3.into(), "Error".into(), first, true), "{second:#}");
    assert_eq!(second["lastState"]["terminated"]["message"], "bye");
    assert_eq!(cluster.kedge(&["logs", "-p", "again"]).ok(), "run 1\nasked\n");
    assert_eq!(cluster.kedge(&["logs", "again"]).ok(), "run 2\n");
    assert_eq!(kept(&cluster, &uid), (2, 4, vec!["0.log".to_owned(), "1.log".into()]));
    let done = cluster.get("pod", "default", "done").expect("the pod");
    assert_eq!(done["status"]["containerStatuses"][0]["restartCount"], 0, "it had ended");

    // Not asked, but killed; and no more is kept than the run before.
    cluster.down(&["--now"]);
    cluster.launch();
    let third = run(&cluster, 2);
    assert_eq!(
        before(&third),
        (137.into(), "Error".into(), second["containerID"].clone(), true),
        "{third:#}"
    );
    assert_eq!(cluster.kedge(&["logs", "-p", "again"]).ok(), "run 2\n");
    until("what is older is gone", LIMIT, || match kept(&cluster, &uid) {
        (2, 4, logs) if logs == ["1.log", "2.log"] => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let log = std::fs::read_to_string(cluster.data_dir().join("server.log")).expect("a log");
    // Of what became of pods; a machine that is slow gives other warnings, rightly.
    let is_meant = |line: &&str| {
        let told = line.contains(" WARN ") || line.contains("ERROR");
        told && ["shim", "sandbox", "container"].iter().any(|word| line.contains(word))
            && !line.contains("are late")
    };
    let complaints: Vec<&str> = log.lines().filter(is_meant).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_crash_of_the_machine_is_told_as_an_end_that_nobody_saw() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    cluster.apply(POD).ok();
    let first = run(&cluster, 0)["containerID"].clone();
    let layout = Layout::new(cluster.data_dir());

    // All processes end at once, and with them what was mounted and all networks.
    let crash = |cluster: &mut Cluster| {
        cluster.kill();
        let made = [layout.containers(), layout.images(), layout.node()];
        let made: Vec<&Path> = made.iter().map(|path| path.as_path()).collect();
        container::own::purge(&layout.cgroup_prefix(), &made).expect("purged");
        net::namespace::Namespace::purge(&layout.namespaces()).expect("purged");
    };
    crash(&mut cluster);
    cluster.launch();
    let second = run(&cluster, 1);
    let unknown = Value::from("ContainerStatusUnknown");
    assert_eq!(before(&second), (137.into(), unknown.clone(), first, true), "{second:#}");
    assert_eq!(cluster.kedge(&["logs", "-p", "again"]).ok(), "run 1\n");
    let log = std::fs::read_to_string(cluster.data_dir().join("server.log")).expect("a log");
    assert!(log.contains(" WARN ") && log.contains("its shim is gone"), "a fault is told of as one: {log}");

    // And nothing of what ran may have reached the disk.
    crash(&mut cluster);
    for sandbox in entries(&layout.containers().join("sandboxes")) {
        let containers = layout.containers().join("sandboxes").join(sandbox).join("containers");
        for container in entries(&containers) {
            for file in ["container.json", "status.json"] {
                std::fs::write(containers.join(&container).join(file), "").expect("emptied");
            }
        }
    }
    cluster.launch();
    let third = run(&cluster, 2);
    let ended = &third["lastState"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&137.into(), &unknown), "{third:#}");
    assert_eq!(ended["containerID"], second["containerID"]);
    let message =
        "The container could not be located when the pod was deleted.  The container used to be Running";
    assert_eq!(ended["message"], message);
    assert_eq!(cluster.kedge(&["logs", "-p", "again"]).ok(), "run 2\n");
}
