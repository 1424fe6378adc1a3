//! How workloads replace their pods, and who goes when there is not room for all.

use std::time::Duration;

use serde_json::Value;
use testkit::api::Api;
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

/// What a client without a verb of ours asks for: a merge patch of a path of the API.
fn patch(cluster: &Cluster, path: &str, body: &str) -> Value {
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let headers = [("content-type", "application/merge-patch+json")];
    let body = body.to_owned();
    let answer =
        runtime.block_on(async { api.connect().await.done_with("PATCH", path, &headers, body).await });
    serde_json::from_slice(&answer).expect("an object")
}

/// Code and message of the eviction of a pod.
fn evict(cluster: &Cluster, pod: &Value) -> (u16, Value) {
    let api = Api::read(&cluster.data_dir().join("kubeconfig"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    let body = serde_json::json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let headers = [("content-type", "application/json")];
    let (code, answer) = runtime
        .block_on(async { api.connect().await.answer_with("POST", &path, &headers, body.to_string()).await });
    (code, serde_json::from_slice::<Value>(&answer).expect("a status"))
}

/// The budget `b` has counted three and may spare one; then it may spare none.
fn evictions_keep_to_what_is_counted(cluster: &Cluster, pods: &[Value]) {
    let (code, answer) = evict(cluster, &pods[0]);
    assert_eq!(code, 201, "{answer}");
    let path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/b";
    patch(cluster, path, r#"{"spec":{"maxUnavailable":0}}"#);
    until("the budget may spare none of three", LIMIT, || {
        let status = cluster.get("poddisruptionbudget", "default", "b")?["status"].clone();
        let counted = status["desiredHealthy"] == 3 && status["currentHealthy"] == 3;
        if counted && status["disruptionsAllowed"] == 0 { Ok(()) } else { Err(status.to_string()) }
    });
    let (code, answer) = evict(cluster, &pods[1]);
    assert_eq!(code, 429, "{answer}");
    let cause = &answer["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget", "{answer}");
    assert_eq!(
        cause["message"], "The disruption budget b needs 3 healthy pods and has 3 currently",
        "{answer}"
    );
    let name = pods[1]["metadata"]["name"].as_str().expect("a name");
    let kept = cluster.get("pod", "default", name).expect("it is there");
    assert!(kept["metadata"]["deletionTimestamp"].is_null(), "{kept}");
}

const OLD: &str = "/api/v1/namespaces/default/replicationcontrollers/old";

/// The status of the replication controller `old`, once it fits.
fn old_comes_to(cluster: &Cluster, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    until(what, LIMIT, || {
        let old = cluster.get("replicationcontroller", "default", "old")?;
        let seen = old["status"]["observedGeneration"] == old["metadata"]["generation"];
        if seen && fits(&old["status"]) { Ok(old["status"].clone()) } else { Err(old["status"].to_string()) }
    })
}

fn is_owned_by_old(pod: &Value) -> bool {
    let owner = &pod["metadata"]["ownerReferences"][0];
    owner["kind"] == "ReplicationController" && owner["apiVersion"] == "v1" && owner["name"] == "old"
}

#[test]
fn a_replication_controller_does_what_a_replica_set_does() {
    let cluster = cluster();
    let alone = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: old}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, \
             image: 'localhost/busybox:1', command: [sleep, '10000']}}]}}}}"
        )
    };
    cluster
        .apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: two}, spec: {hard: {pods: '2'}}}")
        .ok();
    until("the quota is counted", LIMIT, || {
        let quota = cluster.get("resourcequota", "default", "two")?;
        if quota["status"]["hard"]["pods"] == "2" { Ok(()) } else { Err(quota["status"].to_string()) }
    });
    cluster.apply(&alone("there-before")).ok();
    cluster
        .apply(
            "{apiVersion: v1, kind: ReplicationController, metadata: {name: old}, spec: {replicas: 3, minReadySeconds: 1, template: {metadata: {labels: {app: old, made: by-old}}, \
             spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '10000']}]}}}}",
        )
        .ok();
    // Its selector is what its template's labels are, so the pod from before, without them, is none of its business.
    let status = old_comes_to(&cluster, "it says that the quota is used up", |s| {
        s["replicas"] == 1 && s["conditions"].is_array()
    });
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&"ReplicaFailure".into(), &"True".into(), &"FailedCreate".into()),
        "{status}"
    );
    let message = condition["message"].as_str().expect("a message");
    assert!(message.starts_with("pods \"old-"), "{message}");
    assert!(
        message
            .ends_with("is forbidden: exceeded quota: two, requested: pods=1, used: pods=2, limited: pods=2"),
        "{message}"
    );

    // What fits now is taken over.
    patch(
        &cluster,
        "/api/v1/namespaces/default/pods/there-before",
        r#"{"metadata":{"labels":{"made":"by-old"}}}"#,
    );
    patch(&cluster, OLD, r#"{"spec":{"replicas":2}}"#);
    let status = old_comes_to(&cluster, "both of its two are available", |s| s["availableReplicas"] == 2);
    assert_eq!(status["conditions"], Value::Null, "{status}");
    assert_eq!(
        (&status["replicas"], &status["fullyLabeledReplicas"], &status["readyReplicas"]),
        (&2.into(), &2.into(), &2.into()),
        "{status}"
    );
    let adopted = cluster.get("pod", "default", "there-before").expect("the pod");
    assert!(is_owned_by_old(&adopted), "{adopted}");

    // What fits no longer is let go, and replaced.
    cluster.kedge(&["delete", "resourcequota", "two"]).ok();
    patch(
        &cluster,
        "/api/v1/namespaces/default/pods/there-before",
        r#"{"metadata":{"labels":{"app":"free"}}}"#,
    );
    until("the pod is free", LIMIT, || {
        let pod = cluster.get("pod", "default", "there-before")?;
        if pod["metadata"]["ownerReferences"].is_null() { Ok(()) } else { Err(pod["metadata"].to_string()) }
    });
    let of_old = || -> Result<Vec<Value>, String> {
        Ok(cluster.list("pods", "default")?.into_iter().filter(is_owned_by_old).collect())
    };
    until("another takes its place", LIMIT, || match of_old()?.len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    });

    // By its scale, as `kubectl scale` and autoscalers do it; a budget knows how many it wants.
    cluster
        .apply("{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: old}}}}")
        .ok();
    let scale = patch(&cluster, &format!("{OLD}/scale"), r#"{"spec":{"replicas":3}}"#);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&"Scale".into(), &3.into()), "{scale}");
    assert_eq!(scale["status"]["selector"], "app=old,made=by-old", "{scale}");
    old_comes_to(&cluster, "three are ready", |s| s["readyReplicas"] == 3);
    until("the budget counts three", LIMIT, || {
        let status = cluster.get("poddisruptionbudget", "default", "b")?["status"].clone();
        let counted =
            status["expectedPods"] == 3 && status["desiredHealthy"] == 2 && status["disruptionsAllowed"] == 1;
        if counted { Ok(()) } else { Err(status.to_string()) }
    });
    evictions_keep_to_what_is_counted(&cluster, &of_old().expect("pods"));
    patch(&cluster, &format!("{OLD}/scale"), r#"{"spec":{"replicas":1}}"#);
    old_comes_to(&cluster, "one is left", |s| s["replicas"] == 1 && s["readyReplicas"] == 1);
    until("its events tell of what it did", LIMIT, || {
        let events = cluster.list("events", "default")?;
        let told = |reason: &str, message: &str| {
            events.iter().any(|e| {
                e["involvedObject"]["kind"] == "ReplicationController"
                    && e["source"]["component"] == "replication-controller"
                    && e["reason"] == reason
                    && e["message"].as_str().is_some_and(|m| m.starts_with(message))
            })
        };
        let all = told("SuccessfulCreate", "Created pod: old-")
            && told("SuccessfulDelete", "Deleted pod: old-")
            && told("FailedCreate", "Error creating: pods \"old-");
        let messages = events.iter().map(|e| e["message"].to_string());
        if all { Ok(()) } else { Err(messages.collect::<Vec<_>>().join("\n")) }
    });

    // Its pods stay behind if that is asked for, and go with it otherwise.
    let [left] = <[Value; 1]>::try_from(of_old().expect("pods")).expect("one pod");
    cluster.kedge(&["delete", "replicationcontroller", "old", "--cascade", "orphan"]).ok();
    let left = left["metadata"]["name"].as_str().expect("a name").to_owned();
    until("the pod is nobody's", LIMIT, || {
        let pod = cluster.get("pod", "default", &left)?;
        if pod["metadata"]["ownerReferences"].is_null() { Ok(()) } else { Err(pod["metadata"].to_string()) }
    });
    cluster
        .apply(
            "{apiVersion: v1, kind: ReplicationController, metadata: {name: old}, spec: {replicas: 1, template: {metadata: {labels: {app: old, made: by-old}}, \
             spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'localhost/busybox:1', command: [sleep, '10000']}]}}}}",
        )
        .ok();
    until("another one takes it over", LIMIT, || match of_old()?.as_slice() {
        [pod] if pod["metadata"]["name"] == left => Ok(()),
        other => Err(other.iter().map(|p| p["metadata"]["name"].to_string()).collect::<Vec<_>>().join(" ")),
    });
    cluster.kedge(&["delete", "replicationcontroller", "old"]).ok();
    until("the pod goes with it", LIMIT, || match cluster.get("pod", "default", &left) {
        Ok(pod) => Err(pod["metadata"].to_string()),
        Err(_) => Ok(()),
    });
}

/// A service's ports on the host, and the addresses that the cluster shows of it.
fn reached_at(cluster: &Cluster, name: &str) -> Result<(String, Vec<String>), String> {
    let service = cluster.get("service", "default", name)?;
    let host = service["metadata"]["annotations"]["kedge.dev/published"].as_str().unwrap_or_default();
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    let ips: Vec<String> = ingress.iter().filter_map(|i| i["ip"].as_str().map(str::to_owned)).collect();
    if host.is_empty() || ips.is_empty() { Err(service.to_string()) } else { Ok((host.to_owned(), ips)) }
}

/// Two services want one port: the older has it, both answer, and a server that is started again changes nothing of that.
#[test]
fn a_published_port_stays_with_its_service() {
    let mut cluster = cluster();
    let port = testkit::etcd::free_port();
    // By name, the younger would be the first.
    let said = |name: &str| {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  -              {{name: c, image: 'localhost/busybox:1', command: [sh, -c, 'echo {name} > /tmp/index.html; exec httpd -f -p 80 -h /tmp']}}\n---\napiVersion:              v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, selector: {{app: {name}}}, ports: [{{port: {port}, targetPort: 80}}]}}\n"
        );
        cluster.apply(&manifest).ok();
        until(&format!("{name} has an address"), LIMIT, || reached_at(&cluster, name))
    };
    let (old, young) = (said("older"), said("a-younger"));
    let answers = |cluster: &Cluster, (host, _): &(String, Vec<String>), name: &str| {
        let host: u16 = host.parse().expect("one port");
        until(&format!("{name} answers"), LIMIT, || match testkit::http::get(host, "/") {
            Ok((200, page)) if page.trim() == name => Ok(()),
            other => Err(format!("{other:?}\n{}", cluster.log())),
        });
    };
    let check = |cluster: &Cluster| {
        assert_eq!(old.0, port.to_string());
        assert_ne!(young.0, old.0);
        assert_ne!(young.1, old.1, "one address and port for two");
        assert_eq!(reached_at(cluster, "older"), Ok(old.clone()));
        assert_eq!(reached_at(cluster, "a-younger"), Ok(young.clone()));
        answers(cluster, &old, "older");
        answers(cluster, &young, "a-younger");
        let status = cluster.kedge(&["status", "-o", "json"]).stdout;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let urls: Vec<&str> =
            status["urls"].as_array().expect("a list").iter().filter_map(|u| u["url"].as_str()).collect();
        let url = |host: &str| format!("http://localhost:{host}");
        assert_eq!(urls, [url(&young.0), url(&old.0)]);
    };
    check(&cluster);
    cluster.kill();
    cluster.launch();
    check(&cluster);
    // What the cluster shows is where it is answered, also inside of it.
    for ((_, ips), name) in [(&old, "older"), (&young, "a-younger")] {
        let url = format!("http://{}:{port}/", ips[0]);
        let ran = cluster.kedge(&["exec", "older", "--", "wget", "-q", "-O", "-", &url]).ok();
        assert_eq!(ran.trim(), name, "{url}");
    }
}

