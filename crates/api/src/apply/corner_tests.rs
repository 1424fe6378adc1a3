//! Where ownership is not what one would think: fields of nothing, elements that cannot be told apart, several versions,
//! scales, and what client-side apply left behind. Each was seen of the original.

use serde_json::{Value, json};

use super::managed::{apply, update};
use super::*;
use crate::schema::{self, Schema};

fn writer<'a>(manager: &'a str, api_version: &'a str, schema: &'a Schema) -> Writer<'a> {
    let time = "2024-01-01T00:00:00Z";
    Writer { manager, api_version, subresource: "", time, schema: Some(schema), reset: None, versions: None }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn map_schema() -> Schema {
    schema::of_kind("", "v1", "ConfigMap").unwrap()
}

fn fields(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.into_iter().find(|e| e["manager"] == manager).map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn a_map_given_as_nothing_is_owned_as_a_whole() {
    let schema = map_schema();
    let mut one = apply(None, &map(Value::Null), &writer("a", "v1", &schema), false).unwrap();
    // As it is stored.
    one.as_object_mut().unwrap().remove("data");
    let refused = apply(Some(&one), &map(json!({"x": "1"})), &writer("b", "v1", &schema), false);
    assert_eq!(refused.unwrap_err().to_string(), "Apply failed with 1 conflict: conflict with \"a\": .data");
}

#[test]
fn quantities_in_other_words_are_a_change() {
    let schema = schema::of_kind("", "v1", "Pod").unwrap();
    let pod = |cpu: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}})
    };
    let one = apply(None, &pod("1"), &writer("a", "v1", &schema), false).unwrap();
    let refused =
        apply(Some(&one), &pod("1000m"), &writer("b", "v1", &schema), false).unwrap_err().to_string();
    assert!(refused.ends_with(".spec.containers[name=\"c\"].resources.limits.cpu"), "{refused}");
}

#[test]
fn an_entry_goes_with_what_others_own_of_it() {
    let entry = json!({"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}});
    let schema = schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"map": {"type": "object", "additionalProperties": entry}}}}}))
    .unwrap();
    let shape = |map: Value| json!({"apiVersion": "g/v1", "kind": "S", "metadata": {"name": "s"}, "spec": {"map": map}});
    let one = apply(None, &shape(json!({"k": {"y": 1}})), &writer("a", "g/v1", &schema), false).unwrap();
    let mut two = one.clone();
    two["spec"]["map"]["k"]["x"] = json!(1);
    update(Some(&one), &mut two, &writer("b", "g/v1", &schema));
    let three = apply(Some(&two), &shape(json!({"l": {}})), &writer("a", "g/v1", &schema), false).unwrap();
    assert_eq!(three["spec"]["map"], json!({"l": {}}));
}

#[test]
fn of_elements_that_cannot_be_told_apart_the_name_is_owned() {
    let schema = schema::of_kind("", "v1", "Pod").unwrap();
    let pod = |ports: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "ports": ports}]}});
    let (one, two) = (
        json!({"containerPort": 80, "protocol": "TCP"}),
        json!({"containerPort": 80, "protocol": "TCP", "name": "x"}),
    );
    let before = pod(json!([one]));
    let after = pod(json!([one, two]));
    let changes = compare(&before, &after, Some(&schema));
    let port = ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]";
    assert_eq!(changes.added.paths(), [port]);
    assert!(changes.removed.paths().contains(&format!("{port}.containerPort")));
    assert!(compare(&after, &after, Some(&schema)).is_same());
    assert_eq!(compare(&after, &pod(json!([two, one])), Some(&schema)).modified.paths(), [port]);
}

#[test]
fn of_several_entries_of_one_manager_the_last_counts() {
    let schema = map_schema();
    let entry = |fields: Value| json!({"manager": "a", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let mut live = map(json!({"x": "1", "y": "1"}));
    live["metadata"]["managedFields"] =
        json!([entry(json!({"f:data": {"f:x": {}}})), entry(json!({"f:data": {"f:y": {}}}))]);
    let mut new = live.clone();
    new["data"]["z"] = json!("1");
    update(Some(&live), &mut new, &writer("b", "v1", &schema));
    assert_eq!(fields(&new, "a"), json!({"f:data": {"f:y": {}}}));
}

#[test]
fn what_was_applied_before_and_is_as_it_was_may_change_hands() {
    let schema = map_schema();
    let last = |api_version: &str| {
        let mut last = map(json!({"x": "1", "y": "1"}));
        last["apiVersion"] = api_version.into();
        let mut live = map(json!({"x": "1", "y": "2"}));
        live["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
        let mut made = live.clone();
        update(None, &mut made, &writer("kubectl-client-side-apply", "v1", &schema));
        made
    };
    let kubectl = writer("kubectl", "v1", &schema);
    // `y` was changed since: of it alone there is a conflict.
    let refused = apply(Some(&last("v1")), &map(json!({"x": "3", "y": "3"})), &kubectl, false).unwrap_err();
    assert!(
        refused.to_string().starts_with("Apply failed with 1 conflict: ")
            && refused.to_string().ends_with(".data.y")
    );
    let taken = apply(Some(&last("v1")), &map(json!({"x": "<3>"})), &kubectl, false).unwrap();
    let text = taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    assert!(text.ends_with("\n") && text.contains("\"x\":\"\\u003c3\\u003e\""), "{text}");
    assert!(
        apply(Some(&last("v2")), &map(json!({"x": "3"})), &kubectl, false).is_err(),
        "of another version"
    );
}

/// A kind whose field is called otherwise in each of its versions.
#[derive(Debug)]
struct Renamed;

fn renamed_schema(field: &str) -> Schema {
    schema::from_crd(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        field: {"type": "string"}, "both": {"type": "string"}}}}}))
    .unwrap()
}

