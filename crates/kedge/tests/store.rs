//! The state of a cluster taken, given back, checked and moved, by the real program.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);
const SILENCE: Duration = Duration::from_secs(90);
const OBJECTS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: kept}, data: {a: b}}
---
{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {a: b}}";

fn file(cluster: &Cluster, name: &str) -> String {
    cluster.folder().join(name).to_str().expect("a plain path").to_owned()
}

fn objects_are_there(cluster: &Cluster) {
    let map = cluster.get("configmap", "default", "kept").expect("the map");
    assert_eq!(map["data"]["a"], "b");
    let secret = cluster.get("secret", "default", "hidden").expect("the secret");
    assert_eq!(secret["data"]["a"], "Yg==");
}

#[test]
fn taken_from_a_running_server_and_given_back() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.apply(OBJECTS).ok();
    let before = cluster.get("configmap", "default", "kept").expect("the map");
    let backup = file(&cluster, "backup");
    let told = cluster.kedge(&["store", "backup", &backup]).ok();
    assert!(told.contains("entries"), "{told}");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(Path::new(&backup)), mode(&cluster.data_dir().join("state.redb"))), (0o600, 0o600));
    let again = cluster.kedge(&["store", "backup", &backup]);
    assert!(
        again.code != Some(0)
            && again.stderr.contains("is there already")
            && again.stderr.contains("--force")
    );
    cluster.kedge(&["store", "backup", "--force", &backup]).ok();
    let own = |name: &str| cluster.data_dir().join(name).display().to_string();
    for (place, why) in [
        (own("state.redb"), "the cluster's own files"),
        (own("pki/encryption.key"), "the cluster's own files"),
        (own("pki"), "no ordinary file"),
        ("/dev/null".to_owned(), "no ordinary file"),
    ] {
        let refused = cluster.kedge(&["store", "backup", "--force", &place]);
        assert!(refused.code != Some(0) && refused.stderr.contains(why), "{place}: {refused:?}");
    }
    for args in [vec!["store", "check"], vec!["store", "check", &backup]] {
        let told = cluster.kedge(&args).ok();
        assert!(told.contains(" 0 of them unreadable"), "{told}");
    }
    // A backup is told from the key that it needs: neither a directory without it nor one with another is a damage.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let key = elsewhere.path().join("pki/encryption.key");
    let data_dir = elsewhere.path().display().to_string();
    let args = ["store", "check", &backup, "--data-dir", &data_dir];
    let without = cluster.kedge(&args);
    let told = (without.stdout.contains(&key.display().to_string()), without.stdout.contains("--data-dir"));
    assert!(without.code == Some(1) && told == (true, true), "{without:?}");
    assert!(!without.stdout.contains("kedge store restore"), "nothing is to be restored: {without:?}");
    std::fs::create_dir_all(elsewhere.path().join("pki")).expect("a directory");
    std::fs::write(&key, [7; 32]).expect("written");
    let with_another = cluster.kedge(&args);
    assert!(
        with_another.code == Some(1) && with_another.stdout.contains("another cluster's key"),
        "{with_another:?}"
    );
    let running = cluster.kedge(&["store", "restore", &backup]);
    assert!(running.code != Some(0) && running.stderr.contains("another server runs"), "{running:?}");

    cluster.kedge(&["delete", "configmap", "kept"]).ok();
    cluster.kill();
    let refused = cluster.kedge(&["store", "restore", &backup]);
    assert!(refused.code != Some(0) && refused.stderr.contains("--replace"), "{refused:?}");
    let cut_off = file(&cluster, "cut-off");
    let bytes = std::fs::read(&backup).expect("reads");
    std::fs::write(&cut_off, &bytes[..bytes.len() - 7]).expect("written");
    let refused = cluster.kedge(&["store", "restore", "--replace", &cut_off]);
    assert!(refused.code != Some(0) && refused.stderr.contains("cut off"), "{refused:?}");
    // Where the new one cannot be made the old one stays as it is, and where it is.
    let in_the_way = cluster.data_dir().join("state.redb.copy");
    std::fs::create_dir(&in_the_way).expect("made");
    let held = std::fs::read(cluster.data_dir().join("state.redb")).expect("the store");
    let refused = cluster.kedge(&["store", "restore", "--replace", &backup]);
    assert!(refused.code != Some(0) && refused.stderr.contains("nothing was replaced"), "{refused:?}");
    assert!(std::fs::read(cluster.data_dir().join("state.redb")).expect("it is there") == held);
    std::fs::remove_dir(&in_the_way).expect("removed");
    let nobody = cluster.kedge(&["store", "migrate", "--from", "file", "--to", "etcd://127.0.0.1:1"]);
    assert!(nobody.code != Some(0) && !nobody.stderr.contains("broken pipe"), "{nobody:?}");
    assert!(nobody.stderr.contains("127.0.0.1:1"), "{nobody:?}");
    cluster.kedge(&["store", "restore", "--replace", &backup]).ok();
    let told = cluster.kedge(&["store", "check"]).ok();
    assert!(told.contains(" 0 of them unreadable"), "{told}");
    cluster.launch();
    objects_are_there(&cluster);
    let after = cluster.get("configmap", "default", "kept").expect("the map");
    assert_eq!(after["metadata"], before["metadata"], "the version too");

    // Damaged while nobody looks: it does not start, and says what to do; which is then done.
    cluster.kill();
    damage(&cluster.data_dir().join("state.redb"));
    let told = cluster.launch_in_vain();
    assert!(told.contains("is damaged") && told.contains("kedge store restore"), "{told}");
    let checked = cluster.kedge(&["store", "check"]);
    assert!(checked.code != Some(0) && checked.stderr.contains("is damaged"), "{checked:?}");
    cluster.kedge(&["store", "restore", "--replace", &backup]).ok();
    cluster.launch();
    objects_are_there(&cluster);
}