/// What a job's status may become is held by the API server: our own controller and node must keep to it.
#[test]
fn jobs_come_to_an_end_that_the_api_takes() {
    let cluster = cluster();
    let job = |name: &str, spec: &str, command: &str| {
        let manifest = format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{{spec}, template: {{spec: {{restartPolicy: OnFailure, \
             terminationGracePeriodSeconds: 0, initContainers: [{{name: i, image: 'localhost/busybox:1', command: ['true']}}], containers: \
             [{{name: c, image: 'localhost/busybox:1', command: [sh, -c, '{command}']}}]}}}}}}}}"
        );
        cluster.apply(&manifest).ok();
    };
    job("good", "completions: 3, parallelism: 2, completionMode: Indexed", "exit 0");
    job("late", "activeDeadlineSeconds: 2", "sleep 1000");
    job("flaky", "backoffLimit: 6", "test -e /tmp/again && exit 0; exit 1");
    let ended = |name: &str, condition: &str| {
        until(&format!("{name} is {condition}"), LIMIT, || {
            let status = cluster.get("job", "default", name)?["status"].clone();
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let is = conditions.iter().any(|c| c["type"] == condition && c["status"] == "True");
            if is { Ok(status) } else { Err(status.to_string()) }
        })
    };
    let good = ended("good", "Complete");
    assert_eq!((&good["succeeded"], &good["completedIndexes"]), (&Value::from(3), &Value::from("0-2")));
    let late = ended("late", "Failed");
    assert!(late["completionTime"].is_null(), "{late}");
    // Its container runs again in the same pod, and the API takes that it does.
    until("the container of flaky ran again", LIMIT, || {
        let pods = cluster.list("pods", "default")?;
        let again = pods
            .iter()
            .filter(|pod| pod["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("flaky")));
        let counts: Vec<i64> = again
            .map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0))
            .collect();
        if counts.iter().any(|count| *count > 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}
