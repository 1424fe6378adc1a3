//! Validation of what a container asks for and may have.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::kinds::validate::{amount, qualified};
use crate::kinds::{Errors, names};
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Shared out by the node; everything else is given whole.
const SHARED: &[&str] = &["cpu", "ephemeral-storage", "memory"];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

pub fn check_resources(
    field: &str,
    resources: &ResourceRequirements,
    claims: &HashSet<&str>,
    errors: &mut Errors,
) {
    for (side, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, value) in amounts.iter().flatten() {
            let at = format!("{field}.{side}[{name}]");
            check_container_resource(&at, name, errors);
            amount(at.as_str(), value, errors);
            let whole = Quantity::parse(&value.0).is_ok_and(|q| q.is_whole());
            if !SHARED.contains(&name.as_str()) && !whole && name.contains('/') {
                let shown = Quantity::parse(&value.0).map_or_else(|_| value.0.clone(), |q| q.to_string());
                errors.push(FieldError::invalid(at, shown, "must be an integer"));
            }
        }
    }
    let parse = |text: &str| Quantity::parse(text).ok();
    for (name, request) in resources.requests.iter().flatten() {
        let limit = resources.limits.as_ref().and_then(|l| l.get(name)).and_then(|l| parse(&l.0));
        let given_whole = !SHARED.contains(&name.as_str());
        match (limit, parse(&request.0)) {
            (None, _) if given_whole && (name.contains('/') || is_huge(name)) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(format!("{field}.limits"), detail));
            }
            (Some(limit), Some(request)) if given_whole && request != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(format!("{field}.requests"), request.to_string(), detail));
            }
            (Some(limit), Some(request)) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(format!("{field}.requests"), request.to_string(), detail));
            }
            _ => {}
        }
    }
    for (i, claim) in resources.claims.iter().flatten().enumerate() {
        if !claims.contains(claim.name.as_str()) {
            let which = match claims.is_empty() {
                true => "pod.spec.resourceClaims which is empty".to_owned(),
                false => "pod.spec.resourceClaims".to_owned(),
            };
            let message = format!("Not found: {:?}: must be one of the names in {which}", claim.name);
            let problem = crate::status::Problem::Worded("FieldValueNotFound", message);
            errors.push(FieldError { field: format!("{field}.claims[{i}]"), problem });
        }
    }
}

/// The resources that have a plain name.
const STANDARD: &[&str] = &[
    "configmaps",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

/// What the API server counts itself, and therefore whole.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// Whether a resource is given out whole: what is counted, and what has a domain of somebody's own.
pub fn is_counted(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    COUNTED.contains(&name) || !native && !name.starts_with("requests.")
}

/// Whether a name without a domain stands for a resource.
pub fn is_standard(name: &str) -> bool {
    SHARED.contains(&name) || STANDARD.contains(&name)
}

/// A name that stands for a resource anywhere: a standard one, or one with a domain. Says whether it is well-formed.
pub fn check_standard_resource(field: &str, name: &str, errors: &mut Errors) -> bool {
    if names::key_fault(name).is_some() {
        qualified(field, name, errors);
        return false;
    }
    if !name.contains('/') && !is_huge(name) && !is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(field, name, detail));
    }
    true
}

/// What a container may ask for.
pub fn check_container_resource(field: &str, name: &str, errors: &mut Errors) {
    let well_formed = check_standard_resource(field, name, errors);
    if well_formed && !name.contains('/') && !SHARED.contains(&name) && !is_huge(name) {
        errors.push(FieldError::invalid(field, name, "must be a standard resource for containers"));
    }
}