/// Flips a bit of a stored object.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("reads");
    let needle = b"\"name\":\"kept\"";
    let at = bytes.windows(needle.len()).position(|w| w == needle).expect("it is stored");
    bytes[at + 2] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn moved_to_etcd_and_back() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let mut etcd = testkit::Etcd::required(cluster.folder());
    let address = format!("etcd://{}", etcd.address);
    cluster.apply(OBJECTS).ok();
    // The server runs on: what is moved is of one moment.
    cluster.kedge(&["store", "migrate", "--from", "file", "--to", &address]).ok();
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {}}").ok();
    cluster.kill();
    let told = cluster.kedge(&["store", "migrate", "--from", "file", "--to", &address, "--update"]).ok();
    assert!(!told.starts_with("0 entries"), "{told}");
    let mut cluster = cluster.told("node-1", &["--store", &address]);
    cluster.launch();
    objects_are_there(&cluster);
    cluster.get("configmap", "default", "later").expect("what came after the first time");
    // Lost and back: told soon, and mended by itself.
    etcd.kill();
    let since = std::time::Instant::now();
    let told = cluster.get("configmap", "default", "kept").expect_err("nothing old is shown");
    assert!(told.contains("etcd cannot be reached"), "{told}");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    etcd.launch();
    until("etcd is back", LIMIT, || cluster.get("configmap", "default", "kept").map(drop));
    cluster.kedge(&["delete", "configmap", "kept"]).ok();
    cluster.apply(&OBJECTS.replace("a: b", "a: c")).ok();
    let told = cluster.kedge(&["store", "check", "--store", &address]).ok();
    assert!(told.contains(" 0 of them unreadable"), "{told}");
    cluster.kill();
    cluster.kedge(&["store", "migrate", "--from", &address, "--to", "file", "--replace"]).ok();
    let mut cluster = cluster.told("node-1", &[]);
    cluster.launch();
    let map = cluster.get("configmap", "default", "kept").expect("the map");
    assert_eq!(map["data"]["a"], "c");
}

/// Who leads, as the lease says.
fn leader(cluster: &Cluster, lease: &str) -> Result<(String, i64), String> {
    let lease = cluster.get("lease", "kube-system", lease)?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(-1);
    Ok((holder.split('_').next().unwrap_or_default().to_owned(), transitions))
}

const LEASES: [&str; 3] = ["kube-controller-manager", "kube-scheduler", "kedge-gitops"];

fn pods(cluster: &Cluster, node_known: bool) -> Result<usize, String> {
    let pods = cluster.list("pods", "default")?;
    let bound = |pod: &&Value| {
        pod["metadata"]["labels"]["a"] == "b" && (!node_known || pod["spec"]["nodeName"].is_string())
    };
    Ok(pods.iter().filter(bound).count())
}

