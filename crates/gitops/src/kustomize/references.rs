//! References by name: when an object gets another name, every field that means it follows.

use serde_json::Value;

use super::Object;

/// Fields that name an object of a kind, wherever a pod's spec stands in an object.
const IN_POD_SPECS: &[(&str, &[&str])] = &[
    (
        "ConfigMap",
        &[
            "volumes/*/configMap/name",
            "volumes/*/projected/sources/*/configMap/name",
            "containers/*/env/*/valueFrom/configMapKeyRef/name",
            "containers/*/envFrom/*/configMapRef/name",
            "initContainers/*/env/*/valueFrom/configMapKeyRef/name",
            "initContainers/*/envFrom/*/configMapRef/name",
        ],
    ),
    (
        "Secret",
        &[
            "volumes/*/secret/secretName",
            "volumes/*/projected/sources/*/secret/name",
            "containers/*/env/*/valueFrom/secretKeyRef/name",
            "containers/*/envFrom/*/secretRef/name",
            "initContainers/*/env/*/valueFrom/secretKeyRef/name",
            "initContainers/*/envFrom/*/secretRef/name",
            "imagePullSecrets/*/name",
        ],
    ),
    ("PersistentVolumeClaim", &["volumes/*/persistentVolumeClaim/claimName"]),
    ("ServiceAccount", &["serviceAccountName", "serviceAccount"]),
    ("PriorityClass", &["priorityClassName"]),
];

/// Of which kind, in which kind of object, at which path.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("Service", "StatefulSet", "spec/serviceName"),
    ("Service", "Ingress", "spec/rules/*/http/paths/*/backend/service/name"),
    ("Service", "Ingress", "spec/defaultBackend/service/name"),
    ("Service", "APIService", "spec/service/name"),
    ("Secret", "Ingress", "spec/tls/*/secretName"),
    ("Secret", "ServiceAccount", "imagePullSecrets/*/name"),
    ("Secret", "ServiceAccount", "secrets/*/name"),
    ("PersistentVolume", "PersistentVolumeClaim", "spec/volumeName"),
    ("StorageClass", "PersistentVolumeClaim", "spec/storageClassName"),
    ("Deployment", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
    ("StatefulSet", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name"),
];

const POD_SPECS: &[(&str, &str)] = &[
    ("Pod", "spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicaSet", "spec/template/spec"),
    ("StatefulSet", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("ReplicationController", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];

pub fn fix(objects: &mut [Object]) {
    // The names as they are and were; the objects themselves are changed below.
    let known = objects.to_vec();
    for object in objects.iter_mut() {
        let (kind, namespace) = (object.kind().to_owned(), object.namespace().to_owned());
        if let Some((_, base)) = POD_SPECS.iter().find(|(k, _)| *k == kind) {
            for (of, paths) in IN_POD_SPECS {
                for path in *paths {
                    rename(&mut object.value, &format!("{base}/{path}"), &known, of, &namespace);
                }
            }
        }
        for (of, _, path) in ELSEWHERE.iter().filter(|(_, k, _)| *k == kind) {
            rename(&mut object.value, path, &known, of, &namespace);
        }
        if matches!(kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
            fix_binding(object, &known, &namespace);
        }
    }
}

fn fix_binding(object: &mut Object, known: &[Object], namespace: &str) {
    let role = object.value["roleRef"]["kind"].as_str().unwrap_or_default().to_owned();
    rename(&mut object.value, "roleRef/name", known, &role, namespace);
    for subject in object.value["subjects"].as_array_mut().into_iter().flatten() {
        if subject["kind"] == "ServiceAccount" {
            let own = subject["namespace"].as_str().unwrap_or(namespace).to_owned();
            rename(subject, "name", known, "ServiceAccount", &own);
        }
    }
}

fn rename(value: &mut Value, path: &str, known: &[Object], kind: &str, namespace: &str) {
    let (step, rest) = path.split_once('/').map_or((path, None), |(step, rest)| (step, Some(rest)));
    if step == "*" {
        if let (Value::Array(items), Some(rest)) = (value, rest) {
            items.iter_mut().for_each(|item| rename(item, rest, known, kind, namespace));
        }
        return;
    }
    let Some(child) = value.get_mut(step) else { return };
    match rest {
        Some(rest) => rename(child, rest, known, kind, namespace),
        None => {
            let Some(name) = child.as_str() else { return };
            if let Some(new) = new_name(known, kind, name, namespace) {
                *child = new.into();
            }
        }
    }
}

/// The present name of the object that was once called `name`. One that is still called so is meant itself.
fn new_name(known: &[Object], kind: &str, name: &str, namespace: &str) -> Option<String> {
    let of_kind = || known.iter().filter(|o| o.kind() == kind);
    let here = |o: &&Object| {
        o.is_cluster_scoped()
            || o.namespace() == namespace
            || o.namespace().is_empty()
            || namespace.is_empty()
    };
    if of_kind().filter(here).any(|o| o.name() == name) {
        return None;
    }
    of_kind().filter(here).find(|o| o.is_known_as(name, None)).map(|o| o.name().to_owned())
}
