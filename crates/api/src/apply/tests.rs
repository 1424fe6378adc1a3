//! The rules of "Server-Side Apply", each as the documentation states it.

use serde_json::{Value, json};

use super::managed::{self, apply};
use super::*;
use crate::schema::{self, Schema};

fn deployment_schema() -> Schema {
    schema::of_kind("apps", "v1", "Deployment").unwrap()
}

fn writer<'a>(manager: &'a str, api_version: &'a str, schema: &'a Schema) -> Writer<'a> {
    Writer {
        manager,
        api_version,
        subresource: "",
        time: "2024-01-01T00:00:00Z",
        schema: Some(schema),
        reset: None,
        versions: None,
    }
}

/// As the server does it: ownership is worked out on the canonical form of both.
fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let canonical = |value: &Value| {
        let mut value = value.clone();
        if let Some(schema) = writer.schema {
            schema.canonicalize(&mut value);
        }
        value
    };
    let mut canonical_new = canonical(new);
    managed::update(old.map(canonical).as_ref(), &mut canonical_new, writer);
    let metadata = new["metadata"].as_object_mut().unwrap();
    match canonical_new["metadata"].get("managedFields") {
        Some(fields) => drop(metadata.insert("managedFields".into(), fields.clone())),
        None => drop(metadata.remove("managedFields")),
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn applied(live: Option<&Value>, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    apply(live, config, &writer(manager, "apps/v1", &deployment_schema()), force)
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries =
        object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
    let own = entries.iter().find(|entry| entry["manager"] == manager);
    own.map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn a_create_by_apply_owns_what_it_lists() {
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": {"app": "x"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "template": {"spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["a"]}],
            "nodeSelector": {}, "volumes": []}}}});
    let object = applied(None, &config, "m", false).unwrap();
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "m", "operation": "Apply", "apiVersion": "apps/v1", "time": "2024-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:args": {}, "f:image": {}, "f:name": {}, "f:ports": {
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
                    "f:nodeSelector": {}}}},
            },
        }])
    );
}

#[test]
fn a_create_by_update_owns_what_was_set() {
    let schema = deployment_schema();
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z", "labels": {"app": "x"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "x"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    update(None, &mut object, &writer("kubectl-create", "apps/v1", &schema));
    assert_eq!(
        owned(&object, "kubectl-create"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:selector": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {
                    "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}}}},
        })
    );
}

