//! What policies and bindings have in common: whom they are about, and where parameters come from.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
};

use super::expressions;
use crate::kinds::admission::webhooks;
use crate::kinds::validate::{label_selector, qualified};
use crate::kinds::{Errors, names};
use crate::policy::Declared;
use crate::status::{FieldError, Problem};

const MAX_CONDITIONS: usize = 64;

pub fn default_match(resources: Option<&mut MatchResources>) {
    let Some(resources) = resources else { return };
    resources.match_policy.get_or_insert_with(|| "Equivalent".into());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = [&mut resources.resource_rules, &mut resources.exclude_resource_rules];
    for rule in rules.into_iter().flat_map(|rules| rules.iter_mut().flatten()) {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

pub fn check_match(resources: &MatchResources, field: &str, errors: &mut Errors) {
    let policy = resources.match_policy.as_deref();
    errors.one_of(format!("{field}.matchPolicy"), policy, &["Equivalent", "Exact"]);
    for (name, selector) in
        [("namespaceSelector", &resources.namespace_selector), ("objectSelector", &resources.object_selector)]
    {
        if let Some(selector) = selector {
            label_selector(&format!("{field}.{name}"), selector, errors);
        }
    }
    for (name, rules) in [
        ("resourceRules", &resources.resource_rules),
        ("excludeResourceRules", &resources.exclude_resource_rules),
    ] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            check_rule(rule, &format!("{field}.{name}[{index}]"), errors);
        }
    }
}

fn check_rule(rule: &NamedRuleWithOperations, field: &str, errors: &mut Errors) {
    let plain = RuleWithOperations {
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        operations: rule.operations.clone(),
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    };
    webhooks::check_rule(field, &plain, errors);
    let mut seen = std::collections::BTreeSet::new();
    for (index, name) in rule.resource_names.iter().flatten().enumerate() {
        let at = format!("{field}.resourceNames[{index}]");
        if let Some(fault) = names::fault(names::Rule::PathSegment, name) {
            errors.push(FieldError::invalid(at.as_str(), name.as_str(), fault));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(at, name.as_str()));
        }
    }
}

pub fn check_param_kind(kind: Option<&ParamKind>, field: &str, errors: &mut Errors) {
    let Some(kind) = kind else { return };
    let version = kind.api_version.as_deref().unwrap_or_default();
    let at = format!("{field}.apiVersion");
    errors.required(at.as_str(), version.is_empty());
    let parts: Vec<&str> = version.split('/').collect();
    let mut check = |rule: names::Rule, part: &str| {
        if let Some(fault) = names::fault(rule, part) {
            errors.push(FieldError::invalid(at.as_str(), part, fault));
        }
    };
    match parts.as_slice() {
        [""] => {}
        [version] => check(names::Rule::Label1035, version),
        [group, version] if !group.is_empty() && !version.is_empty() => {
            check(names::Rule::Subdomain, group);
            check(names::Rule::Label1035, version);
        }
        _ => {
            let detail = format!("unexpected GroupVersion string: {version}");
            errors.push(FieldError::invalid(at, version, detail));
        }
    }
    let name = kind.kind.as_deref().unwrap_or_default();
    errors.required(format!("{field}.kind"), name.is_empty());
    if let Some(fault) =
        names::fault(names::Rule::Label1035, &name.to_lowercase()).filter(|_| !name.is_empty())
    {
        let detail = format!("may have mixed case, but should otherwise match: {fault}");
        errors.push(FieldError::invalid(format!("{field}.kind"), name, detail));
    }
}

pub fn check_param_ref(reference: Option<&ParamRef>, field: &str, errors: &mut Errors) {
    let Some(reference) = reference else { return };
    let name = reference.name.as_deref().unwrap_or_default();
    match (name, &reference.selector) {
        ("", None) => errors.push(FieldError::required(field, "one of name or selector must be specified")),
        ("", Some(selector)) => label_selector(&format!("{field}.selector"), selector, errors),
        (_, Some(_)) => {
            for part in ["name", "selector"] {
                let detail = "name and selector are mutually exclusive";
                errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
            }
        }
        (name, None) => {
            if let Some(fault) = names::fault(names::Rule::PathSegment, name) {
                errors.push(FieldError::invalid(format!("{field}.name"), name, fault));
            }
        }
    }
    let action = reference.parameter_not_found_action.as_deref();
    errors.required(format!("{field}.parameterNotFoundAction"), action.is_none());
    errors.one_of(format!("{field}.parameterNotFoundAction"), action, &["Deny", "Allow"]);
}

pub fn shown_param_kind(kind: Option<&ParamKind>) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    kind.map_or("<unset>".into(), |kind| format!("{}/{}", part(&kind.api_version), part(&kind.kind)))
}

pub fn shown_param_ref(reference: Option<&ParamRef>) -> String {
    let Some(reference) = reference else { return "<unset>".into() };
    match (&reference.namespace, &reference.name) {
        (Some(namespace), Some(name)) if !namespace.is_empty() => format!("{namespace}/{name}"),
        (_, Some(name)) => name.clone(),
        (_, None) => "*".into(),
    }
}

/// Of each condition first what it says, then its name.
pub fn check_conditions(
    declared: Declared,
    conditions: Option<&Vec<MatchCondition>>,
    field: &str,
    errors: &mut Errors,
) {
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    if conditions.len() > MAX_CONDITIONS {
        let problem = Problem::TooMany(conditions.len(), MAX_CONDITIONS);
        errors.push(FieldError { field: field.to_owned(), problem });
    }
    let faults = expressions::conditions(declared, conditions);
    let mut seen = std::collections::BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let place = format!("{field}[{index}]");
        let source = condition.expression.as_str();
        errors.required(format!("{place}.expression"), source.trim().is_empty());
        for (_, fault) in faults.iter().filter(|(at, _)| *at == index && !source.trim().is_empty()) {
            errors.push(FieldError::invalid(format!("{place}.expression"), source, fault.as_str()));
        }
        if condition.name.is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), ""));
        } else {
            qualified(format!("{place}.name"), &condition.name, errors);
            if !seen.insert(&condition.name) {
                errors.push(FieldError::duplicate(format!("{place}.name"), condition.name.as_str()));
            }
        }
    }
}
