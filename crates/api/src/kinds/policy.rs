//! `policy/v1`: how much of an application may be taken away at once.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Build, Kind};
use crate::columns::{age_cell, name_cell};
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    let budget = Build::<PodDisruptionBudget>::new("poddisruptionbudgets", true)
        .rules(|r| r.update_needs_version = true)
        .short(&["pdb"])
        .status()
        .generation()
        .validate(|budget, errors| {
            let spec = budget.spec.clone().unwrap_or_default();
            if spec.min_available.is_some() && spec.max_unavailable.is_some() {
                let detail = "minAvailable and maxUnavailable cannot be both set";
                errors.push(FieldError::invalid(
                    "spec",
                    serde_json::to_value(&spec).unwrap_or_default(),
                    detail,
                ));
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