#[test]
fn conflicts_name_the_field_and_its_owner() {
    let schema = deployment_schema();
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    update(None, &mut live, &writer("kubectl-client-side-apply", "apps/v1", &schema));
    let Err(ApplyError::Conflicts(conflicts)) =
        applied(Some(&live), &deployment(json!({"replicas": 2})), "m", false)
    else {
        panic!("no conflict")
    };
    assert_eq!(
        conflicts.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    assert_eq!(conflicts.0[0].field, ".spec.replicas");
    assert_eq!(conflicts.0[0].message(), "conflict with \"kubectl-client-side-apply\" using apps/v1");
    let both = deployment(json!({"replicas": 2, "paused": false}));
    let error = applied(Some(&live), &both, "m", false).unwrap_err().to_string();
    assert_eq!(
        error,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let first = applied(None, &deployment(json!({"replicas": 1})), "a", false).unwrap();
    let error =
        applied(Some(&first), &deployment(json!({"replicas": 2})), "b", false).unwrap_err().to_string();
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
}

#[test]
fn force_takes_ownership() {
    let live = applied(None, &deployment(json!({"replicas": 1, "paused": true})), "a", false).unwrap();
    let live = applied(Some(&live), &deployment(json!({"replicas": 2})), "b", true).unwrap();
    assert_eq!(live["spec"], json!({"replicas": 2, "paused": true}));
    assert_eq!(owned(&live, "a"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&live, "b"), json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn equal_values_are_shared_and_removed_with_the_last_owner() {
    let config = deployment(json!({"replicas": 1}));
    let live = applied(None, &config, "a", false).unwrap();
    let live = applied(Some(&live), &config, "b", false).unwrap();
    assert_eq!(owned(&live, "a"), owned(&live, "b"));
    let live = applied(Some(&live), &deployment(json!({})), "a", false).unwrap();
    assert_eq!(live["spec"], json!({"replicas": 1}));
    let live = applied(Some(&live), &deployment(json!({"paused": true})), "b", false).unwrap();
    assert_eq!(live["spec"], json!({"paused": true}));
    assert_eq!(live["metadata"]["name"], "d");
}

#[test]
fn elements_of_list_maps_belong_to_their_managers() {
    let pod = |containers: Value| deployment(json!({"template": {"spec": {"containers": containers}}}));
    let first = pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
    let mut live = applied(None, &first, "m", false).unwrap();
    // Someone injects a sidecar, and a default is filled in that nobody owns.
    let schema = deployment_schema();
    let before = live.clone();
    live["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "b", "image": "1"}, {"name": "side", "image": "s"}]);
    update(Some(&before), &mut live, &writer("injector", "apps/v1", &schema));
    let second = pod(json!([{"name": "c", "image": "2"}, {"name": "a", "image": "2"}]));
    let live = applied(Some(&live), &second, "m", false).unwrap();
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"],
        json!([{"name": "c", "image": "2"}, {"name": "a", "image": "2", "imagePullPolicy": "Always"}, {"name": "side", "image": "s"}])
    );
    let twice = pod(json!([{"name": "a"}, {"name": "a"}]));
    assert_eq!(
        applied(None, &twice, "m", false).unwrap_err().to_string(),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
    assert!(
        applied(None, &pod(json!([{"image": "a"}])), "m", false)
            .unwrap_err()
            .to_string()
            .contains("\"name\"")
    );
}

#[test]
fn updates_take_over_what_they_change() {
    let schema = deployment_schema();
    let live =
        applied(None, &deployment(json!({"replicas": 1, "paused": true, "minReadySeconds": 5})), "a", false)
            .unwrap();
    let mut new = live.clone();
    new["spec"] = json!({"replicas": 5, "paused": true});
    update(
        Some(&live),
        &mut new,
        &Writer { time: "2024-01-02T00:00:00Z", ..writer("hpa", "apps/v1", &schema) },
    );
    assert_eq!(owned(&new, "a"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&new, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    // No longer listing `replicas` gives it up, and leaves it as it is.
    let after = applied(Some(&new), &deployment(json!({"paused": true})), "a", false).unwrap();
    assert_eq!(after["spec"], json!({"replicas": 5, "paused": true}));
    assert_eq!(after, new, "an apply that changes nothing gives the very same object");
}

#[test]
fn atomic_lists_and_maps_are_owned_as_one() {
    let schema = schema::of_kind("", "v1", "Service").unwrap();
    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    let w = |manager| writer(manager, "v1", &schema);
    let live =
        apply(None, &service(json!({"selector": {"a": "1"}, "externalIPs": ["1.1.1.1"]})), &w("a"), false)
            .unwrap();
    assert_eq!(owned(&live, "a"), json!({"f:spec": {"f:externalIPs": {}, "f:selector": {}}}));
    let error = apply(Some(&live), &service(json!({"selector": {"b": "1"}})), &w("b"), false)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"a\": .spec.selector");
    let live = apply(Some(&live), &service(json!({"selector": {"b": "1"}})), &w("b"), true).unwrap();
    assert_eq!(live["spec"]["selector"], json!({"b": "1"}));
}

#[test]
fn sets_merge_by_value() {
    let config = |finalizers: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "finalizers": finalizers}});
    let live = applied(None, &config(json!(["a", "b"])), "m", false).unwrap();
    let live = applied(Some(&live), &config(json!(["b", "c"])), "n", false).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["a", "b", "c"]));
    assert_eq!(owned(&live, "n"), json!({"f:metadata": {"f:finalizers": {"v:\"b\"": {}, "v:\"c\"": {}}}}));
    let live = applied(Some(&live), &config(json!(["a"])), "m", false).unwrap();
    assert_eq!(live["metadata"]["finalizers"], json!(["a", "b", "c"]));
}

#[test]
fn untracked_objects_belong_to_before_first_apply() {
    let live = deployment(json!({"replicas": 1}));
    let mut still = live.clone();
    update(Some(&live), &mut still, &writer("m", "apps/v1", &deployment_schema()));
    assert_eq!(still, live);
    let error =
        applied(Some(&live), &deployment(json!({"replicas": 2})), "m", false).unwrap_err().to_string();
    assert_eq!(
        error,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let same = applied(Some(&live), &live, "m", false).unwrap();
    // What was there before has the form that its type writes; what is applied is as it was given.
    assert_eq!(owned(&same, "m"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owned(&same, "before-first-apply")["f:spec"]["f:replicas"], json!({}));
    let mut reset = same.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(Some(&same), &mut reset, &writer("m", "apps/v1", &deployment_schema()));
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[test]
fn kubectl_migrates_from_client_side_apply() {
    let schema = deployment_schema();
    let mut live = deployment(json!({"replicas": 1, "paused": true}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": deployment(json!({"replicas": 1})).to_string()});
    update(None, &mut live, &writer("kubectl-client-side-apply", "apps/v1", &schema));
    let config = deployment(json!({"replicas": 2}));
    assert!(applied(Some(&live), &config, "other", false).is_err());
    let after = applied(Some(&live), &config, "kubectl", false).unwrap();
    assert_eq!(after["spec"]["replicas"], 2);
    let annotation = &after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(serde_json::from_str::<Value>(annotation.as_str().unwrap()).unwrap(), config);
    assert!(applied(Some(&live), &deployment(json!({"paused": false})), "kubectl", false).is_err());
}

#[test]
fn subresources_own_apart_and_reset_fields_are_not_owned() {
    let schema = deployment_schema();
    let status = FieldSet::of(&["status"]);
    let spec = FieldSet::of(&["spec", "metadata"]);
    let mut live = deployment(json!({"replicas": 1}));
    live["status"] = json!({"replicas": 9});
    update(None, &mut live, &Writer { reset: Some(&status), ..writer("m", "apps/v1", &schema) });
    assert_eq!(owned(&live, "m"), json!({"f:spec": {"f:replicas": {}}}));
    let before = live.clone();
    live["status"]["readyReplicas"] = json!(1);
    let through_status =
        Writer { subresource: "status", reset: Some(&spec), ..writer("m", "apps/v1", &schema) };
    update(Some(&before), &mut live, &through_status);
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {"f:readyReplicas": {}}}));
    let error = apply(
        Some(&live),
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "status": {"readyReplicas": 2}}),
        &Writer { manager: "n", ..through_status },
        false,
    )
    .unwrap_err()
    .to_string();
    assert_eq!(
        error,
        "Apply failed with 1 conflict: conflict with \"m\" with subresource \"status\" using apps/v1: .status.readyReplicas"
    );
}

#[test]
fn the_number_of_managers_is_bounded() {
    let schema = deployment_schema();
    let mut live = deployment(json!({"replicas": 0}));
    live["metadata"]["annotations"] = json!({"x": "0"});
    update(None, &mut live, &writer("creator", "apps/v1", &schema));
    for at in 1..30 {
        let before = live.clone();
        live["metadata"]["annotations"][format!("a{at:02}")] = json!("1");
        let (manager, time) = (format!("m{at:02}"), format!("2024-01-02T00:00:{at:02}Z"));
        update(Some(&before), &mut live, &Writer { time: &time, ..writer(&manager, "apps/v1", &schema) });
    }
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 10);
    assert!(owned(&live, "ancient-changes")["f:metadata"]["f:annotations"]["f:a01"].is_object());
    assert!(owned(&live, "m29").is_object());
}

