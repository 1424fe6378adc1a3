//! `apps/v1`: the workload kinds, one a file.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::core::pod_validate_template;
use super::validate::is_empty_selector;
use super::{Errors, Kind};
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    vec![
        controller_revision::kind(),
        daemon_set::kind(),
        deployment::kind(),
        replica_set::kind(),
        stateful_set::kind(),
    ]
}

/// What holds of every workload: a selector that selects the template's own pods, and a valid template.
fn check_workload(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    replicas: Option<i32>,
    errors: &mut Errors,
) {
    errors.not_negative("spec.replicas", replicas.map(i64::from));
    let empty = is_empty_selector(selector);
    if empty {
        errors.required("spec.selector", true);
    }
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let matches = match crate::selector::Selector::from_object(selector) {
        Ok(selector) => selector.matches(&labels),
        Err(error) => {
            let shown = serde_json::to_value(selector).unwrap_or_default();
            return errors.push(FieldError::invalid("spec.selector", shown, error.to_string()));
        }
    };
    if !empty && !matches {
        let shown = serde_json::to_value(&labels).unwrap_or_default();
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, detail));
    }
    pod_validate_template("spec.template", template, errors);
    let policy = template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    errors.one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
}

/// Containers, images and selector of a workload, as `-o wide` shows them.
fn wide_cells(template: &PodTemplateSpec, selector: &LabelSelector) -> [serde_json::Value; 3] {
    let containers = template.spec.iter().flat_map(|s| s.containers.iter());
    let names = crate::columns::list_or_none(containers.clone().map(|c| c.name.clone()));
    let images = crate::columns::list_or_none(containers.map(|c| c.image.clone().unwrap_or_default()));
    [names, images, crate::columns::selector_cell(Some(selector))]
}
