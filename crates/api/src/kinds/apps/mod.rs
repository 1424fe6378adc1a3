//! `apps/v1`: the workload kinds, one a file.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::core::{pod_name_warning, pod_template_warnings, pod_validate_template};
use super::validate::{is_empty_selector, json, label_selector};
use super::{Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kinds() -> Vec<Kind> {
    vec![
        controller_revision::kind(),
        daemon_set::kind(),
        deployment::kind(),
        replica_set::kind(),
        stateful_set::kind(),
    ]
}

/// What a workload says of its pods: no count is negative, and none of a part is above that of the whole.
pub(super) fn check_counts(counts: &[(&str, Option<i64>)], parts: &[&str], ready: &str, errors: &mut Errors) {
    let of = |name: &str| {
        counts.iter().find(|(known, _)| *known == name).and_then(|(_, count)| *count).unwrap_or(0)
    };
    for (name, count) in counts {
        errors.not_negative(format!("status.{name}"), *count);
    }
    for part in parts {
        if of(part) > of("replicas") {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(format!("status.{part}"), of(part), detail));
        }
    }
    if of("availableReplicas") > of("readyReplicas") {
        let detail = format!("cannot be greater than {ready}");
        errors.push(FieldError::invalid("status.availableReplicas", of("availableReplicas"), detail));
    }
}

/// The number of times that a name was taken only grows.
fn check_collisions(new: Option<i32>, old: Option<i32>, errors: &mut Errors) {
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        let detail = "cannot be decremented";
        errors.push(FieldError::invalid("status.collisionCount", new.unwrap_or(0), detail));
    }
}

/// What is said of one sort of workload and not of another.
struct Wording {
    /// Whether a missing selector is told as such, or only by what it does not match.
    selector_required: bool,
    /// What is said of a selector as a whole when a part of it is at fault; `None`: nothing.
    shows_faulty_selector: Option<&'static str>,
    /// What refuses a deadline of its pods.
    owner: &'static str,
}

/// What holds of every workload: a selector that selects the template's own pods, and a valid template.
fn check_workload(
    wording: &Wording,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    replicas: Option<i32>,
    errors: &mut Errors,
) {
    errors.not_negative("spec.replicas", replicas.map(i64::from));
    let empty = is_empty_selector(selector);
    if empty && wording.selector_required {
        errors.required("spec.selector", true);
    }
    let before = errors.0.len();
    label_selector("spec.selector", selector, errors);
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    if errors.0.len() > before {
        errors.0.extend(wording.shows_faulty_selector.map(|detail| invalid_selector(selector, detail)));
    } else {
        let parsed = crate::selector::Selector::from_object(selector);
        let matches = parsed.is_ok_and(|s| s.matches(labels.as_ref().unwrap_or(&Default::default())));
        if empty || !matches {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid("spec.template.metadata.labels", json(&labels), detail));
        }
    }
    pod_validate_template("spec.template", template, errors);
    let spec = template.spec.as_ref();
    let policy = spec.and_then(|s| s.restart_policy.as_deref());
    errors.one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
    if spec.is_some_and(|s| s.active_deadline_seconds.is_some()) {
        let detail = format!("activeDeadlineSeconds in {} is not Supported", wording.owner);
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", detail));
    }
}

/// The selector is shown with its parts in the order of its type.
fn invalid_selector(selector: &LabelSelector, detail: &str) -> FieldError {
    let mut parts = Vec::new();
    if let Some(labels) = &selector.match_labels {
        parts.push(format!("\"matchLabels\":{}", json(labels)));
    }
    if let Some(expressions) = &selector.match_expressions {
        let shown = expressions.iter().map(|e| {
            let values = e.values.as_ref().map(|v| format!(",\"values\":{}", json(v))).unwrap_or_default();
            format!("{{\"key\":{:?},\"operator\":{:?}{values}}}", e.key, e.operator)
        });
        parts.push(format!("\"matchExpressions\":[{}]", shown.collect::<Vec<_>>().join(",")));
    }
    let message = format!("Invalid value: {{{}}}{detail}", parts.join(","));
    FieldError { field: "spec.selector".into(), problem: Problem::Worded("FieldValueInvalid", message) }
}

/// A strategy that nobody knows, shown as the original shows its own type.
fn shown_strategy(kind: &str) -> String {
    format!("{{\"Type\":{kind:?},\"RollingUpdate\":null}}")
}

/// Containers, images and selector of a workload, as `-o wide` shows them.
fn wide_cells(template: &PodTemplateSpec, selector: &LabelSelector) -> [serde_json::Value; 3] {
    let containers = template.spec.iter().flat_map(|s| s.containers.iter());
    let names = crate::columns::list_or_none(containers.clone().map(|c| c.name.clone()));
    let images = crate::columns::list_or_none(containers.map(|c| c.image.clone().unwrap_or_default()));
    [names, images, crate::columns::selector_cell(Some(selector))]
}

/// Of the template, and of a name that becomes a part of the pods'.
fn workload_warnings(meta: &ObjectMeta, named: bool, template: Option<&PodTemplateSpec>) -> Vec<String> {
    let name = named.then(|| pod_name_warning(meta)).flatten();
    let template = template.map(|t| pod_template_warnings("spec.template", t)).unwrap_or_default();
    name.into_iter().chain(template).collect()
}