#[test]
fn two_servers_are_one_cluster_and_one_of_them_works() {
    let program = env!("CARGO_BIN_EXE_kedge");
    let first = Cluster::prepare(program);
    let etcd = testkit::Etcd::required(first.folder());
    let address = format!("etcd://{}", etcd.address);
    let mut first = first.told("node-1", &["--store", &address]);
    first.launch();
    let mut second = Cluster::prepare(program).told("node-2", &["--store", &address]);
    let told = second.launch_in_vain();
    assert!(told.contains("copy the folder `pki`"), "{told}");
    std::fs::remove_dir_all(second.data_dir().join("pki")).expect("removed");
    copy(&first.data_dir().join("pki"), &second.data_dir().join("pki"));
    second.launch();
    let range =
        |cluster: &Cluster, node: &str| cluster.get("node", "", node).map(|n| n["spec"]["podCIDR"].clone());
    assert_eq!(range(&second, "node-1"), Ok("10.42.0.0/24".into()));
    assert_eq!(range(&second, "node-2"), Ok("10.42.1.0/24".into()), "each has its own");

    let deployment = |replicas: u32| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: 'localhost/none:1', imagePullPolicy: Never}}]}}}}}}}}"
        )
    };
    second.apply(&deployment(2)).ok();
    until("pods of what the other server was told", LIMIT, || match pods(&first, true)? {
        2 => Ok(()),
        other => Err(format!("{other} pods are bound")),
    });
    for lease in LEASES {
        assert_eq!(leader(&second, lease), Ok(("node-1".into(), 0)), "{lease}");
    }
    runs_on_the_first(&first, "leaves", ", tolerationSeconds: 1");
    runs_on_the_first(&first, "stays", "");
    for number in [1, 2] {
        let pod = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: on-{number}, namespace: kube-public}}, spec: {{nodeName: node-{number}, containers: [{{name: c, image: 'localhost/none:1', imagePullPolicy: Never}}]}}}}"
        );
        second.apply(&pod).ok();
        until("an address of the node's own range", LIMIT, || {
            let pod = second.get("pod", "kube-public", &format!("on-{number}"))?;
            let address = pod["status"]["podIP"].as_str().unwrap_or_default();
            let own = address.starts_with(&format!("10.42.{}.", number - 1));
            if own { Ok(()) } else { Err(pod["status"].to_string()) }
        });
    }

    first.kill();
    let since = std::time::Instant::now();
    second.apply(&deployment(3)).ok();
    until("the other takes over", LIMIT, || match pods(&second, true)? {
        3 => Ok(()),
        other => Err(format!("{other} pods are bound")),
    });
    // The lease's fifteen seconds, a retry of two, and the caches' filling.
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    for lease in LEASES {
        until(lease, LIMIT, || match leader(&second, lease)? {
            (holder, 1) if holder == "node-2" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    a_silent_node_is_left(&second);
    first.launch();
    a_node_comes_back(&second);
    second.apply(&deployment(5)).ok();
    until("five pods", LIMIT, || match pods(&first, false)? {
        5 => Ok(()),
        other => Err(format!("{other} pods")),
    });
    assert_eq!(leader(&first, LEASES[0]), Ok(("node-2".into(), 1)), "it leads on");
    for (node, kept) in [("node-1", "10.42.0.0/24"), ("node-2", "10.42.1.0/24")] {
        assert_eq!(range(&first, node), Ok(kept.into()), "it is kept");
    }
    // Had two been at work, there would be more than one set, or more pods than were asked for for a moment.
    assert_eq!(first.list("replicasets", "default").expect("sets").len(), 1);
    let created = first.list("events", "default").expect("events");
    let created = created.iter().filter(|e| e["reason"] == "SuccessfulCreate").count();
    assert_eq!(created, 5, "one for each pod that was ever made");
}

/// A pod of the first server's node that bears with its silence for as long as is said.
fn runs_on_the_first(first: &Cluster, name: &str, bears: &str) {
    let tolerations =
        format!("[{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute{bears}}}]");
    first.busybox();
    first
        .apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeSelector: {{kubernetes.io/hostname: node-1}}, tolerations: {tolerations}, \
             terminationGracePeriodSeconds: 1, containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '100000']}}]}}}}"
        ))
        .ok();
    until(&format!("{name} is ready"), LIMIT, || match first.get("pod", "default", name)? {
        pod if is_ready(&pod) => Ok(()),
        pod => Err(pod["status"].to_string()),
    });
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
}

/// The effects of the taint that says so.
fn unreachable(node: &Value) -> Vec<&str> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut effects: Vec<&str> = taints
        .filter(|t| t["key"] == "node.kubernetes.io/unreachable")
        .filter_map(|t| t["effect"].as_str())
        .collect();
    effects.sort_unstable();
    effects
}

