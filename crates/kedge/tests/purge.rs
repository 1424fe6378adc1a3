//! `down --purge` leaves no process, mount, namespace, link, rule, cgroup or file, also after a crash; and the doors of a
//! running server are shut.

use std::time::Duration;

use base::layout::Layout;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);

/// What of a cluster is left on the machine.
fn traces(layout: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let data_dir = layout.data_dir().display().to_string();
    let runtime_dir = layout.runtime_dir().display().to_string();
    for line in read("/proc/self/mountinfo").lines() {
        if line.contains(&data_dir) || line.contains(&runtime_dir) {
            found.push(format!("mount {line}"));
        }
    }
    for path in [layout.data_dir().to_owned(), layout.runtime_dir()] {
        if path.exists() {
            found.push(format!("file {}", path.display()));
        }
    }
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let path = process.path();
        let of = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        if of("cgroup").contains(&layout.cgroup_prefix()) || of("cmdline").contains(&data_dir) {
            found.push(format!("process {} {}", path.display(), of("cmdline").replace('\0', " ")));
        }
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        for candidate in [hierarchy.path().join(layout.cgroup_prefix()), hierarchy.path()] {
            if candidate.file_name().is_some_and(|n| n == layout.cgroup_prefix().as_str())
                && candidate.exists()
            {
                found.push(format!("cgroup {}", candidate.display()));
            }
        }
    }
    found
}

fn running_pod(cluster: &Cluster) {
    cluster.busybox();
    cluster
        .apply("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}]}}")
        .ok();
    until("the pod runs", LIMIT, || {
        let pod = cluster.get("pod", "default", "a")?;
        if pod["status"]["phase"] == "Running" { Ok(()) } else { Err(pod["status"].to_string()) }
    });
}

/// Of the host, not of a cluster's own namespace.
fn links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/dev").expect("links");
    text.lines().map(|line| line.split(':').next().unwrap_or_default().trim().to_owned()).collect()
}

