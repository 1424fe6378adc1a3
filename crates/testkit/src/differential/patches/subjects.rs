//! What the first cases are about: a workload, what has ports by two keys, maps of text, lists of references, and a custom
//! kind with a list of every type.

use serde_json::{Value, json};

use super::super::cases::merge;

/// The definition of the custom resource among the subjects; both servers need it first.
pub fn definition() -> Value {
    let part = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"},
        "kind": {"type": "string", "default": "x"}, "n": {"type": "integer"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}});
    let text = json!({"type": "string"});
    let spec = json!({"type": "object", "properties": {
        "size": {"type": "integer"}, "port": {"x-kubernetes-int-or-string": true},
        "color": {"type": "string", "default": "red"}, "none": {"type": "string", "nullable": true},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "plain": {"type": "array", "items": text},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "kind"], "items": part},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text, "b": text}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "shapes.patches.example.com"}, "spec": {"group": "patches.example.com",
        "scope": "Namespaced", "names": {"plural": "shapes", "singular": "shape", "kind": "Shape"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

pub(super) struct Subject {
    pub(super) label: &'static str,
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    /// What makes the skeleton a valid object.
    pub(super) base: Value,
    /// Parts that patches are put together from.
    pub(super) parts: Vec<Value>,
    /// Lists and maps of the object, for JSON patches and directives: pointer and a value of an element.
    pub(super) places: Vec<(&'static str, Value)>,
    pub(super) strategic: bool,
}

pub(super) fn metadata_parts() -> Vec<Value> {
    let mut parts = Vec::new();
    for key in ["a", "b"] {
        for value in ["1", "2"] {
            parts.push(json!({"metadata": {"labels": {key: value}}}));
            parts.push(json!({"metadata": {"annotations": {key: value}}}));
        }
    }
    parts.push(json!({"metadata": {"finalizers": ["example.com/a"]}}));
    parts.push(json!({"metadata": {"finalizers": ["example.com/b", "example.com/a"]}}));
    parts
}

fn deployment() -> Subject {
    let container = |name: &str, more: Value| {
        let mut container = json!({"name": name, "image": "i1"});
        merge(&mut container, &more);
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let mut parts = metadata_parts();
    parts.extend([
        json!({"spec": {"replicas": 1}}),
        json!({"spec": {"replicas": 0}}),
        json!({"spec": {"paused": true}}),
        json!({"spec": {"paused": false}}),
        json!({"spec": {"minReadySeconds": 3}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 0}}}}),
        container("c", json!({"image": "i2"})),
        container("c", json!({"env": [{"name": "A", "value": "1"}]})),
        container("c", json!({"env": [{"name": "B", "value": "1"}, {"name": "A", "value": "2"}]})),
        container("c", json!({"ports": [{"containerPort": 80}]})),
        container("c", json!({"ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "name": "web"}]})),
        container("c", json!({"args": ["x", "y"]})),
        container("c", json!({"resources": {"limits": {"cpu": "1", "memory": "1024Mi"}}})),
        container("c", json!({"resources": {"limits": {"cpu": "1000m"}, "requests": {"cpu": "0.5"}}})),
        container("d", json!({"env": []})),
        container("d", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w"}]})),
        pod(json!({"volumes": [{"name": "v", "emptyDir": {}}]})),
        pod(json!({"volumes": [{"name": "v", "configMap": {"name": "m"}}]})),
        pod(json!({"volumes": [{"name": "v", "emptyDir": null, "configMap": {"name": "n"}}]})),
        pod(json!({"tolerations": [{"key": "k", "operator": "Exists"}]})),
        pod(json!({"nodeSelector": {"n": "1"}})),
        pod(json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}]})),
        pod(json!({"imagePullSecrets": [{"name": "s"}, {"name": "t"}]})),
        pod(json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]})),
        pod(json!({"securityContext": {"runAsUser": 1, "sysctls": [{"name": "a", "value": "b"}]}})),
    ]);
    Subject {
        label: "deployment",
        api_version: "apps/v1",
        kind: "Deployment",
        plural: "deployments",
        base: json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "p"}}, "template": {"metadata": {"labels": {"app": "p"}},
            "spec": {"containers": [{"name": "c", "image": "i1"}]}}}}),
        parts,
        places: vec![
            ("/metadata/labels", json!("3")),
            ("/metadata/finalizers", json!("example.com/c")),
            ("/spec/template/spec/containers", json!({"name": "e", "image": "i3"})),
            ("/spec/template/spec/containers/0/env", json!({"name": "C", "value": "3"})),
            ("/spec/template/spec/containers/0/ports", json!({"containerPort": 81})),
            ("/spec/template/spec/volumes", json!({"name": "w", "emptyDir": {}})),
            ("/spec/template/spec/tolerations", json!({"key": "l", "operator": "Exists"})),
            ("/spec/strategy", json!({"type": "Recreate"})),
            ("/spec/replicas", json!(2)),
        ],
        strategic: true,
    }
}

