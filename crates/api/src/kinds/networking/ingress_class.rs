//! `IngressClass`: which controller serves an ingress.

use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::Rule;
use crate::kinds::validate::{is_empty, named};
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

const CONTROLLER_LIMIT: usize = 250;

pub fn kind() -> Kind {
    Build::<IngressClass>::new("ingressclasses", false)
        .metadata_on_update(&[Change, Whole])
        .generation()
        .default(|class| {
            let parameters = class.spec.as_mut().and_then(|s| s.parameters.as_mut());
            if let Some(parameters) = parameters {
                parameters.scope.get_or_insert_with(|| "Cluster".into());
            }
        })
        .validate(validate)
        .changes_first()
        .validate_update(|new, old, errors| {
            let controller =
                |c: &IngressClass| c.spec.as_ref().and_then(|s| s.controller.clone()).unwrap_or_default();
            errors.immutable("spec.controller", &controller(new), &controller(old));
        })
        .row(row)
        .done()
}

fn validate(class: &IngressClass, errors: &mut Errors) {
    let spec = class.spec.clone().unwrap_or_default();
    let controller = spec.controller.as_deref().unwrap_or_default();
    if controller.len() > CONTROLLER_LIMIT {
        let problem = crate::status::Problem::TooLong(CONTROLLER_LIMIT);
        errors.push(FieldError { field: "spec.controller".into(), problem });
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required("spec.controller", true),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            named("spec.controller", domain, Rule::Subdomain, errors);
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid("spec.controller", controller, detail));
        }
    }
    let Some(parameters) = spec.parameters else { return };
    if let Some(group) = parameters.api_group.as_deref().filter(|g| !g.is_empty())
        && let Some(fault) = names::fault(Rule::Subdomain, group)
    {
        errors.push(FieldError::invalid("spec.parameters.apiGroup", group, fault));
    }
    named("spec.parameters.kind", &parameters.kind, Rule::PathSegment, errors);
    named("spec.parameters.name", &parameters.name, Rule::PathSegment, errors);
    let scope = parameters.scope.as_deref();
    errors.one_of("spec.parameters.scope", scope, &["Cluster", "Namespace"]);
    let namespace = parameters.namespace.as_deref();
    match scope {
        Some("Namespace") if is_empty(namespace) => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(FieldError::required("spec.parameters.namespace", detail));
        }
        Some("Namespace") => {
            named("spec.parameters.namespace", namespace.unwrap_or_default(), Rule::Label, errors);
        }
        Some("Cluster") if namespace.is_some() => {
            let detail = "`parameters.scope` is set to 'Cluster'";
            errors.push(FieldError::forbidden("spec.parameters.namespace", detail));
        }
        _ => {}
    }
}

fn row(class: &IngressClass) -> Vec<Value> {
    let spec = class.spec.clone().unwrap_or_default();
    let parameters = spec.parameters.map(|p| match p.api_group.filter(|g| !g.is_empty()) {
        Some(group) => format!("{}.{group}/{}", p.kind, p.name),
        None => format!("{}/{}", p.kind, p.name),
    });
    vec![
        name_cell(&class.metadata),
        spec.controller.unwrap_or_default().into(),
        parameters.unwrap_or_else(|| "<none>".into()).into(),
        age_cell(&class.metadata),
    ]
}
