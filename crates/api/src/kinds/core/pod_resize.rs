//! What a pod's `resize` may change: cpu and memory of its containers, within the class of service it was born to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::qos_class;
use super::pod_validate;
use crate::kinds::Errors;
use crate::status::FieldError;

type Amounts = Option<BTreeMap<String, Quantity>>;

pub fn settle(new: &mut Pod, old: &Pod, errors: &mut Errors) {
    let (Some(spec), Some(held)) = (&new.spec, &old.spec) else { return };
    pod_validate::check_spec("spec", spec, errors);
    let class = old.status.as_ref().and_then(|s| s.qos_class.clone());
    let class = class.unwrap_or_else(|| qos_class(held).to_owned());
    if qos_class(spec) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", class, detail));
    }
    let pairs = || spec.containers.iter().zip(&held.containers);
    for (i, (container, held)) in pairs().enumerate() {
        let at = format!("spec.containers[{i}].resources");
        for (limits, what) in [(false, "requests"), (true, "limits")] {
            if is_removed(amounts(container, limits), amounts(held, limits)) {
                let detail = format!("resource {what} cannot be removed");
                errors.push(FieldError::forbidden(format!("{at}.{what}"), detail));
            }
        }
    }
    for (container, held) in pairs() {
        if [false, true]
            .into_iter()
            .any(|limits| others(amounts(container, limits)) != others(amounts(held, limits)))
        {
            errors.push(FieldError::forbidden("spec", "only cpu and memory resources are mutable"));
        }
    }
}

fn amounts(container: &Container, limits: bool) -> Amounts {
    let resources = container.resources.clone().unwrap_or_default();
    if limits { resources.limits } else { resources.requests }
}

fn is_removed(new: Amounts, old: Amounts) -> bool {
    let new = new.unwrap_or_default();
    old.unwrap_or_default().keys().any(|name| !new.contains_key(name))
}

/// What is neither cpu nor memory.
fn others(amounts: Amounts) -> BTreeMap<String, Quantity> {
    let mut amounts = amounts.unwrap_or_default();
    amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
    amounts
}
