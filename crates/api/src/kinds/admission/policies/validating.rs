//! `ValidatingAdmissionPolicy`

use cel::Type;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus, Validation,
};

use super::{expressions, shared, type_checking};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::validate::qualified;
use crate::kinds::{Build, Errors, Kind};
use crate::policy::Declared;
use crate::status::{FieldError, Problem};

const MAX_ANNOTATIONS: usize = 20;
const MAX_VALUE_EXPRESSION_BYTES: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

pub fn kind() -> Kind {
    Build::<ValidatingAdmissionPolicy>::new("validatingadmissionpolicies", false)
        .metadata_on_update(&[Whole])
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .rules(|r| r.update_needs_version = true)
        .rules(|r| r.any_finalizer = true)
        .category("api-extensions")
        .generation()
        .default(|policy| {
            let Some(spec) = &mut policy.spec else { return };
            spec.failure_policy.get_or_insert_with(|| "Fail".into());
            shared::default_match(spec.match_constraints.as_mut());
        })
        .prepare_create(|policy| settle_status(policy, 1))
        .prepare_update(|new, old| {
            if new.spec != old.spec {
                settle_status(new, old.metadata.generation.unwrap_or(0) + 1);
            }
        })
        .validate(|policy, errors| {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            check(name, &policy.spec.clone().unwrap_or_default(), errors);
        })
        .row(|policy| {
            let spec = policy.spec.clone().unwrap_or_default();
            vec![
                name_cell(&policy.metadata),
                spec.validations.map_or(0, |v| v.len()).into(),
                shared::shown_param_kind(spec.param_kind.as_ref()).into(),
                age_cell(&policy.metadata),
            ]
        })
        .done()
}

/// The expressions are compiled before the policy is stored: there is nobody to wait for.
fn settle_status(policy: &mut ValidatingAdmissionPolicy, generation: i64) {
    let spec = policy.spec.clone().unwrap_or_default();
    policy.status = Some(ValidatingAdmissionPolicyStatus {
        observed_generation: Some(generation),
        type_checking: Some(type_checking::check(&spec)),
        ..Default::default()
    });
}

fn check(name: &str, spec: &ValidatingAdmissionPolicySpec, errors: &mut Errors) {
    errors.required("spec.failurePolicy", spec.failure_policy.is_none());
    errors.one_of("spec.failurePolicy", spec.failure_policy.as_deref(), &["Fail", "Ignore"]);
    shared::check_param_kind(spec.param_kind.as_ref(), "spec.paramKind", errors);
    match &spec.match_constraints {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(resources) => {
            shared::check_match(resources, "spec.matchConstraints", errors);
            let none = resources.resource_rules.as_ref().is_none_or(Vec::is_empty);
            errors.required("spec.matchConstraints.resourceRules", none);
        }
    }
    let declared = Declared { params: spec.param_kind.is_some(), authorizer: true };
    shared::check_conditions(declared, spec.match_conditions.as_ref(), "spec.matchConditions", errors);
    let env = expressions::variables(declared.env(), spec.variables.as_ref(), "spec.variables", errors);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    if validations.is_empty() && annotations.is_empty() {
        for part in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(format!("spec.{part}"), detail));
        }
    }
    // Messages and annotations do not ask what is allowed.
    let plain = Declared { authorizer: false, ..declared }.env();
    let plain = expressions::variables(plain, spec.variables.as_ref(), "", &mut Errors::default());
    for (index, validation) in validations.iter().enumerate() {
        check_validation(validation, &format!("spec.validations[{index}]"), (&env, &plain), errors);
    }
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        let shown = serde_json::to_value(annotations).unwrap_or_default();
        errors.push(FieldError::invalid("spec.auditAnnotations", shown, detail));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let place = format!("spec.auditAnnotations[{index}]");
        // The policy's name stands before it in what is audited.
        qualified(format!("{place}.key"), &format!("{name}/{}", annotation.key), errors);
        if !seen.insert(&annotation.key) {
            errors.push(FieldError::duplicate(format!("{place}.key"), annotation.key.as_str()));
        }
        let field = format!("{place}.valueExpression");
        let source = annotation.value_expression.as_str();
        if source.len() > MAX_VALUE_EXPRESSION_BYTES {
            let problem = Problem::TooLong(MAX_VALUE_EXPRESSION_BYTES);
            errors.push(FieldError { field, problem });
        } else {
            expressions::check(&plain, source, &[Type::String, Type::Null, Type::Dyn], &field, errors);
        }
    }
}

fn check_validation(
    validation: &Validation,
    place: &str,
    (env, plain): (&cel::Env, &cel::Env),
    errors: &mut Errors,
) {
    let source = validation.expression.as_str();
    let message = validation.message.as_deref().unwrap_or_default();
    expressions::check(env, source, &[Type::Bool], &format!("{place}.expression"), errors);
    if !message.is_empty() && message.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(FieldError::invalid(format!("{place}.message"), message, detail));
    } else if expressions::has_lines(message.trim()) {
        let detail = "must not contain line breaks";
        errors.push(FieldError::invalid(format!("{place}.message"), message, detail));
    } else if expressions::has_lines(source.trim()) && message.trim().is_empty() {
        let detail = "must be specified if expression contains line breaks";
        errors.push(FieldError::required(format!("{place}.message"), format!("message {detail}")));
    }
    if let Some(source) = validation.message_expression.as_deref().filter(|source| !source.is_empty()) {
        let field = format!("{place}.messageExpression");
        if source.trim().is_empty() {
            errors.push(FieldError::invalid(field, source, "must be non-empty if specified"));
        } else {
            expressions::check(plain, source, &[Type::String], &field, errors);
        }
    }
    errors.one_of(format!("{place}.reason"), validation.reason.as_deref(), &REASONS);
}
