//! `ValidatingAdmissionPolicyBinding`

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
};

use super::shared;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

pub fn kind() -> Kind {
    Build::<ValidatingAdmissionPolicyBinding>::new("validatingadmissionpolicybindings", false)
        .metadata_on_update(&[Whole])
        .rules(|r| r.update_needs_version = true)
        .rules(|r| r.any_finalizer = true)
        .category("api-extensions")
        .generation()
        .default(|binding| {
            shared::default_match(binding.spec.match_resources.as_mut());
        })
        .validate(|binding, errors| check(&binding.spec, errors))
        .row(|binding| {
            let spec = binding.spec.clone();
            vec![
                name_cell(&binding.metadata),
                spec.policy_name.into(),
                shared::shown_param_ref(spec.param_ref.as_ref()).into(),
                age_cell(&binding.metadata),
            ]
        })
        .done()
}

fn check(spec: &ValidatingAdmissionPolicyBindingSpec, errors: &mut Errors) {
    if spec.policy_name.is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    } else if let Some(fault) = names::fault(names::Rule::Subdomain, &spec.policy_name) {
        errors.push(FieldError::invalid("spec.policyName", spec.policy_name.as_str(), fault));
    }
    shared::check_param_ref(spec.param_ref.as_ref(), "spec.paramRef", errors);
    if let Some(resources) = &spec.match_resources {
        shared::check_match(resources, "spec.matchResources", errors);
    }
    let actions = &spec.validation_actions;
    if actions.is_empty() {
        let detail = "at least one validation action is required";
        errors.push(FieldError::required("spec.validationActions", detail));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (index, action) in actions.iter().enumerate() {
        let field = format!("spec.validationActions[{index}]");
        errors.one_of(field.clone(), Some(action), &ACTIONS);
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(field, action.as_str()));
        }
    }
    if ["Deny", "Warn"].iter().all(|action| actions.iter().any(|given| given == action)) {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response \
                      and headers serves no purpose)";
        let shown = serde_json::to_value(actions).unwrap_or_default();
        errors.push(FieldError::invalid("spec.validationActions", shown, detail));
    }
}
