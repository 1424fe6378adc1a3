//! What controllers and the API do together in a namespace: what a quota counts and gives back, what every namespace has, in which order
//! one goes, and how the API itself is found. By the real program, with nothing that runs.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::cluster::Ran;
use testkit::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(30);

/// A scheduler that there is not, so that pods stay as they are.
fn pod(name: &str, spec: &str, container: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{schedulerName: nobody, terminationGracePeriodSeconds: 0, {spec} \
         containers: [{{name: c, image: 'localhost/none:1', {container}}}]}}}}"
    )
}

const TEMPLATE: &str = "replicas: 0, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";

/// In a namespace that nobody else has anything in.
fn apply(cluster: &Cluster, manifest: &str) -> Ran {
    cluster.kedge_with_input(&["apply", "-n", "counted", "-f", "-"], manifest)
}

/// Waits until a quota says that so much of everything that it limits is used.
fn uses(cluster: &Cluster, quota: &str, when: &str, expected: &Value) {
    until(&format!("{quota} has {expected} {when}"), LIMIT, || {
        let status = cluster.get("resourcequota", "counted", quota)?["status"].clone();
        if status["used"] == *expected { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Each is counted when it is made, and given back when it goes.
fn is_counted(cluster: &Cluster, quota: &str, hard: &Value, object: &str, used: &Value) {
    let zero =
        Value::Object(hard.as_object().expect("amounts").keys().map(|k| (k.clone(), "0".into())).collect());
    // What is there from the beginning is counted too.
    let before = until(&format!("{quota} is counted"), LIMIT, || {
        let status = cluster.get("resourcequota", "counted", quota)?["status"].clone();
        if status["hard"] == *hard { Ok(status["used"].clone()) } else { Err(status.to_string()) }
    });
    assert_eq!(before, zero, "{quota}");
    apply(cluster, object).ok();
    uses(cluster, quota, "of what is there", used);
    let deleted = cluster.kedge_with_input(&["delete", "-n", "counted", "-f", "-"], object);
    deleted.ok();
    uses(cluster, quota, "when it is gone", &zero);
}

fn quota(cluster: &Cluster, name: &str, spec: &Value) {
    let quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
    apply(cluster, &quota.to_string()).ok();
}

#[test]
fn a_quota_counts_what_is_made_and_gives_back_what_goes() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let definition = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.com}, spec: {group: example.com, scope: Namespaced, \
        names: {plural: widgets, kind: Widget}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}";
    cluster.apply(definition).ok();
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: counted}}").ok();
    for (kind, name) in [("serviceaccount", "default"), ("configmap", "kube-root-ca.crt")] {
        until(&format!("{name} is there"), LIMIT, || cluster.get(kind, "counted", name));
    }
    let resources = "resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 200m, memory: 2Mi}}";
    let of_kind = |kind: &str, version: &str, rest: &str| {
        format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}, {rest}}}")
    };
    let claim =
        "spec: {storageClassName: gold, accessModes: [ReadWriteOnce], resources: {requests: {storage: 3Gi}}}";
    let cases = [
        (
            "pods",
            json!({"pods": "5", "count/pods": "5", "requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "1", "limits.memory": "1Gi"}),
            pod("x", "", resources),
            json!({"pods": "1", "count/pods": "1", "requests.cpu": "100m", "requests.memory": "1Mi", "limits.cpu": "200m", "limits.memory": "2Mi"}),
        ),
        (
            "services",
            json!({"services": "5", "services.nodeports": "5", "services.loadbalancers": "5"}),
            of_kind(
                "Service",
                "v1",
                "spec: {type: NodePort, ports: [{port: 80, name: a}, {port: 81, name: b}]}",
            ),
            json!({"services": "1", "services.nodeports": "2", "services.loadbalancers": "0"}),
        ),
        (
            "secrets",
            json!({"secrets": "5"}),
            of_kind("Secret", "v1", "stringData: {a: b}"),
            json!({"secrets": "1"}),
        ),
        (
            "replicasets",
            json!({"count/replicasets.apps": "5"}),
            of_kind("ReplicaSet", "apps/v1", &format!("spec: {{{TEMPLATE}}}")),
            json!({"count/replicasets.apps": "1"}),
        ),
        (
            "controllers",
            json!({"replicationcontrollers": "5"}),
            of_kind(
                "ReplicationController",
                "v1",
                &format!("spec: {{{}}}", TEMPLATE.replace("matchLabels: {a: b}", "a: b")),
            ),
            json!({"replicationcontrollers": "1"}),
        ),
        (
            "claims",
            json!({"persistentvolumeclaims": "5", "requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/requests.storage": "10Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "5"}),
            of_kind("PersistentVolumeClaim", "v1", claim),
            json!({"persistentvolumeclaims": "1", "requests.storage": "3Gi", "gold.storageclass.storage.k8s.io/requests.storage": "3Gi", "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1"}),
        ),
        (
            "widgets",
            json!({"count/widgets.example.com": "5"}),
            of_kind("Widget", "example.com/v1", "spec: {}"),
            json!({"count/widgets.example.com": "1"}),
        ),
    ];
    for (name, hard, object, used) in &cases {
        quota(&cluster, name, &json!({"hard": hard}));
        is_counted(&cluster, name, hard, object, used);
        cluster.kedge(&["delete", "-n", "counted", "resourcequota", name]).ok();
    }
    scopes_choose(&cluster, resources);
    selectors_choose(&cluster);
    a_quota_has_a_life(&cluster);
}

/// What a quota's selector chooses counts, whether the quota was there first (then it is charged) or came later (then a
/// controller counts it).
fn selectors_choose(cluster: &Cluster) {
    cluster
        .apply("{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: gold}, value: 5}")
        .ok();
    let chosen = |name: &str, counted: &str, scope: &str, operator: &str, values: &[&str]| {
        let mut expression = json!({"scopeName": scope, "operator": operator});
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        let spec = json!({"hard": {counted: "5"}, "scopeSelector": {"matchExpressions": [expression]}});
        quota(cluster, name, &spec);
    };
    let claim = "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: fast}, spec: {storageClassName: none, \
        volumeAttributesClassName: fast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}";
    let affinity = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, namespaces: [default], \
        labelSelector: {}}]}},";
    let objects = [
        claim.to_owned(),
        pod("gold", "priorityClassName: gold,", ""),
        pod("across", affinity, ""),
        pod("plain", "", ""),
    ];
    for object in &objects {
        apply(cluster, object).ok();
    }
    const CLAIMS: &str = "persistentvolumeclaims";
    let quotas = [
        ("fast", CLAIMS, "VolumeAttributesClass", "In", &["fast"][..], "1"),
        ("slow", CLAIMS, "VolumeAttributesClass", "In", &["slow"], "0"),
        ("with-class", CLAIMS, "VolumeAttributesClass", "Exists", &[], "1"),
        ("without-class", CLAIMS, "VolumeAttributesClass", "DoesNotExist", &[], "0"),
        ("golden", "pods", "PriorityClass", "In", &["gold"], "1"),
        ("not-golden", "pods", "PriorityClass", "NotIn", &["gold"], "2"),
        ("with-priority", "pods", "PriorityClass", "Exists", &[], "1"),
        ("crossing", "pods", "CrossNamespacePodAffinity", "Exists", &[], "1"),
    ];
    for (name, counted, scope, operator, values, used) in quotas {
        chosen(name, counted, scope, operator, values);
        uses(cluster, name, "of what was there before it", &json!({counted: used}));
    }
    cluster.kedge(&["delete", "-n", "counted", "pods", "gold", "across", "plain"]).ok();
    cluster.kedge(&["delete", "-n", "counted", "persistentvolumeclaim", "fast"]).ok();
    for (name, counted, ..) in quotas {
        uses(cluster, name, "when all is gone", &json!({counted: "0"}));
    }
    for object in &objects {
        apply(cluster, object).ok();
    }
    for (name, counted, .., used) in quotas {
        uses(cluster, name, "of what came after it", &json!({counted: used}));
        cluster.kedge(&["delete", "-n", "counted", "resourcequota", name]).ok();
    }
    cluster.kedge(&["delete", "-n", "counted", "pods", "gold", "across", "plain"]).ok();
    cluster.kedge(&["delete", "-n", "counted", "persistentvolumeclaim", "fast"]).ok();
}

