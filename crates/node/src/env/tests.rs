//! Variables of containers, from their declarations to what a process sees.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::objects::Objects;

fn typed<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}

fn pod(container: serde_json::Value) -> Pod {
    typed(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web", "q": "a\"b"}},
        "spec": {"serviceAccountName": "sa", "containers": [container]},
    }))
}

fn objects() -> Objects {
    let mut objects = Objects::new("ns");
    objects.add_config_map("cm", Some(typed(json!({"data": {"k": "v", "other": "o", "bad=": "x"}}))));
    objects.add_secret("s", Some(typed(json!({"data": {"k": "c2VjcmV0"}}))));
    objects.add_config_map("absent", None);
    objects
}

fn render(container: serde_json::Value) -> Result<Vec<String>, String> {
    let pod = pod(container);
    let services: Vec<Arc<Service>> = [
        json!({"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.43.0.1",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}),
        json!({"metadata": {"name": "other", "namespace": "elsewhere"}, "spec": {"clusterIP": "10.43.0.2",
            "ports": [{"port": 80}]}}),
        json!({"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None",
            "ports": [{"port": 80}]}}),
    ]
    .into_iter()
    .map(|service| Arc::new(typed(service)))
    .collect();
    let fields = FieldContext {
        pod_ip: "10.42.0.5".into(),
        node_name: "n".into(),
        allocatable_cpu_milli: 2000,
        ..FieldContext::default()
    };
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let input = EnvInput { pod: &pod, container, fields: &fields, objects: &objects(), services: &services };
    let all = environment(&input).map_err(|error| error.to_string())?;
    let ours = all.into_iter().filter(|(name, _)| !name.starts_with("KUBERNETES_PORT"));
    Ok(ours.map(|(name, value)| format!("{name}={value}")).collect())
}

const API_SERVER: [&str; 3] =
    ["KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_SERVICE_PORT_HTTPS=443"];

#[track_caller]
fn check(container: serde_json::Value, expected: &[&str]) {
    let all: Vec<String> = API_SERVER.iter().chain(expected).map(|s| (*s).to_owned()).collect();
    assert_eq!(render(container), Ok(all));
}

#[test]
fn values_expand_and_later_sources_override() {
    check(
        json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
            "env": [{"name": "A", "value": "$(P_k)/$(KUBERNETES_SERVICE_HOST)"}, {"name": "P_k", "value": "mine"},
                {"name": "B", "value": "$(P_k) $$(A) $(NOPE)"}]}),
        &["P_other=o", "A=v/10.43.0.1", "P_k=mine", "B=mine $(A) $(NOPE)"],
    );
}

#[test]
fn every_source_is_understood() {
    check(
        json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}, "env": [
            {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": true}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ]}),
        &["K=v", "S=secret", "IP=10.42.0.5", "L=web", "SA=sa", "M=64", "CPU=1", "CPUS=2"],
    );
}

#[test]
fn what_is_missing_is_named_as_the_kubelet_names_it() {
    let cases = [
        (json!({"configMapKeyRef": {"name": "absent", "key": "k"}}), "configmap \"absent\" not found"),
        (json!({"configMapKeyRef": {"name": "cm", "key": "z"}}), "couldn't find key z in ConfigMap ns/cm"),
        (json!({"secretKeyRef": {"name": "s", "key": "z"}}), "couldn't find key z in Secret ns/s"),
        (json!({"fieldRef": {"fieldPath": "spec.nope"}}), "unsupported fieldPath: spec.nope"),
    ];
    for (source, expected) in cases {
        let container = json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]});
        assert_eq!(render(container), Err(expected.to_owned()));
    }
}

#[test]
fn maps_are_spelled_as_a_properties_file() {
    let pod = pod(json!({"name": "c"}));
    let value = field_value(&pod, &FieldContext::default(), "metadata.labels");
    assert_eq!(value.as_deref(), Some("app=\"web\"\nq=\"a\\\"b\""));
}
