//! A StatefulSet for real: its pods come one after the other, each with a name, an address by that name and data of its own, and
//! keep them over the death of a pod, an update and a change of size.

use std::time::Duration;

use serde_json::Value;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(60);

/// A container that tells of its beginning and end in a file that all share, counts its beginnings in its own volume, and is ready
/// from when the test lets it.
fn manifest(shared: &str, replicas: u32, version: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 20
      volumes: [{{name: shared, hostPath: {{path: {shared}}}}}]
      containers:
      - name: c
        image: localhost/busybox:1
        env: [{{name: VERSION, value: '{version}'}}]
        command:
        - sh
        - -c
        - |
          trap 'echo "$HOSTNAME of $VERSION ends" >> /shared/told; exit 0' TERM
          echo "$HOSTNAME" >> /data/beginnings
          echo "$HOSTNAME of $VERSION begins" >> /shared/told
          sleep 100000 & wait
        readinessProbe: {{exec: {{command: [sh, -c, 'test -e /shared/open-$HOSTNAME']}}, periodSeconds: 1}}
        volumeMounts: [{{name: shared, mountPath: /shared}}, {{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
"#
    )
}

struct World {
    cluster: Cluster,
    shared: std::path::PathBuf,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
        cluster.busybox();
        let shared = cluster.folder().join("shared");
        std::fs::create_dir_all(&shared).expect("a folder");
        Self { cluster, shared }
    }

    fn apply(&self, replicas: u32, version: &str) {
        self.cluster.apply(&manifest(self.shared.to_str().expect("a plain path"), replicas, version)).ok();
    }

    /// What the containers have told since the last time, in order.
    fn told(&self) -> Vec<String> {
        let path = self.shared.join("told");
        let told = std::fs::read_to_string(&path).unwrap_or_default();
        drop(std::fs::remove_file(&path));
        told.lines().map(str::to_owned).collect()
    }

    fn pod(&self, ordinal: u32) -> Result<Value, String> {
        self.cluster.get("pod", "default", &format!("web-{ordinal}"))
    }

    fn pods(&self) -> Vec<String> {
        let pods = self.cluster.list("pods", "default").expect("pods");
        let mut names: Vec<_> =
            pods.iter().filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        names
    }

    /// The set, once it is done with what it was told.
    fn settled(&self, name: &str, replicas: u32) -> Value {
        until(&format!("all {replicas} of {name} are ready and up to date"), LIMIT, || {
            let set = self.cluster.get("statefulset", "default", name)?;
            let status = &set["status"];
            let all = |field: &str| status[field] == replicas;
            let seen = status["observedGeneration"] == set["metadata"]["generation"];
            let done = status["currentRevision"] == status["updateRevision"];
            let ready = all("replicas") && all("readyReplicas") && all("updatedReplicas");
            if seen && done && ready { Ok(status.clone()) } else { Err(status.to_string()) }
        })
    }

    fn in_pod(&self, ordinal: u32, command: &[&str]) -> String {
        let pod = format!("web-{ordinal}");
        let ran = self.cluster.kedge(&[&["exec", &pod, "--"], command].concat());
        ran.stdout + &ran.stderr
    }
}

#[test]
fn each_pod_of_a_stateful_set_is_somebody() {
    let world = World::new();
    begins_in_order(&world);
    has_names(&world);
    comes_back_as_it_was(&world);
    is_updated_from_the_top(&world);
    is_made_smaller_from_the_top(&world);
    is_updated_though_its_pods_go_at_once(&world);
}

/// Each waits until the one before is ready.
fn begins_in_order(world: &World) {
    world.apply(3, "1");
    for ordinal in 0..3 {
        until(&format!("web-{ordinal} runs"), LIMIT, || {
            let pod = world.pod(ordinal)?;
            let runs = pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
            if runs { Ok(()) } else { Err(pod["status"].to_string()) }
        });
        let so_far: Vec<String> = (0..=ordinal).map(|n| format!("web-{n}")).collect();
        assert_eq!(world.pods(), so_far, "web-{ordinal} is not ready yet");
        std::fs::write(world.shared.join(format!("open-web-{ordinal}")), "").expect("written");
    }
    world.settled("web", 3);
    assert_eq!(world.told(), ["web-0 of 1 begins", "web-1 of 1 begins", "web-2 of 1 begins"]);
    for ordinal in 0..3 {
        let claim = world.cluster.get("pvc", "default", &format!("data-web-{ordinal}")).expect("a claim");
        assert_eq!(claim["status"]["phase"], "Bound", "{claim}");
        let pod = world.pod(ordinal).expect("the pod");
        let index = &pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"];
        assert_eq!(*index, ordinal.to_string(), "{pod}");
    }
}

/// Asks for a name until the answer is the one address.
fn resolves(world: &World, name: &str, address: &str) {
    until(&format!("{name} is {address}"), LIMIT, || {
        let said = world.in_pod(1, &["nslookup", "-type=a", name]);
        // The first address is the server's own.
        let found: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("Address: ")).collect();
        if found == [address] { Ok(()) } else { Err(said) }
    });
}