/// A pod counts for those quotas alone whose scope it is of.
fn scopes_choose(cluster: &Cluster, resources: &str) {
    let scopes = ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"];
    for scope in scopes {
        quota(cluster, &scope.to_lowercase(), &json!({"hard": {"pods": "5"}, "scopes": [scope]}));
    }
    let none = json!({"pods": "0"});
    for scope in scopes {
        uses(cluster, &scope.to_lowercase(), "at first", &none);
    }
    for (spec, container, counted) in [
        ("activeDeadlineSeconds: 3600,", "", ["Terminating", "BestEffort"]),
        ("activeDeadlineSeconds: 3600,", resources, ["Terminating", "NotBestEffort"]),
        ("", "", ["NotTerminating", "BestEffort"]),
        ("", resources, ["NotTerminating", "NotBestEffort"]),
    ] {
        apply(cluster, &pod("x", spec, container)).ok();
        for scope in scopes {
            let expected = if counted.contains(&scope) { json!({"pods": "1"}) } else { none.clone() };
            uses(cluster, &scope.to_lowercase(), &format!("of a pod with {spec}{container}"), &expected);
        }
        cluster.kedge(&["delete", "-n", "counted", "pod", "x"]).ok();
        for scope in scopes {
            uses(cluster, &scope.to_lowercase(), "when it is gone", &none);
        }
    }
    for scope in scopes {
        cluster.kedge(&["delete", "-n", "counted", "resourcequota", &scope.to_lowercase()]).ok();
    }
}

