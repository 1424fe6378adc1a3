//! What policies and bindings have in common: whom they are about, and where parameters come from.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef,
};

use crate::kinds::{Errors, names};
use crate::selector::Selector;
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
        let Some(selector) = selector else { continue };
        if let Err(fault) = Selector::from_object(selector) {
            let shown = serde_json::to_value(selector).unwrap_or_default();
            errors.push(FieldError::invalid(format!("{field}.{name}"), shown, fault.to_string()));
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
    let lists = [
        ("operations", &rule.operations),
        ("apiGroups", &rule.api_groups),
        ("apiVersions", &rule.api_versions),
        ("resources", &rule.resources),
    ];
    for (name, list) in lists {
        let list = list.as_deref().unwrap_or_default();
        errors.required(format!("{field}.{name}"), list.is_empty());
        if list.len() > 1 && list.iter().any(|entry| entry == "*") {
            let detail = "if '*' is present, must not specify other operations";
            let detail = if name == "operations" {
                detail.to_owned()
            } else {
                format!("if '*' is present, must not specify other {}", spelled(name))
            };
            let shown = serde_json::to_value(list).unwrap_or_default();
            errors.push(FieldError::invalid(format!("{field}.{name}"), shown, detail));
        }
        if matches!(name, "apiVersions" | "resources") {
            for (index, _) in list.iter().enumerate().filter(|(_, entry)| entry.is_empty()) {
                errors.push(FieldError::required(format!("{field}.{name}[{index}]"), ""));
            }
        }
    }
    for (index, operation) in rule.operations.iter().flatten().enumerate() {
        let supported = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        errors.one_of(format!("{field}.operations[{index}]"), Some(operation), &supported);
    }
    errors.one_of(format!("{field}.scope"), rule.scope.as_deref(), &["*", "Cluster", "Namespaced"]);
    let mut seen = std::collections::BTreeSet::new();
    for (index, name) in rule.resource_names.iter().flatten().enumerate() {
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.resourceNames[{index}]"), name.as_str()));
        }
    }
}

fn spelled(list: &str) -> &str {
    match list {
        "apiGroups" => "API groups",
        "apiVersions" => "API versions",
        other => other,
    }
}

pub fn check_param_kind(kind: Option<&ParamKind>, field: &str, errors: &mut Errors) {
    let Some(kind) = kind else { return };
    let version = kind.api_version.as_deref().unwrap_or_default();
    errors.required(format!("{field}.apiVersion"), version.is_empty());
    if version.split('/').count() > 2 || version.split('/').any(|part| part.is_empty() && !version.is_empty())
    {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(format!("{field}.apiVersion"), version, detail));
    }
    errors.required(format!("{field}.kind"), kind.kind.as_deref().unwrap_or_default().is_empty());
}

pub fn check_param_ref(reference: Option<&ParamRef>, field: &str, errors: &mut Errors) {
    let Some(reference) = reference else { return };
    let name = reference.name.as_deref().unwrap_or_default();
    match (name, &reference.selector) {
        ("", None) => errors.push(FieldError::required(field, "one of name or selector must be specified")),
        ("", Some(selector)) => {
            if let Err(fault) = Selector::from_object(selector) {
                let shown = serde_json::to_value(selector).unwrap_or_default();
                errors.push(FieldError::invalid(format!("{field}.selector"), shown, fault.to_string()));
            }
        }
        (_, Some(_)) => {
            for part in ["name", "selector"] {
                let detail = "name and selector are mutually exclusive";
                errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
            }
        }
        (_, None) => {}
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

/// Names and presence; what the expressions say is judged apart.
pub fn check_conditions(conditions: Option<&Vec<MatchCondition>>, field: &str, errors: &mut Errors) {
    let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
    if conditions.len() > MAX_CONDITIONS {
        let problem = Problem::TooMany(conditions.len(), MAX_CONDITIONS);
        errors.push(FieldError { field: field.to_owned(), problem });
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let place = format!("{field}[{index}]");
        errors.required(format!("{place}.expression"), condition.expression.trim().is_empty());
        if condition.name.is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), ""));
        } else if let Some(fault) = names::key_fault(&condition.name) {
            errors.push(FieldError::invalid(format!("{place}.name"), condition.name.as_str(), fault));
        } else if !seen.insert(&condition.name) {
            errors.push(FieldError::duplicate(format!("{place}.name"), condition.name.as_str()));
        }
    }
}
