//! Workloads: what may be changed of a pod, a job and a stateful set, and what goes through their status and scale.

use serde_json::{Value, json};

use super::super::cases::merge;
use super::subjects::metadata_parts;
use super::wider::{Face, Wide};

fn container(more: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i1"});
    merge(&mut container, &more);
    json!({"containers": [container]})
}

/// What the template of a workload holds.
fn template_parts() -> Vec<Value> {
    let parts = [
        container(json!({"image": "i2"})),
        container(json!({"env": [{"name": "B", "value": "1"}, {"name": "A", "value": "2"}]})),
        container(
            json!({"ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "name": "web"}]}),
        ),
        container(
            json!({"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.5"}}}),
        ),
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "emptyDir": null, "configMap": {"name": "n"}}]}),
        json!({"nodeSelector": {"n": "1"}}),
        json!({"terminationGracePeriodSeconds": 5}),
    ];
    parts.into_iter().map(|spec| json!({"template": {"spec": spec}})).collect()
}

fn specs(parts: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let parts = parts.into_iter().map(|spec| json!({"spec": spec}));
    metadata_parts().into_iter().chain(parts).collect()
}

fn statuses(parts: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let more = [json!({"metadata": {"labels": {"a": "1"}}}), json!({"spec": {"replicas": 1}})];
    parts.into_iter().map(|status| json!({"status": status})).chain(more).collect()
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status})
}

pub(super) fn pod() -> Wide {
    let parts = specs([
        container(json!({"image": "i2"})),
        container(json!({"ports": [{"containerPort": 80}]})),
        container(json!({"resources": {"limits": {"cpu": "2"}}})),
        json!({"activeDeadlineSeconds": 10}),
        json!({"activeDeadlineSeconds": 5}),
        json!({"terminationGracePeriodSeconds": 5}),
        json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
        json!({"tolerations": [{"key": "l", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}]}),
        json!({"schedulingGates": [{"name": "example.com/a"}]}),
        json!({"schedulingGates": [{"name": "example.com/c"}, {"name": "example.com/a"}]}),
        json!({"nodeSelector": {"n": "1"}}),
        json!({"hostname": "h"}),
        json!({"priority": 5}),
    ]);
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/tolerations", json!({"key": "m", "operator": "Exists"})),
        ("/spec/schedulingGates", json!({"name": "example.com/d"})),
        ("/spec/containers", json!({"name": "e", "image": "i3"})),
        ("/spec/containers/0/image", json!("i4")),
        ("/spec/activeDeadlineSeconds", json!(7)),
    ];
    let main = Face::main("v1", "Pod", parts, places);
    let status = main.status(
        statuses([
            json!({"phase": "Running"}),
            json!({"phase": "Failed", "message": "m", "reason": "R"}),
            json!({"conditions": [condition("Ready", "True")]}),
            json!({"conditions": [condition("ContainersReady", "False"), condition("Ready", "False")]}),
            json!({"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}),
            json!({"podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::1"}]}),
            json!({"hostIP": "10.0.0.9", "hostIPs": [{"ip": "10.0.0.9"}]}),
            json!({"containerStatuses": [{"name": "c", "image": "i1", "imageID": "x", "ready": true, "restartCount": 1}]}),
            json!({"observedGeneration": 3}),
        ]),
        vec![
            ("/status/conditions", condition("Custom", "True")),
            ("/status/podIPs", json!({"ip": "10.1.0.3"})),
            ("/status/phase", json!("Pending")),
        ],
    );
    Wide {
        label: "pod",
        plural: "pods",
        namespaced: true,
        base: json!({"spec": {"automountServiceAccountToken": false, "schedulingGates": [{"name": "example.com/a"}, {"name": "example.com/b"}],
            "containers": [{"name": "c", "image": "i1"}]}}),
        faces: vec![main, status],
        client_side: false,
    }
}

pub(super) fn stateful_set() -> Wide {
    let claim = |name: &str, size: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    let own = [
        json!({"replicas": 2}),
        json!({"replicas": 0}),
        json!({"serviceName": "other"}),
        json!({"podManagementPolicy": "Parallel"}),
        json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}}),
        json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}),
        json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}),
        json!({"ordinals": {"start": 2}}),
        json!({"minReadySeconds": 1}),
        json!({"volumeClaimTemplates": [claim("d", "1Gi")]}),
        json!({"volumeClaimTemplates": [claim("d", "1024Mi"), claim("e", "1Gi")]}),
    ];
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/replicas", json!(3)),
        ("/spec/volumeClaimTemplates", claim("f", "2Gi")),
        ("/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
        ("/spec/updateStrategy", json!({"type": "OnDelete"})),
    ];
    let main = Face::main("apps/v1", "StatefulSet", specs(own.into_iter().chain(template_parts())), places);
    let status = main.status(
        statuses([
            json!({"replicas": 1, "readyReplicas": 1}),
            json!({"replicas": 2, "currentRevision": "r", "collisionCount": 0}),
            json!({"replicas": 0, "conditions": [condition("A", "True")]}),
            json!({"readyReplicas": 5}),
        ]),
        vec![("/status/conditions", condition("B", "True")), ("/status/replicas", json!(1))],
    );
    let scale = main.scale();
    Wide {
        label: "statefulset",
        plural: "statefulsets",
        namespaced: true,
        base: json!({"spec": {"replicas": 1, "serviceName": "s", "selector": {"matchLabels": {"app": "p"}},
            "template": {"metadata": {"labels": {"app": "p"}}, "spec": {"containers": [{"name": "c", "image": "i1"}]}},
            "volumeClaimTemplates": [claim("d", "1Gi")]}}),
        faces: vec![main, status, scale],
        client_side: false,
    }
}

