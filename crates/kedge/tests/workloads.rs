//! How workloads replace their pods, and who goes when there is not room for all.

use std::time::Duration;

use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    cluster
}

/// A Deployment whose container cannot bear another beside it: it takes a lock that only its end gives back.
fn exclusive(folder: &str, version: &str, rest: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: solo}}\nspec:\n  replicas: 1\n  {rest}\n  selector: {{matchLabels: {{app: solo}}}}\n  template:\n    \
         metadata: {{labels: {{app: solo}}}}\n    spec:\n      terminationGracePeriodSeconds: 10\n      volumes: [{{name: v, hostPath: {{path: {folder}}}}}]\n      \
         containers:\n      - name: c\n        image: localhost/busybox:1\n        env: [{{name: VERSION, value: '{version}'}}]\n        command: [sh, -c, 'mkdir \
         /v/lock || exit 9; trap \"rmdir /v/lock; exit 0\" TERM; while true; do sleep 0.1; done']\n        volumeMounts: [{{name: v, mountPath: /v}}]\n        \
         readinessProbe: {{exec: {{command: [test, -e, /v/lock]}}, periodSeconds: 1}}\n"
    )
}

/// The pod of the given version, once the Deployment has come to rest on it alone.
fn settled(cluster: &Cluster, version: &str) -> Value {
    until(&format!("only version {version} is there, and ready"), LIMIT, || {
        let pods = cluster.list("pods", "default")?;
        let [pod] = pods.as_slice() else { return Err(format!("{} pods", pods.len())) };
        let env = &pod["spec"]["containers"][0]["env"][0]["value"];
        let status = &pod["status"]["containerStatuses"][0];
        if env == version && status["ready"] == true {
            Ok(pod.clone())
        } else {
            Err(format!("{env}: {}", pod["status"]))
        }
    })
}

#[test]
fn recreate_never_runs_two_versions_and_a_paused_deployment_waits() {
    let cluster = cluster();
    let folder = cluster.folder().join("exclusive");
    std::fs::create_dir_all(&folder).expect("a folder");
    let folder = folder.to_str().expect("a plain path");
    let recreate = "strategy: {type: Recreate}";
    cluster.apply(&exclusive(folder, "1", recreate)).ok();
    settled(&cluster, "1");
    cluster.apply(&exclusive(folder, "2", recreate)).ok();
    let second = settled(&cluster, "2");
    assert_eq!(
        second["status"]["containerStatuses"][0]["restartCount"], 0,
        "it met the one before: {second}"
    );

    // A paused one takes note of its new template and leaves its pods alone.
    cluster.apply(&exclusive(folder, "3", "strategy: {type: Recreate}\n  paused: true")).ok();
    until("the controller has seen the change", LIMIT, || {
        let deployment = cluster.get("deployment", "default", "solo")?;
        let (seen, is) = (&deployment["status"]["observedGeneration"], &deployment["metadata"]["generation"]);
        if seen == is { Ok(()) } else { Err(format!("{seen} of {is}")) }
    });
    let sets = cluster.list("replicasets", "default").expect("replica sets");
    assert_eq!(sets.len(), 2, "a paused Deployment made a ReplicaSet: {sets:#?}");
    assert_eq!(settled(&cluster, "2")["metadata"]["uid"], second["metadata"]["uid"]);
    cluster.apply(&exclusive(folder, "3", "strategy: {type: Recreate}\n  paused: false")).ok();
    settled(&cluster, "3");
}

fn pod(name: &str, class: &str, cpu: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{priorityClassName: {class}, terminationGracePeriodSeconds: 0, containers: [{{name: c, \
         image: 'localhost/busybox:1', command: [sleep, '10000'], resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
    )
}

#[test]
fn the_important_pod_takes_the_place_of_the_least_important() {
    let cluster = cluster();
    for (name, value) in [("low", 10), ("middle", 100), ("high", 1000)] {
        let class = format!(
            "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, value: {value}}}"
        );
        cluster.apply(&class).ok();
    }
    let node = cluster.get("node", "", "node-1").expect("the node");
    let cpus = node["status"]["allocatable"]["cpu"].as_str().expect("a quantity").to_owned();
    let millis = match cpus.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>().expect("a number"),
        None => cpus.parse::<u64>().expect("a number") * 1000,
    };
    // Two of them fill the node; a third finds no room.
    let share = format!("{}m", millis * 45 / 100);
    let phase = |name: &str| Ok::<_, String>(cluster.get("pod", "default", name)?["status"]["phase"].clone());
    let running = |name: &str| {
        until(&format!("{name} runs"), LIMIT, || match phase(name)? {
            phase if phase == "Running" => Ok(()),
            other => Err(other.to_string()),
        });
    };
    cluster.apply(&pod("first", "low", &share)).ok();
    cluster.apply(&pod("second", "middle", &share)).ok();
    running("first");
    running("second");
    cluster.apply(&pod("third", "high", &share)).ok();
    running("third");
    let gone = cluster.get("pod", "default", "first").expect_err("the least important stayed");
    assert!(gone.contains("not found"), "{gone}");
    assert_eq!(phase("second").expect("it stays"), "Running");
    until("the event that says why", LIMIT, || {
        let events = cluster.list("events", "default")?;
        let told = |e: &&Value| e["reason"] == "Preempted" && e["involvedObject"]["name"] == "first";
        events.iter().find(told).map(drop).ok_or_else(|| format!("{} events", events.len()))
    });
    // Equals do not displace each other.
    cluster.apply(&pod("fourth", "high", &share)).ok();
    running("fourth");
    assert!(cluster.get("pod", "default", "second").is_err(), "the fourth took the place of the second");
    cluster.apply(&pod("fifth", "high", &share)).ok();
    until("the fifth is told that there is no room", LIMIT, || {
        let pod = cluster.get("pod", "default", "fifth")?;
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let message = conditions.iter().find_map(|c| c["message"].as_str()).unwrap_or_default().to_owned();
        let told = message.contains("Insufficient cpu") && message.contains("No preemption victims found");
        if told { Ok(()) } else { Err(message) }
    });
    running("third");
    running("fourth");
}

#[test]
fn a_class_of_attributes_stays_while_a_volume_names_it() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    for name in ["used", "free"] {
        cluster
            .apply(&format!(
                "{{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {{name: {name}}}, driverName: a.example.com, parameters: {{a: b}}}}"
            ))
            .ok();
    }
    cluster
        .apply("{apiVersion: v1, kind: PersistentVolume, metadata: {name: v}, spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], volumeAttributesClassName: used, csi: {driver: a.example.com, volumeHandle: h}}}")
        .ok();
    for name in ["used", "free"] {
        cluster.kedge(&["delete", "volumeattributesclass", name, "--wait=false"]).ok();
    }
    let exists = |name: &str| cluster.get("volumeattributesclass", "", name);
    until("the one that nobody names goes", LIMIT, || match exists("free") {
        Ok(found) => Err(found["metadata"].to_string()),
        Err(_) => Ok(()),
    });
    let held = exists("used").expect("it is held");
    assert!(held["metadata"]["deletionTimestamp"].is_string(), "{held}");
    cluster.kedge(&["delete", "persistentvolume", "v"]).ok();
    until("the other follows its volume", LIMIT, || match exists("used") {
        Ok(found) => Err(found["metadata"].to_string()),
        Err(_) => Ok(()),
    });
}
