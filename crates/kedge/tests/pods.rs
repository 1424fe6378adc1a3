//! Pods for real: what happens when containers end, run out of memory, cannot start, or are not allowed.

use std::time::Duration;

use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(40);

fn cluster() -> Cluster {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.busybox();
    cluster
}

fn pod(name: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: 'localhost/busybox:1', {rest}}}]}}}}"
    )
}

/// The status of a pod's only container.
fn status(cluster: &Cluster, name: &str) -> Result<Value, String> {
    let pod = cluster.get("pod", "default", name)?;
    let status = pod["status"]["containerStatuses"][0].clone();
    if status.is_null() { Err(format!("no container status yet: {}", pod["status"])) } else { Ok(status) }
}

fn wait_ready(cluster: &Cluster, name: &str) -> Value {
    until("the pod is ready", LIMIT, || {
        let status = status(cluster, name)?;
        if status["ready"] == true { Ok(status) } else { Err(status.to_string()) }
    })
}

#[test]
fn a_killed_container_is_restarted_and_counted() {
    let cluster = cluster();
    cluster.apply(&pod("victim", "command: [sh, -c, 'sleep 1000']")).ok();
    wait_ready(&cluster, "victim");
    // The process itself, as the machine sees it.
    cluster.kedge(&["exec", "victim", "--", "sh", "-c", "kill -9 -1; kill -9 1; kill -TERM 1; exit 0"]);
    let pids = container_processes(&cluster, "sleep 1000");
    for pid in &pids {
        assert!(std::process::Command::new("kill").args(["-9", pid]).status().expect("kill runs").success());
    }
    let after = until("one restart", LIMIT, || {
        let status = status(&cluster, "victim")?;
        if status["restartCount"].as_i64() >= Some(1) && status["ready"] == true {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    assert_eq!(after["lastState"]["terminated"]["exitCode"], 137, "{after}");
}

/// Processes of this cluster's containers with such a command line.
fn container_processes(cluster: &Cluster, wanted: &str) -> Vec<String> {
    let prefix = base::layout::Layout::new(cluster.data_dir()).cgroup_prefix();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let path = entry.path();
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("cgroup").contains(&prefix) && read("cmdline").replace('\0', " ").trim() == wanted {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn a_crash_loop_backs_off_and_says_so() {
    let cluster = cluster();
    cluster.apply(&pod("crash", "command: [sh, -c, 'echo last words; exit 7']")).ok();
    let waiting = until("a crash loop", LIMIT, || {
        let status = status(&cluster, "crash")?;
        let reason = &status["state"]["waiting"]["reason"];
        if *reason == "CrashLoopBackOff" { Ok(status) } else { Err(status.to_string()) }
    });
    assert_eq!(waiting["lastState"]["terminated"]["exitCode"], 7, "{waiting}");
    let message = waiting["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("restarting failed container=main pod=crash_default"), "{message}");
    let logs = cluster.kedge(&["logs", "-p", "crash"]).ok();
    assert_eq!(logs, "last words\n");
    let events = cluster.list("events", "default").expect("events");
    assert!(
        events.iter().any(|e| e["reason"] == "BackOff" && e["involvedObject"]["name"] == "crash"),
        "{events:#?}"
    );
}

#[test]
fn a_filled_memory_limit_is_reported() {
    let cluster = cluster();
    let greedy = "command: [sh, -c, 'x=a; while true; do x=$x$x; done'], resources: {limits: {memory: 24Mi}}";
    cluster.apply(&pod("greedy", greedy)).ok();
    until("OOMKilled", LIMIT, || {
        let status = status(&cluster, "greedy")?;
        let states = [&status["state"], &status["lastState"]];
        let killed = states
            .iter()
            .any(|s| s["terminated"]["reason"] == "OOMKilled" && s["terminated"]["exitCode"] == 137);
        if killed { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_deleted_pod_is_replaced() {
    let cluster = cluster();
    cluster
        .apply(
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 1, selector: {matchLabels: {app: web}}, template: {metadata: \
             {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}]}}}}",
        )
        .ok();
    let running = |not: &str| {
        let pods = cluster.list("pods", "default")?;
        let found = pods.iter().find(|p| p["status"]["phase"] == "Running" && p["metadata"]["name"] != *not);
        found
            .map(|p| p["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .ok_or_else(|| format!("{pods:?}"))
    };
    let first = until("a running pod", LIMIT, || running(""));
    let uid = cluster.get("pod", "default", &first).expect("the pod")["metadata"]["uid"]
        .as_str()
        .expect("a uid")
        .to_owned();
    assert!(!groups_of(&cluster, &uid).is_empty(), "the check sees no control group of a running pod");
    cluster.kedge(&["delete", "pod", &first]).ok();
    let second = until("another running pod", LIMIT, || running(&first));
    assert_ne!(first, second);
    until("the pod's control groups are gone", LIMIT, || match groups_of(&cluster, &uid) {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

/// Control groups of a pod in any hierarchy.
fn groups_of(cluster: &Cluster, uid: &str) -> Vec<std::path::PathBuf> {
    let prefix = base::layout::Layout::new(cluster.data_dir()).cgroup_prefix();
    let mut found = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("control groups").flatten() {
        // The unified hierarchy may be the root itself.
        for root in [hierarchy.path().join(&prefix), std::path::Path::new("/sys/fs/cgroup").join(&prefix)] {
            for class in std::fs::read_dir(root).into_iter().flatten().flatten() {
                found.extend(Some(class.path().join(format!("pod{uid}"))).filter(|p| p.exists()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn what_cannot_run_says_why() {
    let cluster = cluster();
    let missing = pod("missing", "imagePullPolicy: IfNotPresent")
        .replace("localhost/busybox:1", "127.0.0.1:1/nothing:1");
    cluster.apply(&missing).ok();
    cluster.apply(&pod("huge", "resources: {requests: {cpu: '640'}}")).ok();
    cluster.apply(&pod("lost", "command: [/no/such/program]")).ok();
    cluster
        .apply(&pod("unset", "env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: a}}}]"))
        .ok();

    let waiting = |name: &str, wanted: &[&str]| {
        let name = name.to_owned();
        until(&format!("{name} waits for {wanted:?}"), LIMIT, || {
            let status = status(&cluster, &name)?;
            let reason = status["state"]["waiting"]["reason"].as_str().unwrap_or_default();
            if wanted.contains(&reason) {
                Ok(status["state"]["waiting"]["message"].clone())
            } else {
                Err(status.to_string())
            }
        })
    };
    let message = waiting("missing", &["ImagePullBackOff"]);
    assert!(
        message.as_str().unwrap_or_default().starts_with("Back-off pulling image \"127.0.0.1:1/nothing:1\""),
        "{message}"
    );
    // The first refusal is soon followed by the waiting; the event of it stays.
    until("the event of the first refusal", LIMIT, || {
        let events = cluster.list("events", "default")?;
        let refused =
            |e: &&Value| e["message"] == "Error: ErrImagePull" && e["involvedObject"]["name"] == "missing";
        events.iter().find(refused).map(drop).ok_or_else(|| format!("{} events", events.len()))
    });
    let message = waiting("unset", &["CreateContainerConfigError"]);
    assert_eq!(message, "configmap \"nowhere\" not found");
    until("the program is not found", LIMIT, || {
        let status = status(&cluster, "lost")?;
        let states = [&status["state"], &status["lastState"]];
        let found =
            states.iter().any(|s| s["terminated"]["exitCode"] == 127 || s["terminated"]["exitCode"] == 128);
        if found { Ok(()) } else { Err(status.to_string()) }
    });
    let condition = until("the pod is found not to fit", LIMIT, || {
        let pod = cluster.get("pod", "default", "huge")?;
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .into_iter()
            .find(|c| c["type"] == "PodScheduled" && c["reason"] == "Unschedulable")
            .ok_or(pod["status"].to_string())
    });
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{message}");
    scheduling_is_told(&cluster, "huge", "Warning", "FailedScheduling", message);
    let placed = "Successfully assigned default/lost to node-1";
    scheduling_is_told(&cluster, "lost", "Normal", "Scheduled", placed);
}

/// What the scheduler says of a pod, and nothing else.
fn scheduling_is_told(cluster: &Cluster, name: &str, level: &str, reason: &str, message: &str) {
    let events = until(&format!("an event of {name}'s scheduling"), LIMIT, || {
        let mut events = cluster.list("events", "default")?;
        events.retain(|e| {
            e["involvedObject"]["name"] == name
                && e["source"]["component"].as_str().or(e["reportingComponent"].as_str())
                    == Some("default-scheduler")
        });
        if events.is_empty() { Err("there is none".to_owned()) } else { Ok(events) }
    });
    for event in &events {
        let told = ["type", "reason", "message"].map(|field| event[field].as_str().unwrap_or_default());
        assert_eq!(told, [level, reason, message], "{event}");
        let uid = cluster.get("pod", "default", name).expect("the pod")["metadata"]["uid"].clone();
        assert_eq!(
            (&event["involvedObject"]["kind"], &event["involvedObject"]["uid"]),
            (&"Pod".into(), &uid)
        );
    }
}

#[test]
fn wrong_input_is_refused_in_known_words() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let refused = |manifest: &str| {
        let ran = cluster.apply(manifest);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        ran.stderr
    };
    let invalid =
        refused("{apiVersion: v1, kind: Pod, metadata: {name: Bad_Name}, spec: {containers: [{name: a}]}}");
    assert!(invalid.contains("Pod \"Bad_Name\" is invalid"), "{invalid}");
    assert!(
        invalid.contains("metadata.name: Invalid value") || invalid.contains("RFC 1123 subdomain"),
        "{invalid}"
    );
    let unknown = refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: a, image: b, comand: [x]}]}}",
    );
    let wanted = ".spec.containers[name=\"a\"].comand: field not declared in schema";
    assert!(unknown.contains(wanted), "{unknown}");
    let nowhere = refused("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: nowhere}}");
    assert!(nowhere.contains("namespaces \"nowhere\" not found"), "{nowhere}");
    let nothing = refused("{apiVersion: nothing.dev/v1, kind: Nothing, metadata: {name: a}}");
    assert!(nothing.contains("Nothing"), "{nothing}");
}

/// An image with the program that answers probes over TLS and gRPC.
fn served(cluster: &Cluster) {
    let program = std::path::PathBuf::from(env!("CARGO_BIN_EXE_kedge")).with_file_name("served");
    assert!(program.exists(), "{} is missing: run `cargo build --package testkit` first", program.display());
    let context = cluster.folder().join("served");
    std::fs::create_dir_all(&context).expect("a folder");
    std::fs::copy(&program, context.join("served")).expect("copied");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM localhost/busybox:1\nCOPY served /bin/served\nCMD [\"/bin/served\"]\n",
    )
    .expect("written");
    cluster.kedge(&["build", "-t", "localhost/served:1", context.to_str().expect("a plain path")]).ok();
}

#[test]
fn probes_over_tls_and_grpc_decide() {
    let cluster = cluster();
    served(&cluster);
    let tls = "httpGet: {port: 8443, path: /, scheme: HTTPS}, periodSeconds: 1, failureThreshold: 1";
    let probes = |name: &str, rest: &str| {
        let manifest = pod(name, rest).replace("localhost/busybox:1", "localhost/served:1");
        cluster.apply(&manifest).ok();
    };
    probes("tls", &format!("readinessProbe: {{{tls}}}"));
    probes(
        "grpc",
        "readinessProbe: {grpc: {port: 9090, service: shop}, periodSeconds: 1, failureThreshold: 1}",
    );
    probes(
        "unknown",
        "readinessProbe: {grpc: {port: 9090, service: other}, periodSeconds: 1, failureThreshold: 1}",
    );
    probes("alive", "livenessProbe: {grpc: {port: 9090}, periodSeconds: 1, failureThreshold: 1}");
    for name in ["tls", "grpc", "alive"] {
        wait_ready(&cluster, name);
    }
    let event = |name: &str, wanted: &str| {
        until(&format!("an event of {name} that says {wanted:?}"), LIMIT, || {
            let events = cluster.list("events", "default")?;
            let of = events.iter().filter(|e| e["involvedObject"]["name"] == *name);
            let messages: Vec<&str> = of.filter_map(|e| e["message"].as_str()).collect();
            if messages.iter().any(|m| m.contains(wanted)) { Ok(()) } else { Err(format!("{messages:?}")) }
        });
    };
    event("unknown", "Readiness probe failed: ");
    assert_eq!(status(&cluster, "unknown").expect("a status")["ready"], false);

    for name in ["tls", "grpc", "alive"] {
        cluster.kedge(&["exec", name, "--", "touch", "/tmp/off"]).ok();
    }
    for name in ["tls", "grpc"] {
        until(&format!("{name} is no longer ready"), LIMIT, || {
            let status = status(&cluster, name)?;
            if status["ready"] == false { Ok(()) } else { Err(status.to_string()) }
        });
        assert_eq!(status(&cluster, name).expect("a status")["restartCount"], 0);
    }
    event("tls", "Readiness probe failed: HTTP probe failed with statuscode: 503");
    event("grpc", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")");
    // What its liveness says is met by a new container, with a file system of its own.
    until("the container was replaced and is ready", LIMIT, || {
        let status = status(&cluster, "alive")?;
        let replaced = status["restartCount"].as_i64() >= Some(1) && status["ready"] == true;
        if replaced { Ok(()) } else { Err(status.to_string()) }
    });
    event("alive", "Container main failed liveness probe, will be restarted");
}

/// A port that listens and ceases to: what is not ready is left alone, what is not alive is replaced.
#[test]
fn a_tcp_probe_is_a_connection() {
    let cluster = cluster();
    // Ends when it is told to, and what holds the container goes on.
    let script = "nc -ll -p 7070 -e true & echo $! > /tmp/listener; sleep 1000";
    let probe = |kind: &str| {
        format!(
            "command: [sh, -c, '{script}'], ports: [{{name: p, containerPort: 7070}}], {kind}: {{tcpSocket: {{port: p}}, \
             periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}}"
        )
    };
    cluster.apply(&pod("door", &probe("readinessProbe"))).ok();
    cluster.apply(&pod("heart", &probe("livenessProbe"))).ok();
    cluster
        .apply(&pod(
            "wall",
            "command: [sleep, '1000'], readinessProbe: {tcpSocket: {port: 7070}, periodSeconds: 1}",
        ))
        .ok();
    for name in ["door", "heart"] {
        wait_ready(&cluster, name);
        until(&format!("{name} ceases to listen"), LIMIT, || {
            let ran = cluster.kedge(&[
                "exec",
                name,
                "--",
                "sh",
                "-c",
                "test -s /tmp/listener && kill $(cat /tmp/listener)",
            ]);
            if ran.code == Some(0) { Ok(()) } else { Err(format!("{ran:?}")) }
        });
    }
    until("the door is closed", LIMIT, || {
        let status = status(&cluster, "door")?;
        if status["ready"] == false { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(status(&cluster, "door").expect("a status")["restartCount"], 0);
    until("the heart beats again", LIMIT, || {
        let status = status(&cluster, "heart")?;
        let replaced = status["restartCount"].as_i64() >= Some(1) && status["ready"] == true;
        if replaced { Ok(()) } else { Err(status.to_string()) }
    });
    for (name, kind) in [("door", "Readiness"), ("wall", "Readiness"), ("heart", "Liveness")] {
        let ip = cluster.get("pod", "default", name).expect("a pod")["status"]["podIP"].clone();
        let ip = ip.as_str().expect("an address");
        let refused = format!("{kind} probe failed: dial tcp {ip}:7070: connect: connection refused");
        until(&format!("{name} is told to refuse"), LIMIT, || {
            let events = cluster.list("events", "default")?;
            let of = events.iter().filter(|e| e["involvedObject"]["name"] == *name);
            let messages: Vec<&str> = of.filter_map(|e| e["message"].as_str()).collect();
            if messages.contains(&refused.as_str()) {
                Ok(())
            } else {
                Err(format!("{refused}: {messages:?}"))
            }
        });
    }
    assert_eq!(status(&cluster, "wall").expect("a status")["ready"], false, "nobody ever listened there");
}

#[test]
fn a_pod_that_moves_to_another_sandbox_has_its_new_address_alone() {
    let mut cluster = cluster();
    cluster.apply(&pod("mover", "command: [sleep, '1000']")).ok();
    cluster.apply(&pod("other", "command: [sleep, '1000']")).ok();
    wait_ready(&cluster, "mover");
    for round in 0..2 {
        cluster.kill();
        cluster.kedge(&["down"]).ok();
        cluster.launch();
        until("the pod is up again", LIMIT, || {
            let pod = cluster.get("pod", "default", "mover")?;
            let status = &pod["status"];
            let restarts = status["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0);
            let ready = status["containerStatuses"][0]["ready"] == true && restarts > round;
            if ready { Ok(()) } else { Err(status.to_string()) }
        });
        let pod = cluster.get("pod", "default", "mover").expect("a pod");
        let ip = &pod["status"]["podIP"];
        assert_eq!(pod["status"]["podIPs"], serde_json::json!([{"ip": ip}]), "{}", pod["status"]);
    }
}

#[test]
fn a_command_that_is_not_there_is_told_and_a_workload_stands_for_its_pods() {
    let cluster = cluster();
    let labels = "{app: few}";
    let template = format!(
        "{{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '1000']}}]}}}}"
    );
    cluster
        .apply(&format!("{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: few}}, spec: {{selector: {{matchLabels: {labels}}}, template: {template}}}}}"))
        .ok();
    until("the deployment is available", LIMIT, || {
        let found = cluster.get("deployment", "default", "few")?;
        if found["status"]["availableReplicas"] == 1 { Ok(()) } else { Err(found["status"].to_string()) }
    });
    let said = cluster.kedge(&["exec", "deploy/few", "--", "echo", "here"]).ok();
    assert_eq!(said.trim(), "here");
    let mut command = cluster.command(&["exec", "deploy/few", "--", "nothing-of-the-kind"]);
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(127));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("\"nothing-of-the-kind\": executable file not found in $PATH"), "{text}");
    let ended = cluster.kedge(&["exec", "deploy/few", "--", "sh", "-c", "exit 3"]);
    assert_eq!((ended.code, ended.stderr.trim()), (Some(3), "command terminated with exit code 3"));
}