pub(super) fn job() -> Wide {
    let own = [
        json!({"parallelism": 2}),
        json!({"parallelism": 0}),
        json!({"completions": 3}),
        json!({"suspend": true}),
        json!({"suspend": false}),
        json!({"backoffLimit": 2}),
        json!({"ttlSecondsAfterFinished": 60}),
        json!({"activeDeadlineSeconds": 100}),
        json!({"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}}),
    ];
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/parallelism", json!(4)),
        ("/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
        ("/spec/template/metadata/labels", json!("x")),
    ];
    let main = Face::main("batch/v1", "Job", specs(own.into_iter().chain(template_parts())), places);
    let status = main.status(
        statuses([
            json!({"active": 1}),
            json!({"active": 1, "startTime": "2026-01-02T03:04:05Z", "ready": 1}),
            json!({"succeeded": 1, "uncountedTerminatedPods": {}}),
            json!({"conditions": [condition("Suspended", "True")]}),
            json!({"failed": -1}),
        ]),
        vec![("/status/conditions", condition("Custom", "False")), ("/status/active", json!(2))],
    );
    Wide {
        label: "job",
        plural: "jobs",
        namespaced: true,
        base: json!({"spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i1"}]}}}}),
        faces: vec![main, status],
        client_side: false,
    }
}

pub(super) fn cron_job() -> Wide {
    let template = |spec: Value| json!({"jobTemplate": {"spec": spec}});
    let own = [
        json!({"schedule": "*/10 * * * *"}),
        json!({"schedule": "bogus"}),
        json!({"suspend": true}),
        json!({"concurrencyPolicy": "Forbid"}),
        json!({"timeZone": "Local"}),
        json!({"timeZone": null}),
        json!({"successfulJobsHistoryLimit": 0}),
        json!({"startingDeadlineSeconds": 10}),
        template(json!({"parallelism": 2})),
        json!({"jobTemplate": {"metadata": {"labels": {"j": "1"}}}}),
    ];
    let places = vec![
        ("/metadata/annotations", json!("3")),
        ("/spec/schedule", json!("0 0 * * *")),
        ("/spec/jobTemplate/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
        ("/spec/jobTemplate/metadata/labels", json!("x")),
    ];
    let parts = specs(own.into_iter().chain(template_parts().into_iter().map(template)));
    let main = Face::main("batch/v1", "CronJob", parts, places);
    let active = |name: &str| json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": "differential"});
    let status = main.status(
        statuses([
            json!({"lastScheduleTime": "2026-01-02T03:04:05Z"}),
            json!({"active": [active("a")]}),
            json!({"active": [active("b"), active("a")]}),
            json!({"active": []}),
        ]),
        vec![("/status/active", active("c"))],
    );
    Wide {
        label: "cronjob",
        plural: "cronjobs",
        namespaced: true,
        base: json!({"spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i1"}]}}}}}}),
        faces: vec![main, status],
        client_side: false,
    }
}

fn deployment(label: &'static str) -> Wide {
    let own = [
        json!({"replicas": 1}),
        json!({"replicas": 3}),
        json!({"paused": true}),
        json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}),
        json!({"strategy": {"rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 0}}}),
        json!({"template": {"spec": container(json!({"args": ["x <a&b>"]}))}}),
    ];
    let places = vec![
        ("/metadata/labels", json!("3")),
        ("/spec/replicas", json!(2)),
        ("/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
        ("/spec/template/spec/containers/0/env", json!({"name": "C", "value": "3"})),
        ("/spec/strategy", json!({"type": "Recreate"})),
    ];
    let main = Face::main("apps/v1", "Deployment", specs(own.into_iter().chain(template_parts())), places);
    Wide {
        label,
        plural: "deployments",
        namespaced: true,
        base: json!({"spec": {"replicas": 1, "selector": {"matchLabels": {"app": "p"}}, "template": {"metadata": {"labels": {"app": "p"}},
            "spec": {"containers": [{"name": "c", "image": "i1"}]}}}}),
        faces: vec![main],
        client_side: false,
    }
}

/// A deployment that is scaled while its own replicas are applied.
pub(super) fn scaled() -> Wide {
    let mut wide = deployment("scaled");
    let main = &wide.faces[0];
    let status = main.status(
        statuses([
            json!({"replicas": 1, "updatedReplicas": 1}),
            json!({"conditions": [condition("Available", "True")]}),
            json!({"conditions": [condition("Progressing", "False"), condition("Available", "False")]}),
            json!({"observedGeneration": 1}),
        ]),
        vec![("/status/conditions", condition("Custom", "True")), ("/status/replicas", json!(2))],
    );
    let scale = Face { weight: 6, ..main.scale() };
    wide.faces.extend([status, scale]);
    wide
}

/// A deployment that `kubectl apply` made, and that is applied on the server's side afterwards.
pub(super) fn migrated() -> Wide {
    Wide { client_side: true, ..deployment("migrated") }
}