/// It counts what was there before it, quotas too; it is changed and taken away.
fn a_quota_has_a_life(cluster: &Cluster) {
    let map = |name: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{a: b}}}}")
    };
    let there = cluster.list("configmaps", "counted").expect("maps").len();
    quota(cluster, "life", &json!({"hard": {"resourcequotas": "1", "configmaps": (there + 1).to_string()}}));
    let counted = |more: usize| json!({"resourcequotas": "1", "configmaps": (there + more).to_string()});
    uses(cluster, "life", "of what was there", &counted(0));
    apply(cluster, &map("first")).ok();
    uses(cluster, "life", "with the first", &counted(1));
    let refused = apply(cluster, &map("second"));
    assert!(refused.code != Some(0) && refused.stderr.contains("exceeded quota: life"), "{refused:?}");
    quota(cluster, "life", &json!({"hard": {"resourcequotas": "1", "configmaps": (there + 2).to_string()}}));
    until("there is room", LIMIT, || {
        let applied = apply(cluster, &map("second"));
        if applied.code == Some(0) { Ok(()) } else { Err(applied.stderr) }
    });
    uses(cluster, "life", "with the second", &counted(2));
    cluster.kedge(&["delete", "-n", "counted", "resourcequota", "life"]).ok();
    apply(cluster, &map("third")).ok();
    for name in ["first", "second", "third"] {
        cluster.kedge(&["delete", "-n", "counted", "configmap", name]).ok();
    }
}

#[test]
fn a_namespace_has_its_authority_and_goes_pods_first() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: mine}}").ok();
    let authority = || Ok::<_, String>(cluster.get("configmap", "mine", "kube-root-ca.crt")?["data"].clone());
    let is_an_authority =
        |data: &Value| data["ca.crt"].as_str().is_some_and(|pem| pem.starts_with("-----BEGIN CERT"));
    let first = until("the authority is there", LIMIT, authority);
    assert!(is_an_authority(&first), "{first}");
    assert_eq!(first, cluster.get("configmap", "default", "kube-root-ca.crt").expect("it")["data"]);
    // What is deleted or changed comes back.
    cluster.kedge(&["delete", "configmap", "kube-root-ca.crt", "-n", "mine"]).ok();
    assert_eq!(until("it comes back", LIMIT, authority), first);
    let path = "/api/v1/namespaces/mine/configmaps/kube-root-ca.crt";
    cluster.patch(path, "application/merge-patch+json", r#"{"data":{"ca.crt":"forged","more":"b"}}"#);
    until("it is as it was", LIMIT, || match authority()? {
        data if data == first => Ok(()),
        data => Err(data.to_string()),
    });

    // While a pod is there, whatever it may need is there.
    let held = pod("last", "", "")
        .replace("{name: last}", "{name: last, namespace: mine, finalizers: [example.com/held]}");
    cluster.apply(&held).ok();
    cluster
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: needed, namespace: mine}, data: {a: b}}")
        .ok();
    cluster.kedge(&["delete", "namespace", "mine", "--wait=false"]).ok();
    until("the pod is to go", LIMIT, || {
        let metadata = cluster.get("pod", "mine", "last")?["metadata"].clone();
        if metadata["deletionTimestamp"].is_string() { Ok(()) } else { Err(metadata.to_string()) }
    });
    until("it is told what is left", LIMIT, || {
        let status = cluster.get("namespace", "", "mine")?["status"].clone();
        if status.to_string().contains("example.com/held in 1 resource instances") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let needed = cluster.get("configmap", "mine", "needed").expect("it stays");
    assert_eq!(needed["metadata"]["deletionTimestamp"], Value::Null, "{needed}");
    cluster.patch(
        "/api/v1/namespaces/mine/pods/last",
        "application/merge-patch+json",
        r#"{"metadata":{"finalizers":null}}"#,
    );
    until("all of it is gone", LIMIT, || match cluster.get("namespace", "", "mine") {
        Err(_) => Ok(()),
        Ok(left) => Err(left["status"].to_string()),
    });
}

/// The slices of a service, by what they say: port and addresses.
fn reached_at(cluster: &Cluster, service: &str) -> Result<Vec<(Value, Value)>, String> {
    let of_service = |slice: &Value| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    let slices = cluster.list("endpointslices", "default")?.into_iter().filter(of_service);
    Ok(slices.map(|s| (s["ports"][0]["port"].clone(), s["endpoints"][0]["addresses"].clone())).collect())
}

#[test]
fn the_api_is_found_as_a_service_and_endpoints_by_hand_become_slices() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let service = cluster.get("service", "default", "kubernetes").expect("the service");
    assert_eq!(
        (&service["spec"]["ports"][0]["name"], &service["spec"]["ports"][0]["port"]),
        (&json!("https"), &json!(443)),
        "{service}"
    );
    let endpoints = cluster.get("endpoints", "default", "kubernetes").expect("endpoints");
    let subset = &endpoints["subsets"][0];
    let address = subset["addresses"][0]["ip"].clone();
    assert!(address.is_string() && subset["ports"][0]["name"] == "https", "{endpoints}");
    let slices = reached_at(&cluster, "kubernetes").expect("slices");
    assert_eq!(slices, [(subset["ports"][0]["port"].clone(), json!([address]))]);

    cluster
        .apply("{apiVersion: v1, kind: Service, metadata: {name: hand}, spec: {ports: [{port: 80}]}}")
        .ok();
    let by_hand = |ip: &str| {
        format!(
            "{{apiVersion: v1, kind: Endpoints, metadata: {{name: hand}}, subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{port: 80}}]}}]}}"
        )
    };
    for ip in ["10.1.2.3", "10.2.3.4"] {
        cluster.apply(&by_hand(ip)).ok();
        until(&format!("a slice says {ip}"), LIMIT, || match reached_at(&cluster, "hand")? {
            slices if slices == [(json!(80), json!([ip]))] => Ok(()),
            slices => Err(format!("{slices:?}")),
        });
    }
    cluster.kedge(&["delete", "endpoints", "hand"]).ok();
    until("no slice is left", LIMIT, || match reached_at(&cluster, "hand")? {
        slices if slices.is_empty() => Ok(()),
        slices => Err(format!("{slices:?}")),
    });
}

