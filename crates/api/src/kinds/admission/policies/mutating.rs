//! `MutatingAdmissionPolicy`

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicySpec};

use super::{expressions, shared};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::{Build, Errors, Kind};
use crate::policy::{Declared, MutatingPolicy, TYPES};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<MutatingAdmissionPolicy>::new("mutatingadmissionpolicies", false)
        .metadata_on_update(&[Whole])
        .rules(|r| r.update_needs_version = true)
        .rules(|r| r.told_stored_in = "v1beta1")
        .rules(|r| r.any_finalizer = true)
        .category("api-extensions")
        .generation()
        .default(|policy| {
            let Some(spec) = &mut policy.spec else { return };
            spec.failure_policy.get_or_insert_with(|| "Fail".into());
            shared::default_match(spec.match_constraints.as_mut());
        })
        .validate(|policy, errors| check(&policy.spec.clone().unwrap_or_default(), errors))
        .row(|policy| {
            let spec = policy.spec.clone().unwrap_or_default();
            vec![
                name_cell(&policy.metadata),
                spec.mutations.map_or(0, |m| m.len()).into(),
                shared::shown_param_kind(spec.param_kind.as_ref()).into(),
                age_cell(&policy.metadata),
            ]
        })
        .done()
}

fn check(spec: &MutatingAdmissionPolicySpec, errors: &mut Errors) {
    errors.required("spec.failurePolicy", spec.failure_policy.is_none());
    errors.one_of("spec.failurePolicy", spec.failure_policy.as_deref(), &["Fail", "Ignore"]);
    shared::check_param_kind(spec.param_kind.as_ref(), "spec.paramKind", errors);
    match &spec.match_constraints {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(resources) => {
            shared::check_match(resources, "spec.matchConstraints", errors);
            let none = resources.resource_rules.as_ref().is_none_or(Vec::is_empty);
            errors.required("spec.matchConstraints.resourceRules", none);
            // What is gone cannot be changed.
            let operations =
                resources.resource_rules.iter().flatten().flat_map(|r| r.operations.iter().flatten());
            for operation in operations {
                let field = "spec.matchConstraints.resourceRules.operations";
                errors.one_of(field, Some(operation), &["*", "CONNECT", "CREATE", "UPDATE"]);
            }
        }
    }
    let declared = Declared { params: spec.param_kind.is_some(), authorizer: true };
    shared::check_conditions(declared, spec.match_conditions.as_ref(), "spec.matchConditions", errors);
    let env = declared.env().constructing(TYPES);
    expressions::variables(env, spec.variables.as_ref(), "spec.variables", errors);
    check_mutations(spec, errors);
    errors.required(
        "spec.reinvocationPolicy",
        spec.reinvocation_policy.as_deref().unwrap_or_default().is_empty(),
    );
    errors.one_of("spec.reinvocationPolicy", spec.reinvocation_policy.as_deref(), &["IfNeeded", "Never"]);
}

fn check_mutations(spec: &MutatingAdmissionPolicySpec, errors: &mut Errors) {
    let mutations = spec.mutations.as_deref().unwrap_or_default();
    if mutations.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    let faults = MutatingPolicy::compile(spec).faults();
    for (index, mutation) in mutations.iter().enumerate() {
        let place = format!("spec.mutations[{index}]");
        errors.required(format!("{place}.patchType"), mutation.patch_type.is_empty());
        const TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
        if mutation.patch_type.is_empty() {
            continue;
        }
        if !TYPES.contains(&mutation.patch_type.as_str()) {
            errors.one_of(format!("{place}.patchType"), Some(&mutation.patch_type), &TYPES);
            continue;
        }
        let apply = mutation.apply_configuration.as_ref().map(|a| a.expression.clone().unwrap_or_default());
        let json = mutation.json_patch.as_ref().map(|j| j.expression.clone().unwrap_or_default());
        let (given, field, other, other_field) = match &*mutation.patch_type {
            "JSONPatch" => (json, "jsonPatch", apply, "applyConfiguration"),
            _ => (apply, "applyConfiguration", json, "jsonPatch"),
        };
        match given {
            None => {
                let detail = format!("must be specified when patchType is {}", mutation.patch_type);
                errors.push(FieldError::required(format!("{place}.{field}"), detail));
            }
            Some(source) if source.trim().is_empty() => {
                errors.required(format!("{place}.{field}.expression"), true);
            }
            Some(source) => {
                if let Some(Some(fault)) = faults.get(index) {
                    let field = format!("{place}.{field}.expression");
                    errors.push(FieldError::invalid(field, source, fault.as_str()));
                }
            }
        }
        if other.is_some() {
            let detail = format!("must not be specified when patchType is {}", mutation.patch_type);
            let shown = format!("{{{other_field}}}");
            errors.push(FieldError::invalid(format!("{place}.{other_field}"), shown, detail));
        }
    }
}