impl Versions for Renamed {
    fn schema(&self, api_version: &str) -> Option<Schema> {
        match api_version {
            "g/v1" => Some(renamed_schema("old")),
            "g/v2" => Some(renamed_schema("new")),
            _ => None,
        }
    }

    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let (from, to) = if api_version == "g/v1" { ("new", "old") } else { ("old", "new") };
        let mut object = object.clone();
        object["apiVersion"] = api_version.into();
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
            && let Some(value) = spec.remove(from)
        {
            spec.insert(to.into(), value);
        }
        Some(object)
    }
}

#[test]
fn each_manager_owns_by_the_names_of_its_version() {
    let (first, second) = (renamed_schema("old"), renamed_schema("new"));
    let object = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "K", "metadata": {"name": "k"}, "spec": spec});
    let old = Writer { versions: Some(&Renamed), ..writer("a", "g/v1", &first) };
    let new = Writer { versions: Some(&Renamed), ..writer("b", "g/v2", &second) };
    let made = apply(None, &object("g/v1", json!({"old": "1", "both": "1"})), &old, false).unwrap();
    let served = Renamed.convert(&made, "g/v2").unwrap();
    let refused =
        apply(Some(&served), &object("g/v2", json!({"new": "2"})), &new, false).unwrap_err().to_string();
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"a\": .spec.old");
    let mut changed = served.clone();
    changed["spec"]["new"] = json!("2");
    update(Some(&served), &mut changed, &new);
    assert_eq!(fields(&changed, "a"), json!({"f:spec": {"f:both": {}}}));
    assert_eq!(fields(&changed, "b"), json!({"f:spec": {"f:new": {}}}));
    // What was applied in one version goes when it is not applied in the other any more.
    let again = Writer { manager: "a", ..new };
    let left = apply(Some(&served), &object("g/v2", json!({"both": "1"})), &again, false).unwrap();
    assert_eq!(left["spec"], json!({"both": "1"}));
    // Of a version that is no more nothing is known.
    let mut gone = served.clone();
    gone["metadata"]["managedFields"][0]["apiVersion"] = json!("g/v0");
    let mut new_one = gone.clone();
    new_one["spec"]["new"] = json!("3");
    update(Some(&gone), &mut new_one, &new);
    assert_eq!(fields(&new_one, "a"), Value::Null);
}

#[test]
fn a_scale_owns_the_replicas_apart() {
    let path = ["spec".to_owned(), "replicas".to_owned()];
    let entry = |manager: &str, operation: &str, fields: Value| {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2024-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    let parent = json!({"metadata": {"managedFields": [entry("a", "Apply", replicas.clone()),
        entry("m", "Update", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})), entry("n", "Update", json!({"f:spec": {"f:paused": {}}}))]}});
    let shown = scale::to_scale(&parent, &path, "autoscaling/v1");
    let managers: Vec<&str> =
        shown.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(managers, ["a", "m"]);
    assert!(
        shown
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e["apiVersion"] == "autoscaling/v1" && e["fieldsV1"] == replicas)
    );
    let back = scale::to_parent(&parent, &json!({"metadata": {"managedFields": shown}}), &path, "apps/v1");
    let of = |manager: &str| -> Vec<Value> {
        back.as_array().unwrap().iter().filter(|e| e["manager"] == manager).cloned().collect()
    };
    assert_eq!(of("a"), [entry("a", "Apply", replicas.clone())]);
    // Whoever updated is not known again: the replicas stand in an entry without a time.
    assert_eq!(of("m").len(), 2);
    assert_eq!(of("m")[0]["fieldsV1"], replicas);
    assert_eq!(of("m")[0].get("time"), None);
    assert_eq!(of("m")[1]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
}