/// Nobody knows how it is, nothing new is sent there, and whoever does not bear that is to leave.
fn a_silent_node_is_left(second: &Cluster) {
    // Forty seconds of silence, which whoever has just taken over counts anew.
    let node = until("node-1 is given up", SILENCE, || match second.get("node", "", "node-1")? {
        node if unreachable(&node).len() == 2 => Ok(node),
        node => Err(node["status"]["conditions"].to_string()),
    });
    let ready = condition(&node, "Ready");
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&"Unknown".into(), &"NodeStatusUnknown".into()),
        "{ready}"
    );
    assert_eq!(unreachable(&node), ["NoExecute", "NoSchedule"]);
    assert!(is_ready(&second.get("node", "", "node-2").expect("the other node")));
    let pod = |name: &str| second.get("pod", "default", name).expect("the pod");
    until("one is asked to leave", LIMIT, || match pod("leaves") {
        pod if pod["metadata"]["deletionTimestamp"].is_string() => Ok(()),
        pod => Err(pod["metadata"].to_string()),
    });
    until("why is told", LIMIT, || {
        let events = second.list("events", "default")?;
        let told =
            |e: &&Value| e["reason"] == "TaintManagerEviction" && e["involvedObject"]["name"] == "leaves";
        events.iter().find(told).map(drop).ok_or_else(|| format!("{} events", events.len()))
    });
    until("nobody serves there", LIMIT, || match pod("stays") {
        pod if !is_ready(&pod) => Ok(()),
        pod => Err(pod["status"].to_string()),
    });
    assert_eq!(pod("stays")["metadata"]["deletionTimestamp"], Value::Null);
}

/// What was to leave leaves, and what stayed was never away.
fn a_node_comes_back(second: &Cluster) {
    until("node-1 is as before", LIMIT, || match second.get("node", "", "node-1")? {
        node if is_ready(&node) && unreachable(&node).is_empty() => Ok(()),
        node => Err(node.to_string()),
    });
    until("one has left", LIMIT, || match second.get("pod", "default", "leaves") {
        Err(error) if error.contains("not found") => Ok(()),
        other => Err(other),
    });
    until("the other is ready", LIMIT, || match second.get("pod", "default", "stays")? {
        pod if is_ready(&pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 0 => Ok(()),
        pod => Err(pod["status"].to_string()),
    });
    second.kedge(&["delete", "pod", "stays"]).ok();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}

/// The server is killed while its key is changed, again and again: nothing is lost, and the next one brings it to its end.
#[test]
fn a_new_key_takes_over_whenever_the_server_is_killed() {
    let mut cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let many: Vec<String> = (0..40)
        .map(|n| format!("{{apiVersion: v1, kind: Secret, metadata: {{name: s{n}}}, stringData: {{a: b}}}}"))
        .collect();
    cluster.apply(OBJECTS).ok();
    cluster.apply(&many.join("\n---\n")).ok();
    let key = cluster.data_dir().join("pki").join("encryption.key");
    let first = std::fs::read(&key).expect("a key");
    for killed_after_ms in [0, 5, 20, 60] {
        let mut rotation = cluster.command(&["store", "rotate-key"]).spawn().expect("starts");
        std::thread::park_timeout(Duration::from_millis(killed_after_ms));
        cluster.kill();
        rotation.wait().expect("ends");
        cluster.launch();
        objects_are_there(&cluster);
        assert_eq!(cluster.list("secrets", "default").expect("secrets").len(), 41);
        assert_eq!(std::fs::read(&key).expect("a key").len(), 32, "brought to its end");
    }
    let told = cluster.kedge(&["store", "rotate-key"]).ok();
    assert!(told.contains("secrets have a new key; old keys deleted: 1"), "{told}");
    assert_ne!(std::fs::read(&key).expect("a key"), first);
    cluster.kill();
    let told = cluster.kedge(&["store", "check"]).ok();
    assert!(told.contains(" 0 of them unreadable"), "{told}");
    let told = cluster.kedge(&["store", "rotate-key"]);
    assert!(told.code != Some(0) && told.stderr.contains("no server runs"), "{told:?}");
}

/// A disk of a few kilobytes, in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("kedge-t-disk-{}-{size}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "kedge-t"]).arg(&folder).status();
        assert!(mounted.expect("mount").success(), "this needs root");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
        drop(std::fs::remove_dir(&self.0));
    }
}

#[test]
fn a_full_disk_is_told_of_with_its_remedy() {
    for (size, filled) in [("64k", true), ("24k", false)] {
        let disk = SmallDisk::new(size);
        let data = disk.0.join("data");
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join("lock"), "").expect("a cluster's folder");
        if filled {
            // As much as there is room for.
            std::fs::write(disk.0.join("ballast"), vec![7; 128 << 10]).expect_err("there is not so much");
        }
        for verb in [&["server"][..], &["up", "--timeout", "60s"]] {
            let mut kedge = Command::new(env!("CARGO_BIN_EXE_kedge"));
            let told =
                kedge.args(verb).arg("--data-dir").arg(&data).current_dir(&disk.0).output().expect("runs");
            let text = String::from_utf8_lossy(&told.stderr).into_owned();
            assert!(!told.status.success(), "{size} {verb:?}: {text}");
            let remedy = format!("no room is left on the disk of {}: make room there", data.display());
            assert!(text.contains(&remedy), "{size} {verb:?}: {text}");
        }
    }
}
