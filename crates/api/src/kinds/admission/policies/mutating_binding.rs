//! `MutatingAdmissionPolicyBinding`

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicyBinding, MutatingAdmissionPolicyBindingSpec,
};

use super::shared;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<MutatingAdmissionPolicyBinding>::new("mutatingadmissionpolicybindings", false)
        .metadata_on_update(&[Whole])
        .rules(|r| r.update_needs_version = true)
        .rules(|r| r.told_stored_in = "v1beta1")
        .rules(|r| r.any_finalizer = true)
        .category("api-extensions")
        .generation()
        .default(|binding| {
            if let Some(spec) = &mut binding.spec {
                shared::default_match(spec.match_resources.as_mut());
            }
        })
        .validate(|binding, errors| check(&binding.spec.clone().unwrap_or_default(), errors))
        .row(|binding| {
            let spec = binding.spec.clone().unwrap_or_default();
            vec![
                name_cell(&binding.metadata),
                spec.policy_name.into(),
                shared::shown_param_ref(spec.param_ref.as_ref()).into(),
                age_cell(&binding.metadata),
            ]
        })
        .done()
}

fn check(spec: &MutatingAdmissionPolicyBindingSpec, errors: &mut Errors) {
    let policy = spec.policy_name.as_deref().unwrap_or_default();
    if policy.is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    } else if let Some(fault) = names::fault(names::Rule::Subdomain, policy) {
        errors.push(FieldError::invalid("spec.policyName", policy, fault));
    }
    shared::check_param_ref(spec.param_ref.as_ref(), "spec.paramRef", errors);
    if let Some(resources) = &spec.match_resources {
        shared::check_match(resources, "spec.matchResources", errors);
    }
}