#[test]
fn custom_resources() {
    let schema = schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                 "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "plain": {"type": "array", "items": {"type": "string"}},
        "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}}))
    .unwrap();
    let config = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {
        "list": [{"k": "a", "v": 1}], "plain": ["p"], "atom": {"x": "y"}, "free": {"deep": {"er": 1}, "list": [1]}}});
    let live = apply(None, &config, &writer("m", "x/v1", &schema), false).unwrap();
    assert_eq!(
        owned(&live, "m"),
        json!({"f:spec": {"f:atom": {}, "f:plain": {}, "f:list": {"k:{\"k\":\"a\"}": {".": {}, "f:k": {}, "f:v": {}}},
            "f:free": {"f:deep": {".": {}, "f:er": {}}, "f:list": {}}}})
    );
    assert_eq!(apply(None, &live, &writer("m", "x/v1", &schema), false), Err(ApplyError::ManagedFields));
}

#[test]
fn manager_names() {
    assert_eq!(managed::default_manager("kubectl/v1.36 (linux)"), "kubectl");
    assert_eq!(managed::default_manager(&"x".repeat(200)).len(), 128);
    assert!(managed::manager_problem("", true).is_some());
    assert!(managed::manager_problem("", false).is_none());
    assert!(managed::manager_problem("a\nb", false).is_some());
    assert!(managed::manager_problem(&"x".repeat(129), false).is_some());
}
