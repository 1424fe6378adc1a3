//! `node.k8s.io/v1`: ways of running containers.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::api::node::v1::RuntimeClass;

use super::names::Rule;
use super::validate::{json, named};
use super::{Build, Errors, Kind};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::status::{FieldError, Problem};

pub fn kinds() -> Vec<Kind> {
    let class = Build::<RuntimeClass>::new("runtimeclasses", false)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.update_needs_version = true)
        .validate(validate)
        .validate_update(|new, old, errors| errors.immutable("handler", &new.handler, &old.handler))
        .row(|c| vec![name_cell(&c.metadata), c.handler.clone().into(), age_cell(&c.metadata)])
        .done();
    vec![class]
}

fn validate(class: &RuntimeClass, errors: &mut Errors) {
    named("handler", &class.handler, Rule::Label, errors);
    // Told as the limits that it adds to.
    let limits = class.overhead.as_ref().and_then(|o| o.pod_fixed.clone());
    super::core::check_resources(
        "overhead",
        &ResourceRequirements { limits, ..Default::default() },
        &HashSet::new(),
        errors,
    );
    let tolerations = class.scheduling.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
    super::core::check_tolerations("scheduling.tolerations", Some(tolerations), errors);
    for (i, toleration) in tolerations.iter().enumerate() {
        if tolerations[..i].contains(toleration) {
            // As the original prints its own type.
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let message = format!(
                "Duplicate value: {{\"Key\":{:?},\"Operator\":{:?},\"Value\":{:?},\"Effect\":{:?},\"TolerationSeconds\":{}}}",
                text(&toleration.key),
                text(&toleration.operator),
                text(&toleration.value),
                text(&toleration.effect),
                json(&toleration.toleration_seconds)
            );
            let problem = Problem::Worded("FieldValueDuplicate", message);
            errors.push(FieldError { field: format!("scheduling.tolerations[{i}]"), problem });
        }
    }
    let labels = class.scheduling.as_ref().and_then(|s| s.node_selector.as_ref());
    let labels = labels.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    super::names::check_labels("scheduling.nodeSelector", labels, errors);
}