fn service() -> Subject {
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    let mut parts = metadata_parts();
    parts.extend([
        ports(json!([{"port": 80, "name": "web"}])),
        ports(json!([{"port": 80, "protocol": "UDP", "name": "dns"}])),
        ports(json!([{"port": 81, "name": "other", "targetPort": "web"}, {"port": 80, "name": "web", "targetPort": 8080}])),
        ports(json!([{"port": 80, "name": "again"}, {"port": 80, "name": "twice"}])),
        json!({"spec": {"selector": {"app": "x"}}}),
        json!({"spec": {"selector": {"app": null, "b": "1"}}}),
        json!({"spec": {"sessionAffinity": "ClientIP"}}),
        json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}}),
        json!({"spec": {"externalIPs": ["10.9.9.9"]}}),
        json!({"spec": {"publishNotReadyAddresses": true}}),
    ]);
    Subject {
        label: "service",
        api_version: "v1",
        kind: "Service",
        plural: "services",
        base: json!({"spec": {"clusterIP": "None", "selector": {"app": "p"}, "ports": [{"port": 80, "name": "web"}]}}),
        parts,
        places: vec![
            ("/spec/ports", json!({"port": 90, "name": "more"})),
            ("/spec/selector", json!("z")),
            ("/metadata/annotations", json!("4")),
            ("/metadata/finalizers", json!("example.com/c")),
        ],
        strategic: true,
    }
}

fn config_map() -> Subject {
    let mut parts = metadata_parts();
    parts.extend([
        json!({"data": {"a": "1"}}),
        json!({"data": {"a": "2", "b": ""}}),
        json!({"data": {"a": null}}),
        json!({"data": {}}),
        json!({"data": null}),
        json!({"binaryData": {"c": "AAEC"}}),
        json!({"immutable": false}),
        json!({"data": {"a": 1}}),
        json!({"unknown": {"x": 1}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u1"}]}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o2", "uid": "u2"}]}}),
    ]);
    Subject {
        label: "configmap",
        api_version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        base: json!({"data": {"z": "0"}}),
        parts,
        places: vec![
            ("/data", json!("v")),
            ("/metadata/labels", json!("3")),
            (
                "/metadata/ownerReferences",
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "p", "uid": "u3"}),
            ),
            ("/data/a~1b", json!("w")),
            ("/data/a~0b", json!("w")),
        ],
        strategic: true,
    }
}

fn service_account() -> Subject {
    let mut parts = metadata_parts();
    parts.extend([
        json!({"secrets": [{"name": "s"}]}),
        json!({"secrets": [{"name": "t"}, {"name": "s"}]}),
        json!({"imagePullSecrets": [{"name": "s"}]}),
        json!({"imagePullSecrets": [{"name": "t"}]}),
        json!({"automountServiceAccountToken": false}),
        json!({"automountServiceAccountToken": null}),
    ]);
    Subject {
        label: "serviceaccount",
        api_version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        base: json!({}),
        parts,
        places: vec![
            ("/secrets", json!({"name": "u"})),
            ("/imagePullSecrets", json!({"name": "u"})),
            ("/metadata/labels", json!("3")),
        ],
        strategic: true,
    }
}

fn shape() -> Subject {
    let spec = |spec: Value| json!({"spec": spec});
    let mut parts = metadata_parts();
    parts.extend([
        spec(json!({"size": 1})),
        spec(json!({"size": 2, "color": "blue"})),
        spec(json!({"color": null})),
        spec(json!({"none": null})),
        spec(json!({"none": "x"})),
        spec(json!({"port": "http"})),
        spec(json!({"port": 8})),
        spec(json!({"tags": ["a"]})),
        spec(json!({"tags": ["b", "a"]})),
        spec(json!({"tags": ["a", "a"]})),
        spec(json!({"tags": []})),
        spec(json!({"plain": ["a"]})),
        spec(json!({"plain": ["b", "a"]})),
        spec(json!({"parts": [{"name": "p"}]})),
        spec(json!({"parts": [{"name": "p", "n": 1}, {"name": "p", "kind": "y", "tags": ["t"]}]})),
        spec(json!({"parts": [{"name": "q", "n": 2}, {"name": "p", "kind": "x", "n": 3}]})),
        spec(json!({"parts": [{"name": "p"}, {"name": "p"}]})),
        spec(json!({"whole": {"a": "1"}})),
        spec(json!({"whole": {"b": "1", "a": "2"}})),
        spec(json!({"map": {"k": {"x": 1}}})),
        spec(json!({"map": {"k": {"y": 1}, "l": {}}})),
        spec(json!({"map": {"k": null}})),
        spec(json!({"open": {"any": {"thing": [1, {"a": "b"}]}}})),
        spec(json!({"open": {"any": {"other": null}}})),
        spec(json!({"bogus": 1})),
        spec(json!({"size": "text"})),
    ]);
    Subject {
        label: "shape",
        api_version: "patches.example.com/v1",
        kind: "Shape",
        plural: "shapes",
        base: json!({"spec": {"size": 0}}),
        parts,
        places: vec![
            ("/spec/tags", json!("c")),
            ("/spec/parts", json!({"name": "r"})),
            ("/spec/map", json!({"x": 5})),
            ("/spec/whole/a", json!("9")),
            ("/metadata/labels", json!("3")),
            ("/spec/plain", json!("c")),
        ],
        strategic: false,
    }
}

pub(super) const SUBJECTS: &[fn() -> Subject] = &[deployment, service, config_map, service_account, shape];