fn rules() -> String {
    let output = std::process::Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .output()
        .expect("nft runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What was stored stays, what ran does not; and what there is not is no fault.
#[test]
fn down_ends_what_runs_and_keeps_the_data() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    running_pod(&cluster);
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}").ok();
    let uid = cluster.get("pod", "default", "a").expect("the pod")["metadata"]["uid"].clone();
    let layout = Layout::new(cluster.data_dir());
    let server = cluster.server_pid();
    let told = cluster.kedge(&["down"]);
    let wanted = ["Stop the server", "Stop the containers", "`kedge up` goes on with it"];
    assert!(told.code == Some(0) && wanted.iter().all(|words| told.stderr.contains(words)), "{told:?}");
    assert!(cluster.ended().success(), "process {server} did not end well\n{}", cluster.log());
    let left: Vec<String> = traces(&layout).into_iter().filter(|trace| !trace.starts_with("file ")).collect();
    assert!(left.is_empty(), "{left:#?}");
    let again = cluster.kedge(&["down"]);
    assert!(again.code == Some(0) && again.stderr.contains("no server runs"), "{again:?}");
    cluster.launch();
    assert_eq!(cluster.get("configmap", "default", "kept").expect("kept")["data"]["a"], "b");
    until("the same pod runs again", LIMIT, || {
        let pod = cluster.get("pod", "default", "a")?;
        let runs = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
        if runs && pod["metadata"]["uid"] == uid { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    // From a server that runs, all of it at once.
    cluster.kedge(&["down", "--purge"]).ok();
    assert!(cluster.ended().success(), "{}", cluster.log());
    let left = traces(&layout);
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn nothing_is_left_after_a_crash_and_a_purge() {
    let links_before = links();
    let rules_before = rules();
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    running_pod(&cluster);
    let layout = Layout::new(cluster.data_dir());
    assert!(!traces(&layout).is_empty(), "the check sees nothing of a running cluster");
    assert_eq!(
        (links(), rules()),
        (links_before.clone(), rules_before.clone()),
        "the host's network was touched"
    );
    cluster.kill();
    cluster.kedge(&["down", "--purge"]).ok();
    let left = traces(&layout);
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!((links(), rules()), (links_before, rules_before));
    // Again, with nothing there: as good.
    cluster.kedge(&["down", "--purge"]).ok();
}

/// Somebody deletes the directory under a running cluster: that is said, and all of it can still be taken away.
#[test]
fn a_deleted_directory_leaves_a_cluster_that_can_be_purged() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    running_pod(&cluster);
    let layout = Layout::new(cluster.data_dir());
    // What is mounted there stays: busy.
    let removed =
        std::process::Command::new("rm").arg("-rf").arg("--one-file-system").arg(cluster.data_dir()).output();
    removed.expect("rm runs");
    assert!(!layout.lock().exists());
    for verb in ["status", "down", "up"] {
        let mut command = cluster.command(&[verb]);
        let output = command.current_dir("/").output().expect("kedge runs");
        let told =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let wanted = ["was deleted while its cluster ran", "kedge down --purge --data-dir"];
        assert!(output.status.code() == Some(1) && wanted.iter().all(|w| told.contains(w)), "{verb}: {told}");
    }
    cluster.kedge(&["down", "--purge"]).ok();
    // Ended already; to be reaped.
    cluster.kill();
    let left = traces(&layout);
    assert!(left.is_empty(), "{left:#?}");
}

/// Containers are told to end, and have the time that their pod gives them; also where the server has crashed. Unless it is to
/// be at once, or within a shorter time. One that is frozen goes as well.
#[test]
fn containers_are_asked_to_end_before_they_are_killed() {
    let cases = [
        (&["down", "--purge"][..], "bye\n"),
        (&["down", "--purge", "--now"], ""),
        (&["down", "--purge", "--grace-period", "1s"], ""),
    ];
    for (words, wanted) in cases {
        let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
        cluster.busybox();
        let folder = cluster.folder().join("said");
        std::fs::create_dir_all(&folder).expect("a folder");
        let pod = |name: &str, grace: u32, script: &str| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: {grace}\n  volumes: [{{name: v, hostPath: \
                 {{path: {}}}}}]\n  containers:\n  - name: c\n    image: localhost/busybox:1\n    command: [sh, -c, '{script}']\n    volumeMounts: [{{name: v, \
                 mountPath: /v}}]\n",
                folder.display()
            )
        };
        let polite = "trap \"sleep 2; echo bye > /v/said; exit 0\" TERM; touch /v/ready; while true; do sleep 0.05; done";
        let manifest = pod("polite", 30, polite)
            + &pod("deaf", 1, "exec sleep 1000")
            + &pod("frozen", 0, "exec sleep 1000");
        cluster.apply(&manifest).ok();
        until("all run", LIMIT, || {
            let pods = cluster.list("pods", "default")?;
            let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
            if running == 3 && folder.join("ready").exists() { Ok(()) } else { Err(format!("{pods:?}")) }
        });
        let layout = Layout::new(cluster.data_dir());
        freeze(&layout, cluster.get("pod", "default", "frozen").expect("a pod")["metadata"]["uid"].as_str());
        cluster.kill();
        cluster.kedge(words).ok();
        assert_eq!(std::fs::read_to_string(folder.join("said")).unwrap_or_default(), wanted, "{words:?}");
        let left = traces(&layout);
        assert!(left.is_empty(), "{left:#?}");
    }
}

/// Whatever the hierarchy, the group of a pod stands still.
fn freeze(layout: &Layout, uid: Option<&str>) {
    let pod = format!("{}/besteffort/pod{}", layout.cgroup_prefix(), uid.expect("a uid"));
    let v1 = std::path::Path::new("/sys/fs/cgroup/freezer").join(&pod).join("freezer.state");
    let v2 = std::path::Path::new("/sys/fs/cgroup").join(&pod).join("cgroup.freeze");
    let frozen = if v1.exists() { std::fs::write(v1, "FROZEN") } else { std::fs::write(v2, "1") };
    frozen.expect("a freezer");
}

/// Who starts while containers are still asked to end waits for that, and so does who ends once more.
#[test]
fn nobody_starts_or_ends_under_one_that_ends() {
    for other in [&["up", "--timeout", "1m"][..], &["down"]] {
        let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
        cluster.busybox();
        let folder = cluster.folder().join("said");
        std::fs::create_dir_all(&folder).expect("a folder");
        let script = "trap \"echo asked > /v/said; sleep 3; echo ended > /v/said; exit 0\" TERM; touch /v/ready; while true; do sleep 0.05; done";
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: slow}}\nspec:\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]\n  containers:\n  - name: c\n    image: \
             localhost/busybox:1\n    command: [sh, -c, '{script}']\n    volumeMounts: [{{name: v, mountPath: /v}}]\n",
            folder.display()
        );
        cluster.apply(&pod).ok();
        let is_there = |file: &str| if folder.join(file).exists() { Ok(()) } else { Err("not yet") };
        until("it runs", LIMIT, || is_there("ready"));
        let begin = |words: &[&str]| {
            let mut command = cluster.command(words);
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .current_dir("/");
            command.spawn().expect("kedge runs")
        };
        let down = begin(&["down"]);
        until("it is asked to end", LIMIT, || is_there("said"));
        let beside = begin(other);
        for child in [down, beside] {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{other:?}: {output:?}\n{}", cluster.log());
            assert_eq!(std::fs::read_to_string(folder.join("said")).expect("what it said"), "ended\n");
        }
    }
}

#[test]
fn a_foreign_directory_is_not_purged() {
    let cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    let foreign = cluster.folder().join("precious");
    std::fs::create_dir_all(&foreign).expect("a folder");
    std::fs::write(foreign.join("file"), "x").expect("written");
    let mut command = cluster.command(&["down", "--purge"]);
    command.env("KEDGE_DATA_DIR", &foreign);
    let output = command.output().expect("kedge runs");
    assert!(!output.status.success());
    assert!(foreign.join("file").exists());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("does not look like"), "{text}");
}

#[test]
fn one_server_a_directory() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let second = cluster.kedge(&["server", "--api-port", "0"]);
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("another server runs"), "{second:?}");
}

#[test]
fn what_no_cluster_has_made_stays() {
    let mut cluster = Cluster::prepare(env!("CARGO_BIN_EXE_kedge"));
    std::fs::create_dir_all(cluster.data_dir()).expect("a folder");
    let thesis = cluster.data_dir().join("thesis.txt");
    std::fs::write(&thesis, "years of work").expect("a file");
    let output = cluster.command(&["up"]).current_dir("/").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("thesis.txt"), "{text}");
    std::fs::remove_file(&thesis).expect("removes");
    // One that came later is kept as well.
    cluster.launch();
    std::fs::write(&thesis, "years of work").expect("a file");
    cluster.kill();
    cluster.kedge(&["down", "--purge"]).ok();
    assert_eq!(std::fs::read_to_string(&thesis).expect("it is there"), "years of work");
    assert_eq!(std::fs::read_dir(cluster.data_dir()).expect("a folder").count(), 1);
    std::fs::remove_dir_all(cluster.data_dir()).expect("removes");
}
