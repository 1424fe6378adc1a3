//! `policy/v1`: how much of an application may be taken away at once.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata::Passes;
use super::validate::{at_most_all, conditions, json, label_selector, share};
use super::{Build, Kind};
use crate::columns::{age_cell, name_cell};
use crate::status::{FieldError, Problem};

pub fn kinds() -> Vec<Kind> {
    let budget = Build::<PodDisruptionBudget>::new("poddisruptionbudgets", true)
        .rules(|r| {
            r.update_needs_version = true;
            // The original looks at the metadata of budgets only as at that of all kinds.
            r.metadata = Passes { with_the_rest: false, update: &[], status: &[] };
        })
        .short(&["pdb"])
        .status()
        .generation()
        .validate(|budget, errors| {
            let spec = budget.spec.clone().unwrap_or_default();
            if spec.min_available.is_some() && spec.max_unavailable.is_some() {
                errors.push(both_set(&spec));
            }
            for (at, given) in
                [("spec.minAvailable", &spec.min_available), ("spec.maxUnavailable", &spec.max_unavailable)]
            {
                share(at, given.as_ref(), errors);
                at_most_all(at, given.as_ref(), errors);
            }
            const POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];
            let policy = spec.unhealthy_pod_eviction_policy.as_deref();
            errors.one_of("spec.unhealthyPodEvictionPolicy", policy, POLICIES);
            if let Some(selector) = &spec.selector {
                label_selector("spec.selector", selector, errors);
            }
        })
        .validate_status(|new, _, errors| {
            let status = new.status.clone().unwrap_or_default();
            conditions("status.conditions", status.conditions.as_deref().unwrap_or_default(), errors);
            for (name, count) in [
                ("disruptionsAllowed", status.disruptions_allowed),
                ("currentHealthy", status.current_healthy),
                ("desiredHealthy", status.desired_healthy),
                ("expectedPods", status.expected_pods),
            ] {
                errors.not_negative(format!("status.{name}"), count.map(i64::from));
            }
        })
        .row(|b| {
            let spec = b.spec.clone().unwrap_or_default();
            let shown = |share: Option<IntOrString>| match share {
                Some(IntOrString::Int(n)) => n.to_string(),
                Some(IntOrString::String(text)) => text,
                None => "N/A".into(),
            };
            vec![
                name_cell(&b.metadata),
                shown(spec.min_available).into(),
                shown(spec.max_unavailable).into(),
                b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
                age_cell(&b.metadata),
            ]
        })
        .done();
    vec![budget]
}

/// As the original prints its own type.
fn both_set(spec: &PodDisruptionBudgetSpec) -> FieldError {
    let (min, max) = (json(&spec.min_available), json(&spec.max_unavailable));
    let (selector, policy) = (json(&spec.selector), json(&spec.unhealthy_pod_eviction_policy));
    let message = format!(
        "Invalid value: {{\"MinAvailable\":{min},\"Selector\":{selector},\"MaxUnavailable\":{max},\
         \"UnhealthyPodEvictionPolicy\":{policy}}}: minAvailable and maxUnavailable cannot be both set"
    );
    FieldError { field: "spec".into(), problem: Problem::Worded("FieldValueInvalid", message) }
}
