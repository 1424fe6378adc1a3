//! `FlowSchema`: which level a request belongs to.

use k8s_openapi::api::flowcontrol::v1::{
    FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, NonResourcePolicyRule,
    PolicyRulesWithSubjects, PriorityLevelConfigurationReference, ResourcePolicyRule, Subject,
};
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::names::{Rule, fault};
use crate::kinds::validate::{json, named};
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

const DEFAULT_PRECEDENCE: i32 = 1000;
const LAST_PRECEDENCE: i32 = 10_000;
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn kind() -> Kind {
    Build::<FlowSchema>::new("flowschemas", false)
        .metadata_on_update(&[Whole])
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .generation()
        .default(|schema| {
            if let Some(spec) = &mut schema.spec
                && spec.matching_precedence.unwrap_or(0) == 0
            {
                spec.matching_precedence = Some(DEFAULT_PRECEDENCE);
            }
        })
        .validate(|schema, errors| {
            validate(schema, errors);
            check_fixed(schema, errors);
        })
        .validate_status(|schema, _, errors| {
            let conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
            super::check_conditions(conditions.map(|c| c.type_.as_deref().unwrap_or_default()), errors);
        })
        .row(row)
        .done()
}

fn validate(schema: &FlowSchema, errors: &mut Errors) {
    let default = FlowSchemaSpec::default();
    let spec = schema.spec.as_ref().unwrap_or(&default);
    let precedence = spec.matching_precedence.unwrap_or(0);
    let exempt = schema.metadata.name.as_deref() == Some("exempt");
    if precedence <= 0 {
        let detail = "must be a positive value";
        errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, detail));
    }
    if precedence > LAST_PRECEDENCE {
        let detail = format!("must not be greater than {LAST_PRECEDENCE}");
        errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, detail));
    }
    if precedence == 1 && !exempt {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid("spec.matchingPrecedence", precedence, detail));
    }
    if let Some(method) = &spec.distinguisher_method
        && !matches!(method.type_.as_str(), "ByUser" | "ByNamespace")
    {
        // As the original prints its own type.
        let message = format!(
            "Unsupported value: {{\"Type\":{:?}}}: supported values: \"ByNamespace\", \"ByUser\"",
            method.type_
        );
        let problem = Problem::Worded("FieldValueNotSupported", message);
        errors.push(FieldError { field: "spec.distinguisherMethod.type".into(), problem });
    }
    const LEVEL: &str = "spec.priorityLevelConfiguration.name";
    match spec.priority_level_configuration.name.as_str() {
        "" => errors.push(FieldError::required(LEVEL, "must reference a priority level")),
        name => named(LEVEL, name, Rule::Subdomain, errors),
    }
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        check_rule(&format!("spec.rules[{i}]"), rule, errors);
    }
}

/// The first schema and the last are as they are: nobody else comes before the administrators, and nothing is left over.
fn fixed(name: &str) -> Option<FlowSchemaSpec> {
    let (precedence, groups, distinguisher) = match name {
        "exempt" => (1, &["system:masters"][..], None),
        "catch-all" => {
            (LAST_PRECEDENCE, &["system:unauthenticated", "system:authenticated"][..], Some("ByUser"))
        }
        _ => return None,
    };
    let any = || vec!["*".to_owned()];
    let subject = |group: &&str| Subject {
        kind: "Group".into(),
        group: Some(GroupSubject { name: (*group).into() }),
        ..Default::default()
    };
    Some(FlowSchemaSpec {
        priority_level_configuration: PriorityLevelConfigurationReference { name: name.into() },
        matching_precedence: Some(precedence),
        distinguisher_method: distinguisher.map(|type_| FlowDistinguisherMethod { type_: type_.into() }),
        rules: Some(vec![PolicyRulesWithSubjects {
            subjects: groups.iter().map(subject).collect(),
            resource_rules: Some(vec![ResourcePolicyRule {
                verbs: any(),
                api_groups: any(),
                resources: any(),
                cluster_scope: Some(true),
                namespaces: Some(any()),
            }]),
            non_resource_rules: Some(vec![NonResourcePolicyRule { verbs: any(), non_resource_urls: any() }]),
        }]),
    })
}

fn check_fixed(schema: &FlowSchema, errors: &mut Errors) {
    let name = schema.metadata.name.as_deref().unwrap_or_default();
    if let Some(fixed) = fixed(name)
        && schema.spec.as_ref() != Some(&fixed)
    {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.push(FieldError::invalid("spec", json(&schema.spec), detail));
    }
}

