//! Validation of where a pod may run: affinities, tolerations, spreading.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorTerm, PodAffinityTerm, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};

use crate::kinds::validate::{label_selector, qualified};
use crate::kinds::{Errors, names};
use crate::status::FieldError;

pub fn check_tolerations(field: &str, tolerations: Option<&[Toleration]>, errors: &mut Errors) {
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    for (i, toleration) in tolerations.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        let (key, value) =
            (toleration.key.as_deref().unwrap_or_default(), toleration.value.as_deref().unwrap_or_default());
        let operator = toleration.operator.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        if !key.is_empty() {
            qualified(format!("{at}.key"), key, errors);
        }
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(format!("{at}.operator"), operator, detail));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(format!("{at}.effect"), effect, detail));
        }
        match operator {
            "Equal" | "" => {
                if let Some(fault) = names::label_value_fault(value) {
                    errors.push(FieldError::invalid(format!("{at}.operator"), value, fault));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{at}.operator"), value, detail));
            }
            "Exists" => {}
            other => errors.one_of(format!("{at}.operator"), Some(other), &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.one_of(format!("{at}.effect"), Some(effect), EFFECTS);
        }
    }
}

pub fn check_spreading(field: &str, constraints: Option<&[TopologySpreadConstraint]>, errors: &mut Errors) {
    let constraints = constraints.unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, constraint) in constraints.iter().enumerate() {
        let at = format!("{field}[{i}]");
        if constraint.max_skew <= 0 {
            errors.push(FieldError::invalid(
                format!("{at}.maxSkew"),
                constraint.max_skew,
                "must be greater than zero",
            ));
        }
        if constraint.topology_key.is_empty() {
            errors.push(FieldError::required(format!("{at}.topologyKey"), "can not be empty"));
        }
        let action = Some(constraint.when_unsatisfiable.as_str());
        errors.one_of(format!("{at}.whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        if !seen.insert((constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str())) {
            let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.push(FieldError::duplicate(format!("{at}.{{topologyKey, whenUnsatisfiable}}"), pair));
        }
        if let Some(domains) = constraint.min_domains {
            if domains <= 0 {
                errors.push(FieldError::invalid(
                    format!("{at}.minDomains"),
                    domains,
                    "must be greater than zero",
                ));
            }
            if constraint.when_unsatisfiable != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                errors.push(FieldError::invalid(format!("{at}.minDomains"), domains, detail));
            }
        }
        for (part, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            errors.one_of(format!("{at}.{part}"), policy.as_deref(), &["Honor", "Ignore"]);
        }
        if let Some(selector) = &constraint.label_selector {
            label_selector(&format!("{at}.labelSelector"), selector, errors);
        }
    }
}

pub fn check_affinity(field: &str, affinity: &Affinity, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        let at = format!("{field}.nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            check_node_selector(
                &format!("{at}.requiredDuringSchedulingIgnoredDuringExecution"),
                required,
                errors,
            );
        }
        let preferred = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (i, term) in preferred.enumerate() {
            let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            check_weight(&at, term.weight, errors);
            check_node_term(&format!("{at}.preference"), &term.preference, errors);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        check_pod_terms(
            &format!("{field}.podAffinity"),
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
            errors,
        );
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        check_pod_terms(
            &format!("{field}.podAntiAffinity"),
            pods.required_during_scheduling_ignored_during_execution.as_deref(),
            pods.preferred_during_scheduling_ignored_during_execution.as_deref(),
            errors,
        );
    }
}

fn check_weight(field: &str, weight: i32, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(format!("{field}.weight"), weight, "must be in the range 1-100"));
    }
}

pub fn check_node_selector(field: &str, selector: &NodeSelector, errors: &mut Errors) {
    if selector.node_selector_terms.is_empty() {
        let detail = "must have at least one node selector term";
        errors.push(FieldError::required(format!("{field}.nodeSelectorTerms"), detail));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        check_node_term(&format!("{field}.nodeSelectorTerms[{i}]"), term, errors);
    }
}

fn check_node_term(field: &str, term: &NodeSelectorTerm, errors: &mut Errors) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = format!("{field}.matchExpressions[{i}]");
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(format!("{at}.values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                errors.push(FieldError::invalid(
                    format!("{at}.operator"),
                    other,
                    "not a valid selector operator",
                ));
            }
        }
        qualified(format!("{at}.key"), &requirement.key, errors);
    }
}

fn check_pod_terms(
    field: &str,
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    errors: &mut Errors,
) {
    for (i, term) in required.unwrap_or_default().iter().enumerate() {
        check_pod_term(&format!("{field}.requiredDuringSchedulingIgnoredDuringExecution[{i}]"), term, errors);
    }
    for (i, weighted) in preferred.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
        check_weight(&at, weighted.weight, errors);
        check_pod_term(&format!("{at}.podAffinityTerm"), &weighted.pod_affinity_term, errors);
    }
}

fn check_pod_term(field: &str, term: &PodAffinityTerm, errors: &mut Errors) {
    for (part, selector) in
        [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)]
    {
        if let Some(selector) = selector {
            label_selector(&format!("{field}.{part}"), selector, errors);
        }
    }
    for (i, namespace) in term.namespaces.iter().flatten().enumerate() {
        if let Some(fault) = names::fault(names::Rule::Label, namespace) {
            errors.push(FieldError::invalid(format!("{field}.namespaces[{i}]"), namespace.as_str(), fault));
        }
    }
    if term.topology_key.is_empty() {
        errors.push(FieldError::required(format!("{field}.topologyKey"), "can not be empty"));
    }
    qualified(format!("{field}.topologyKey"), &term.topology_key, errors);
}
