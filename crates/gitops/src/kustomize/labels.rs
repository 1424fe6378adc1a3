//! Labels, annotations and replica counts for all objects of a build.

use std::collections::BTreeMap;

use serde_json::Value;

use super::file::{KustomizationFile, Replicas};
use super::{BuildError, Object};

pub fn run(spec: &KustomizationFile, objects: &mut [Object]) {
    for object in objects.iter_mut() {
        for set in &spec.labels {
            add(&mut object.value, "/metadata", "labels", &set.pairs);
            if set.include_selectors {
                add_to_selectors(object, &set.pairs);
            }
            if set.include_selectors || set.include_templates {
                add_to_templates(object, "labels", &set.pairs);
            }
        }
        if !spec.common_labels.is_empty() {
            add(&mut object.value, "/metadata", "labels", &spec.common_labels);
            add_to_selectors(object, &spec.common_labels);
            add_to_templates(object, "labels", &spec.common_labels);
        }
        if !spec.common_annotations.is_empty() {
            add(&mut object.value, "/metadata", "annotations", &spec.common_annotations);
            add_to_templates(object, "annotations", &spec.common_annotations);
        }
    }
}

/// Adds pairs to `field` of the object at a JSON pointer, if that object is there.
fn add(value: &mut Value, pointer: &str, field: &str, pairs: &BTreeMap<String, String>) {
    let Some(Value::Object(parent)) = value.pointer_mut(pointer) else { return };
    if pairs.is_empty() {
        return;
    }
    let map = parent.entry(field).or_insert_with(|| Value::Object(Default::default()));
    for (key, text) in pairs {
        map[key] = text.as_str().into();
    }
}

fn add_to_templates(object: &mut Object, field: &str, pairs: &BTreeMap<String, String>) {
    let template = match object.kind() {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            "/spec/template"
        }
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return,
    };
    if let Some(Value::Object(template)) = object.value.pointer_mut(template) {
        template.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
    }
    add(&mut object.value, &format!("{template}/metadata"), field, pairs);
    if object.kind() == "CronJob" {
        if let Some(Value::Object(template)) = object.value.pointer_mut("/spec/jobTemplate") {
            template.entry("metadata").or_insert_with(|| Value::Object(Default::default()));
        }
        add(&mut object.value, "/spec/jobTemplate/metadata", field, pairs);
    }
    if object.kind() == "StatefulSet" {
        for claim in object.value["spec"]["volumeClaimTemplates"].as_array_mut().into_iter().flatten() {
            add(claim, "/metadata", field, pairs);
        }
    }
}

fn add_to_selectors(object: &mut Object, pairs: &BTreeMap<String, String>) {
    match object.kind() {
        "Service" | "ReplicationController" if object.value["spec"]["selector"].is_object() => {
            add(&mut object.value, "/spec", "selector", pairs);
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            if let Some(Value::Object(spec)) = object.value.pointer_mut("/spec") {
                spec.entry("selector").or_insert_with(|| Value::Object(Default::default()));
            }
            add(&mut object.value, "/spec/selector", "matchLabels", pairs);
        }
        "PodDisruptionBudget" | "Job" if object.value["spec"]["selector"].is_object() => {
            add(&mut object.value, "/spec/selector", "matchLabels", pairs);
        }
        "NetworkPolicy" => add(&mut object.value, "/spec/podSelector", "matchLabels", pairs),
        _ => {}
    }
}

pub fn set_replicas(replicas: &[Replicas], path: &str, objects: &mut [Object]) -> Result<(), BuildError> {
    for entry in replicas {
        let mut found = false;
        for object in objects.iter_mut() {
            let scales = matches!(
                object.kind(),
                "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController"
            );
            if scales && object.is_known_as(&entry.name, None) {
                object.value["spec"]["replicas"] = entry.count.into();
                found = true;
            }
        }
        if !found {
            let target = format!(" (replicas of {})", entry.name);
            return Err(BuildError::NoTarget { path: path.to_owned(), target });
        }
    }
    Ok(())
}