fn check_rule(field: &str, rule: &PolicyRulesWithSubjects, errors: &mut Errors) {
    if rule.subjects.is_empty() {
        errors.push(FieldError::required(
            format!("{field}.subjects"),
            "subjects must contain at least one value",
        ));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        check_subject(&format!("{field}.subjects[{i}]"), subject, errors);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or_default();
    let paths = rule.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && paths.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(field, detail));
    }
    for (i, rule) in resources.iter().enumerate() {
        let at = format!("{field}.resourceRules[{i}]");
        check_verbs(&format!("{at}.verbs"), &rule.verbs, errors);
        if rule.api_groups.is_empty() {
            errors.push(FieldError::required(
                format!("{at}.apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if rule.resources.is_empty() {
            errors.push(FieldError::required(
                format!("{at}.resources"),
                "resource rules must supply at least one resource",
            ));
        }
        check_wildcard(format!("{at}.apiGroups"), &rule.api_groups, "api groups", errors);
        check_wildcard(format!("{at}.resources"), &rule.resources, "resources", errors);
        check_namespaces(&format!("{at}.namespaces"), rule.namespaces.as_deref().unwrap_or_default(), errors);
        let nowhere = rule.namespaces.as_ref().is_none_or(Vec::is_empty);
        if nowhere && rule.cluster_scope != Some(true) {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(format!("{at}.namespaces"), detail));
        }
    }
    for (i, rule) in paths.iter().enumerate() {
        let at = format!("{field}.nonResourceRules[{i}]");
        check_verbs(&format!("{at}.verbs"), &rule.verbs, errors);
        if rule.non_resource_urls.is_empty() {
            let detail = "nonResourceURLs must contain at least one value";
            errors.push(FieldError::required(format!("{at}.nonResourceURLs"), detail));
        }
        check_paths(&format!("{at}.nonResourceURLs"), &rule.non_resource_urls, errors);
    }
}

/// A wildcard stands alone.
fn check_wildcard(field: String, list: &[String], what: &str, errors: &mut Errors) {
    if list.len() > 1 && list.iter().any(|item| item == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(field, json(&list), detail));
    }
}

fn check_namespaces(field: &str, namespaces: &[String], errors: &mut Errors) {
    check_wildcard(field.to_owned(), namespaces, "namespaces", errors);
    if namespaces.iter().any(|n| n == "*") {
        return;
    }
    for (i, namespace) in namespaces.iter().enumerate() {
        if let Some(why) = fault(Rule::Label, namespace) {
            let detail = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            errors.push(FieldError::invalid(format!("{field}[{i}]"), namespace.as_str(), detail));
        }
    }
}

fn check_paths(field: &str, paths: &[String], errors: &mut Errors) {
    check_wildcard(field.to_owned(), paths, "non-resource URLs", errors);
    if paths.iter().any(|path| path == "*") {
        return;
    }
    for (i, path) in paths.iter().enumerate() {
        let why = match path.as_str() {
            "" => "must not be empty",
            "/" => continue,
            path if !path.starts_with('/') => "must start with slash",
            path if path.contains(' ') => "must not contain white-space",
            path if path.contains("//") => "must not contain double slash",
            path if path.strip_suffix("/*").unwrap_or(path).contains('*') => {
                "wildcard can only do suffix matching"
            }
            _ => continue,
        };
        errors.push(FieldError::invalid(format!("{field}[{i}]"), path.as_str(), why));
    }
}

fn check_verbs(field: &str, verbs: &[String], errors: &mut Errors) {
    let any = verbs.iter().any(|v| v == "*");
    if verbs.is_empty() {
        errors.push(FieldError::required(field, "verbs must contain at least one value"));
    } else if any && verbs.len() > 1 {
        let detail = "if '*' is present, must not specify other verbs";
        errors.push(FieldError::invalid(field, json(&verbs), detail));
    } else if !any && !verbs.iter().all(|v| VERBS.contains(&v.as_str())) {
        errors.push(FieldError::not_supported(field, json(&verbs), VERBS));
    }
}

fn check_subject(field: &str, subject: &Subject, errors: &mut Errors) {
    let parts = [
        ("serviceAccount", "ServiceAccount", subject.service_account.is_some()),
        ("user", "User", subject.user.is_some()),
        ("group", "Group", subject.group.is_some()),
    ];
    if !parts.iter().any(|(_, kind, _)| *kind == subject.kind) {
        let supported = &["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(format!("{field}.kind"), subject.kind.as_str(), supported));
        return;
    }
    for (part, kind, given) in parts {
        if kind == subject.kind && !given {
            let detail = format!("{part} is required when subject kind is '{kind}'");
            errors.push(FieldError::required(format!("{field}.{part}"), detail));
        }
        if kind != subject.kind && given {
            let detail = format!("{part} is forbidden when subject kind is not '{kind}'");
            errors.push(FieldError::forbidden(format!("{field}.{part}"), detail));
        }
    }
    if let Some(account) = &subject.service_account {
        if account.name != "*" {
            named(format!("{field}.serviceAccount.name"), &account.name, Rule::Subdomain, errors);
        }
        let at = format!("{field}.serviceAccount.namespace");
        match account.namespace.as_str() {
            "" => errors.push(FieldError::required(at, "must specify namespace for service account")),
            namespace => named(at, namespace, Rule::Label, errors),
        }
    }
    errors.required(format!("{field}.user.name"), subject.user.as_ref().is_some_and(|u| u.name.is_empty()));
    errors.required(format!("{field}.group.name"), subject.group.as_ref().is_some_and(|g| g.name.is_empty()));
}

fn row(schema: &FlowSchema) -> Vec<Value> {
    let spec = schema.spec.clone().unwrap_or_default();
    let conditions = schema.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let dangling = conditions.into_iter().find(|c| c.type_.as_deref() == Some("Dangling"));
    let distinguisher = spec.distinguisher_method.map_or_else(|| "<none>".to_owned(), |m| m.type_);
    vec![
        name_cell(&schema.metadata),
        spec.priority_level_configuration.name.into(),
        spec.matching_precedence.unwrap_or(0).into(),
        distinguisher.into(),
        age_cell(&schema.metadata),
        dangling.and_then(|c| c.status).unwrap_or_else(|| "?".into()).into(),
    ]
}