fn address(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().expect("an address")
}

/// By its own name below the service's, and by its address.
fn has_names(world: &World) {
    for ordinal in [0, 2] {
        let pod = world.pod(ordinal).expect("the pod");
        let ip = address(&pod);
        resolves(world, &format!("web-{ordinal}.web.default.svc.cluster.local"), ip);
        resolves(world, &format!("{}.default.pod.cluster.local", ip.replace('.', "-")), ip);
    }
    let said = world.in_pod(1, &["nslookup", "-type=a", "web-3.web.default.svc.cluster.local"]);
    assert!(said.contains("NXDOMAIN"), "{said}");
    assert_eq!(world.in_pod(0, &["hostname"]), "web-0\n");
    assert_eq!(world.in_pod(0, &["hostname", "-f"]), "web-0.web.default.svc.cluster.local\n");
}

/// Another pod of the same name, with the same claim and what is in it.
fn comes_back_as_it_was(world: &World) {
    let before = world.pod(1).expect("the pod");
    world.cluster.kedge(&["delete", "pod", "web-1"]).ok();
    let after = until("another web-1 runs", LIMIT, || {
        let pod = world.pod(1)?;
        let another = pod["metadata"]["uid"] != before["metadata"]["uid"];
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        if another && ready { Ok(pod) } else { Err(pod["status"].to_string()) }
    });
    let claim = |pod: &Value| {
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
        volumes.iter().find(|v| v["name"] == "data").map(|v| v["persistentVolumeClaim"]["claimName"].clone())
    };
    assert_eq!((claim(&before), claim(&after)), (Some("data-web-1".into()), Some("data-web-1".into())));
    assert_eq!(world.in_pod(1, &["cat", "/data/beginnings"]), "web-1\nweb-1\n");
    assert_eq!(world.told(), ["web-1 of 1 ends", "web-1 of 1 begins"], "the others stayed");
    let pod = after.clone();
    resolves(world, "web-1.web.default.svc.cluster.local", address(&pod));
    world.settled("web", 3);
}

fn is_updated_from_the_top(world: &World) {
    world.apply(3, "2");
    world.settled("web", 3);
    let wanted: Vec<String> = [2, 1, 0]
        .iter()
        .flat_map(|n| [format!("web-{n} of 1 ends"), format!("web-{n} of 2 begins")])
        .collect();
    assert_eq!(world.told(), wanted);
    assert_eq!(world.in_pod(2, &["cat", "/data/beginnings"]), "web-2\nweb-2\n");
}

fn is_made_smaller_from_the_top(world: &World) {
    world.apply(1, "2");
    world.settled("web", 1);
    assert_eq!(world.told(), ["web-2 of 2 ends", "web-1 of 2 ends"]);
    assert_eq!(world.pods(), ["web-0"]);
    // What was theirs waits for them.
    world.apply(2, "2");
    world.settled("web", 2);
    assert_eq!(world.in_pod(1, &["cat", "/data/beginnings"]), "web-1\nweb-1\nweb-1\nweb-1\n");
}

/// Whoever is given no time to end is gone before anybody has seen it go.
fn is_updated_though_its_pods_go_at_once(world: &World) {
    for version in ["1", "2"] {
        world
            .cluster
            .apply(&format!(
                "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: quick}}, spec: {{replicas: 2, podManagementPolicy: Parallel, selector: {{matchLabels: {{app: quick}}}}, template: \
                 {{metadata: {{labels: {{app: quick}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'localhost/busybox:1', command: [sleep, '100000'], \
                 env: [{{name: VERSION, value: '{version}'}}]}}]}}}}}}}}"
            ))
            .ok();
        world.settled("quick", 2);
        for name in ["quick-0", "quick-1"] {
            let pod = world.cluster.get("pod", "default", name).expect("the pod");
            assert_eq!(pod["spec"]["containers"][0]["env"][0]["value"], version, "{name}");
        }
    }
}
