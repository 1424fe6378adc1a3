//! `ResourceQuota`: how much a namespace may hold in all.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::Value;

use super::resources_validate::{check_standard_resource, is_standard};
use crate::columns::{age_cell, name_cell};
use crate::kinds::validate::{amount, json};
use crate::kinds::{Build, Errors, Kind};
use crate::quantity::Quantity;
use crate::status::{FieldError, Problem};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub fn kind() -> Kind {
    Build::<ResourceQuota>::new("resourcequotas", true)
        .rules(|r| r.answers_deleted = true)
        .short(&["quota"])
        .status()
        .validate(|quota, errors| {
            let spec = quota.spec.clone().unwrap_or_default();
            check_amounts("spec.hard", spec.hard.as_ref(), errors);
            check_scopes(&spec, errors);
        })
        .validate_update(|new, old, errors| {
            let scopes = |q: &ResourceQuota| {
                let mut scopes = q.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
                scopes.sort();
                scopes
            };
            errors.immutable("spec.scopes", &scopes(new), &scopes(old));
        })
        .validate_status(|new, _, errors| {
            let status = new.status.clone().unwrap_or_default();
            check_amounts("status.hard", status.hard.as_ref(), errors);
            check_amounts("status.used", status.used.as_ref(), errors);
        })
        .row(row)
        .done()
}

fn check_amounts(field: &str, amounts: Option<&BTreeMap<String, Amount>>, errors: &mut Errors) {
    for (name, value) in amounts.into_iter().flatten() {
        let at = format!("{field}[{name}]");
        let well_formed = check_standard_resource(&at, name, errors);
        if !name.contains('/') && (!well_formed || !is_known(name)) {
            let detail = "must be a standard resource for quota";
            errors.push(FieldError::invalid(at.as_str(), name.as_str(), detail));
        }
        amount(at.as_str(), value, errors);
        let parsed = Quantity::parse(&value.0).ok();
        if let Some(parsed) = parsed.filter(|q| !q.is_whole() && is_count(name)) {
            errors.push(FieldError::invalid(at, parsed.to_string(), "must be an integer"));
        }
    }
}

/// Objects are counted whole.
fn is_count(name: &str) -> bool {
    let base = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    !matches!(base, "cpu" | "memory" | "storage" | "ephemeral-storage") && !base.starts_with("hugepages-")
}

/// Resources without a domain of their own must be ones that quota knows.
fn is_known(name: &str) -> bool {
    let huge = ["hugepages-", "requests.hugepages-", "limits.hugepages-"];
    is_standard(name) && name != "storage" || huge.iter().any(|h| name.starts_with(h))
}

fn counts_more_than_pods(spec: &ResourceQuotaSpec) -> bool {
    spec.hard.iter().flatten().any(|(name, _)| name != "pods" && name != "count/pods")
}

/// So many scopes that are at fault are told of.
const SCOPE_FAULTS_MAX: usize = 16;

fn check_scopes(spec: &ResourceQuotaSpec, errors: &mut Errors) {
    let counted = |scope: &String| scope == "BestEffort" && counts_more_than_pods(spec);
    let faults = spec.scopes.iter().flatten().filter_map(|scope| match SCOPES.contains(&scope.as_str()) {
        false => Some("unsupported scope"),
        true => counted(scope).then_some("unsupported scope applied to resource"),
    });
    // Each shows the whole list.
    for detail in faults.take(SCOPE_FAULTS_MAX) {
        errors.push(FieldError::invalid("spec.scopes", json(&spec.scopes), detail));
    }
    let has = |wanted: &str| spec.scopes.iter().flatten().any(|s| s == wanted);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            errors.push(FieldError::invalid("spec.scopes", json(&spec.scopes), "conflicting scopes"));
        }
    }
    let expressions = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    for expression in expressions {
        let at = "spec.scopeSelector.matchExpressions";
        if !SCOPES.contains(&expression.scope_name.as_str()) {
            let shown = expression.scope_name.as_str();
            errors.push(FieldError::invalid(format!("{at}.scopeName"), shown, "unsupported scope"));
        }
        const BARE: &[&str] =
            &["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "Terminating"];
        if expression.scope_name == "BestEffort" && counts_more_than_pods(spec) {
            // As the original prints its own type.
            let shown: Vec<String> = spec
                .scope_selector
                .iter()
                .flat_map(|s| s.match_expressions.iter().flatten())
                .map(|e| {
                    let (scope, operator, values) = (&e.scope_name, &e.operator, json(&e.values));
                    format!("{{\"ScopeName\":{scope:?},\"Operator\":{operator:?},\"Values\":{values}}}")
                })
                .collect();
            let detail = "unsupported scope applied to resource";
            let message = format!("Invalid value: {{\"MatchExpressions\":[{}]}}: {detail}", shown.join(","));
            let problem = Problem::Worded("FieldValueInvalid", message);
            errors.push(FieldError { field: at.into(), problem });
        }
        if BARE.contains(&expression.scope_name.as_str()) && expression.operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                          ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                          ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(format!("{at}.operator"), expression.operator.as_str(), detail));
        }
        let values = expression.values.as_ref().is_some_and(|v| !v.is_empty());
        match expression.operator.as_str() {
            "In" | "NotIn" if !values => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if values => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(format!("{at}.values"), json(&expression.values), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{at}.operator"), other, detail));
            }
        }
    }
}

fn row(quota: &ResourceQuota) -> Vec<Value> {
    let status = quota.status.clone().unwrap_or_default();
    let used = status.used.unwrap_or_default();
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in status.hard.iter().flatten() {
        let used = used.get(name).map_or("0", |u| u.0.as_str());
        let side = if name.starts_with("limits.") { &mut limits } else { &mut requests };
        side.push(format!("{name}: {used}/{}", hard.0));
    }
    vec![
        name_cell(&quota.metadata),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age_cell(&quota.metadata),
    ]
}
