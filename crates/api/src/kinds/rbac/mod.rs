//! `rbac.authorization.k8s.io/v1`: roles and who has them.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::Value;

use super::names::Rule;
use super::validate::{is_empty, json, label_selector};
use super::{Build, Errors, Kind};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::status::{FieldError, Problem};

pub const GROUP: &str = "rbac.authorization.k8s.io";

pub fn kinds() -> Vec<Kind> {
    vec![cluster_role(), cluster_role_binding(), role(), role_binding()]
}

fn cluster_role() -> Kind {
    Build::<ClusterRole>::new("clusterroles", false)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.create_on_update = true)
        .names(Rule::PathSegment)
        .validate(|role, errors| {
            check_rules(role.rules.as_deref(), false, errors);
            let aggregated = role.aggregation_rule.as_ref();
            if aggregated.is_some_and(|a| a.cluster_role_selectors.as_ref().is_none_or(Vec::is_empty)) {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required("aggregationRule.clusterRoleSelectors", detail));
            }
            let selectors = aggregated.and_then(|a| a.cluster_role_selectors.as_deref());
            for (i, selector) in selectors.unwrap_or_default().iter().enumerate() {
                let (at, before) = (format!("aggregationRule.clusterRoleSelectors[{i}]"), errors.0.len());
                label_selector(&at, selector, errors);
                if errors.0.len() > before {
                    errors.push(FieldError::invalid(at, Value::Null, "invalid label selector."));
                }
            }
        })
        .row(|r| vec![name_cell(&r.metadata), created(&r.metadata)])
        .done()
}

fn role() -> Kind {
    Build::<Role>::new("roles", true)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.create_on_update = true)
        .names(Rule::PathSegment)
        .validate(|role, errors| check_rules(role.rules.as_deref(), true, errors))
        .row(|r| vec![name_cell(&r.metadata), created(&r.metadata)])
        .done()
}

fn created(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Value {
    metadata.creation_timestamp.as_ref().map(|t| base::time::rfc3339_seconds(t.0)).into()
}

fn cluster_role_binding() -> Kind {
    Build::<ClusterRoleBinding>::new("clusterrolebindings", false)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.create_on_update = true)
        .names(Rule::PathSegment)
        .default(|b| default_binding(&mut b.role_ref, b.subjects.as_mut()))
        .validate(|b, errors| check_binding(&b.role_ref, b.subjects.as_deref(), true, errors))
        .validate_update(|new, old, errors| check_role_ref(&new.role_ref, &old.role_ref, errors))
        .row(|b| {
            binding_row(name_cell(&b.metadata), &b.role_ref, age_cell(&b.metadata), b.subjects.as_deref())
        })
        .done()
}

fn role_binding() -> Kind {
    Build::<RoleBinding>::new("rolebindings", true)
        .metadata_on_update(&[Whole, Change])
        .rules(|r| r.create_on_update = true)
        .names(Rule::PathSegment)
        .default(|b| default_binding(&mut b.role_ref, b.subjects.as_mut()))
        .validate(|b, errors| check_binding(&b.role_ref, b.subjects.as_deref(), false, errors))
        .validate_update(|new, old, errors| check_role_ref(&new.role_ref, &old.role_ref, errors))
        .row(|b| {
            binding_row(name_cell(&b.metadata), &b.role_ref, age_cell(&b.metadata), b.subjects.as_deref())
        })
        .done()
}

fn default_binding(role_ref: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    if is_empty(role_ref.api_group.as_deref()) {
        role_ref.api_group = Some(GROUP.into());
    }
    for subject in subjects.into_iter().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") && is_empty(subject.api_group.as_deref()) {
            subject.api_group = Some(GROUP.into());
        }
    }
}

fn check_rules(rules: Option<&[PolicyRule]>, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
        let field = format!("rules[{i}]");
        if rule.verbs.is_empty() {
            errors.push(FieldError::required(
                format!("{field}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        let is_path_rule = rule.non_resource_urls.as_ref().is_some_and(|u| !u.is_empty());
        if is_path_rule && namespaced {
            let shown = serde_json::json!(rule.non_resource_urls);
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(format!("{field}.nonResourceURLs"), shown, detail));
        }
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        let resources_too = !none(&rule.api_groups) || !none(&rule.resources) || !none(&rule.resource_names);
        if is_path_rule && !namespaced && resources_too {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            let at = format!("{field}.nonResourceURLs");
            errors.push(FieldError::invalid(at, json(&rule.non_resource_urls), detail));
        }
        if !is_path_rule {
            for (part, missing) in
                [("apiGroups", none(&rule.api_groups)), ("resources", none(&rule.resources))]
            {
                if missing {
                    let detail = match part {
                        "apiGroups" => "resource rules must supply at least one api group",
                        _ => "resource rules must supply at least one resource",
                    };
                    errors.push(FieldError::required(format!("{field}.{part}"), detail));
                }
            }
        }
    }
}

fn check_binding(role_ref: &RoleRef, subjects: Option<&[Subject]>, cluster: bool, errors: &mut Errors) {
    let kinds: &[&str] = if cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    errors.one_of("roleRef.apiGroup", role_ref.api_group.as_deref(), &[GROUP]);
    errors.one_of("roleRef.kind", Some(&role_ref.kind), kinds);
    errors.required("roleRef.name", role_ref.name.is_empty());
    for (i, subject) in subjects.unwrap_or_default().iter().enumerate() {
        errors.required(format!("subjects[{i}].name"), subject.name.is_empty());
        errors.one_of(
            format!("subjects[{i}].kind"),
            Some(&subject.kind),
            &["ServiceAccount", "User", "Group"],
        );
        let account = subject.kind == "ServiceAccount";
        if account {
            errors.one_of(format!("subjects[{i}].apiGroup"), subject.api_group.as_deref(), &[""]);
        }
        if account
            && !subject.name.is_empty()
            && let Some(fault) = super::names::fault(Rule::Subdomain, &subject.name)
        {
            errors.push(FieldError::invalid(format!("subjects[{i}].name"), subject.name.as_str(), fault));
        }
        if matches!(subject.kind.as_str(), "User" | "Group") {
            errors.one_of(format!("subjects[{i}].apiGroup"), subject.api_group.as_deref(), &[GROUP]);
        }
        let nowhere = subject.namespace.as_deref().unwrap_or_default().is_empty();
        errors.required(format!("subjects[{i}].namespace"), account && cluster && nowhere);
    }
}

fn check_role_ref(new: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if new != old {
        // As the original prints its own type.
        let (group, kind, name) = (new.api_group.clone().unwrap_or_default(), &new.kind, &new.name);
        let message = format!(
            "Invalid value: {{\"APIGroup\":{group:?},\"Kind\":{kind:?},\"Name\":{name:?}}}: cannot change roleRef"
        );
        let problem = Problem::Worded("FieldValueInvalid", message);
        errors.push(FieldError { field: "roleRef".into(), problem });
    }
}

fn binding_row(name: Value, role_ref: &RoleRef, age: Value, subjects: Option<&[Subject]>) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = subjects.unwrap_or_default().iter().filter(|s| s.kind == kind);
        let shown = subjects.map(|s| match &s.namespace {
            Some(namespace) => format!("{namespace}/{}", s.name),
            None => s.name.clone(),
        });
        Value::from(shown.collect::<Vec<_>>().join(","))
    };
    let role = format!("{}/{}", role_ref.kind, role_ref.name);
    vec![name, role.into(), age, of("User"), of("Group"), of("ServiceAccount")]
}
