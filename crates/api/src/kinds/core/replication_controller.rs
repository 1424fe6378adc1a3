//! `ReplicationController`: the older ReplicaSet, whose selector is a plain map.

use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use super::pod_spec::default_template;
use super::pod_validate::check_template;
use super::pod_warnings::{of_name, of_template};
use crate::columns::{age_cell, labels_cell, list_or_none, name_cell};
use crate::kinds::apps::check_counts;
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ReplicationController>::new("replicationcontrollers", true)
        .rules(|r| r.orphans_dependents = true)
        .short(&["rc"])
        .in_all()
        .prefix("/registry/controllers")
        .status()
        .generation()
        .scale()
        .default(default)
        .validate(validate)
        .warnings(|rc| {
            let template = rc.spec.as_ref().and_then(|s| s.template.as_ref());
            let template = template.map(|t| of_template("spec.template", t));
            of_name(&rc.metadata).into_iter().chain(template.unwrap_or_default()).collect()
        })
        .validate_status(validate_status)
        .row(row)
        .fields(&["status.replicas"], |c| {
            vec![("status.replicas", c.status.as_ref().map_or(0, |s| s.replicas).to_string())]
        })
        .done()
}

/// What the template's labels are, the selector and the controller's own labels are by default.
fn default(controller: &mut ReplicationController) {
    let Some(spec) = &mut controller.spec else { return };
    let labels = spec.template.as_ref().and_then(|t| t.metadata.as_ref()?.labels.clone());
    if let Some(labels) = labels.filter(|l| !l.is_empty()) {
        if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
            spec.selector = Some(labels.clone());
        }
        if controller.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            controller.metadata.labels = Some(labels);
        }
    }
    spec.replicas.get_or_insert(1);
    spec.template.iter_mut().for_each(default_template);
}

fn validate(controller: &ReplicationController, errors: &mut Errors) {
    let spec = controller.spec.clone().unwrap_or_default();
    errors.not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
    let selector = spec.selector.unwrap_or_default();
    errors.required("spec.selector", selector.is_empty());
    errors.not_negative("spec.replicas", spec.replicas.map(i64::from));
    let Some(template) = &spec.template else { return errors.required("spec.template", true) };
    if !selector.is_empty() {
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        if !selector.iter().all(|(k, v)| labels.get(k) == Some(v)) {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", json(&labels), detail));
        }
    }
    check_template("spec.template", template, errors);
    let policy = template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    errors.one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
    if template.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some()) {
        let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", detail));
    }
}

fn validate_status(new: &ReplicationController, _old: &ReplicationController, errors: &mut Errors) {
    let status = new.status.clone().unwrap_or_default();
    let counts = [
        ("replicas", Some(i64::from(status.replicas))),
        ("fullyLabeledReplicas", status.fully_labeled_replicas.map(i64::from)),
        ("readyReplicas", status.ready_replicas.map(i64::from)),
        ("availableReplicas", status.available_replicas.map(i64::from)),
        ("observedGeneration", status.observed_generation),
    ];
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    check_counts(&counts, &parts, "readyReplicas", errors);
}

fn row(controller: &ReplicationController) -> Vec<Value> {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let pod = spec.template.and_then(|t| t.spec).unwrap_or_default();
    vec![
        name_cell(&controller.metadata),
        spec.replicas.unwrap_or(0).into(),
        status.replicas.into(),
        status.ready_replicas.unwrap_or(0).into(),
        age_cell(&controller.metadata),
        list_or_none(pod.containers.iter().map(|c| c.name.clone())),
        list_or_none(pod.containers.iter().map(|c| c.image.clone().unwrap_or_default())),
        labels_cell(spec.selector.as_ref()),
    ]
}