/// Claims that a pod on a node uses and volumes that a claim uses wait for those to go.
#[test]
fn what_is_in_use_is_not_removed() {
    let cluster = Cluster::start(env!("CARGO_BIN_EXE_kedge"));
    let volume = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{storageClassName: '', capacity: {{storage: 1Gi}}, \
             accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: Retain, hostPath: {{path: /tmp}}}}}}"
        )
    };
    let claim = |name: &str| {
        format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{storageClassName: '', volumeName: {name}, \
             accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
        )
    };
    let bound = |name: &str| {
        until(&format!("{name} is bound"), LIMIT, || {
            let phase = cluster.get("pvc", "default", name)?["status"]["phase"].clone();
            if phase == "Bound" { Ok(()) } else { Err(phase.to_string()) }
        });
    };
    for name in ["used", "free"] {
        cluster.apply(&volume(name)).ok();
        cluster.apply(&claim(name)).ok();
        bound(name);
    }
    let spec = "nodeName: node-1, volumes: [{name: v, persistentVolumeClaim: {claimName: used}}],";
    cluster.apply(&pod("user", spec, "")).ok();
    let is_gone = |kind: &str, name: &str| {
        until(&format!("{kind} {name} is gone"), LIMIT, || match cluster.get(kind, "default", name) {
            Err(_) => Ok(()),
            Ok(object) => Err(object["metadata"].to_string()),
        });
    };
    let delete = |kind: &str, name: &str| cluster.kedge(&["delete", "--wait=false", kind, name]).ok();
    for name in ["used", "free"] {
        delete("pv", name);
        delete("pvc", name);
    }
    // Whoever looks after them has come to those that nobody uses, which were deleted later.
    is_gone("pvc", "free");
    is_gone("pv", "free");
    for (kind, finalizer) in [("pvc", "kubernetes.io/pvc-protection"), ("pv", "kubernetes.io/pv-protection")]
    {
        let held = cluster.get(kind, "default", "used").expect("it is held")["metadata"].clone();
        assert!(held["deletionTimestamp"].is_string(), "{kind}: {held}");
        assert_eq!(held["finalizers"], json!([finalizer]), "{kind}");
    }
    delete("pod", "user");
    is_gone("pvc", "used");
    is_gone("pv", "used");
}
