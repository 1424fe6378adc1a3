//! Policies by expressions: `ValidatingAdmissionPolicy` refuses, `MutatingAdmissionPolicy` changes. They are compiled
//! once after each change of theirs; a request that none is about costs a look at an empty list. What is judged is in
//! `api::policy`, which is pure; here is looked up what it needs.

pub(super) mod asked;
mod mutating;
mod rights;
mod validating;

use std::collections::HashMap;
use std::sync::Arc;

use api::policy::{Criteria, MutatingPolicy, ValidatingPolicy};
use api::status::ApiError;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use serde::de::DeserializeOwned;

use crate::Server;

pub use mutating::mutate;
pub use validating::validate;

/// Group of policies and webhooks; what lies in it is never judged by them, so that a bad one can always be removed.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// All policies that a binding puts in force, by name.
#[derive(Default)]
pub struct Policies {
    validating: Vec<InForce<ValidatingPolicy, Vec<String>>>,
    mutating: Vec<InForce<MutatingPolicy, ()>>,
}

struct InForce<P, A> {
    name: String,
    policy: P,
    bindings: Vec<Binding<A>>,
}

struct Binding<A> {
    name: String,
    /// The error is of the binding's configuration.
    criteria: Result<Criteria, String>,
    params: Option<ParamRef>,
    actions: A,
}

impl Server {
    /// The policies as they are now.
    async fn policies(&self) -> Result<Arc<Policies>, ApiError> {
        self.policies.get(|| self.load_policies()).await
    }

    async fn load_policies(&self) -> Result<Policies, ApiError> {
        let mut by_policy: HashMap<String, Vec<Binding<Vec<String>>>> = HashMap::new();
        for binding in
            self.all_of::<ValidatingAdmissionPolicyBinding>("validatingadmissionpolicybindings").await?
        {
            let spec = binding.spec;
            by_policy.entry(spec.policy_name).or_default().push(Binding {
                name: binding.metadata.name.unwrap_or_default(),
                criteria: Criteria::compile(spec.match_resources.as_ref()),
                params: spec.param_ref,
                actions: spec.validation_actions,
            });
        }
        let validating = self.all_of::<ValidatingAdmissionPolicy>("validatingadmissionpolicies").await?;
        let validating = validating.into_iter().filter_map(|policy| {
            let name = policy.metadata.name.unwrap_or_default();
            let bindings = by_policy.remove(&name)?;
            let policy = ValidatingPolicy::compile(&policy.spec.unwrap_or_default());
            Some(InForce { policy, name, bindings })
        });
        let validating = validating.collect();
        let mut by_policy: HashMap<String, Vec<Binding<()>>> = HashMap::new();
        for binding in
            self.all_of::<MutatingAdmissionPolicyBinding>("mutatingadmissionpolicybindings").await?
        {
            let spec = binding.spec.unwrap_or_default();
            by_policy.entry(spec.policy_name.unwrap_or_default()).or_default().push(Binding {
                name: binding.metadata.name.unwrap_or_default(),
                criteria: Criteria::compile(spec.match_resources.as_ref()),
                params: spec.param_ref,
                actions: (),
            });
        }
        let mutating = self.all_of::<MutatingAdmissionPolicy>("mutatingadmissionpolicies").await?;
        let mutating = mutating.into_iter().filter_map(|policy| {
            let name = policy.metadata.name.unwrap_or_default();
            let bindings = by_policy.remove(&name)?;
            let policy = MutatingPolicy::compile(&policy.spec.unwrap_or_default());
            Some(InForce { policy, name, bindings })
        });
        Ok(Policies { validating, mutating: mutating.collect() })
    }

    async fn all_of<T: DeserializeOwned>(&self, plural: &str) -> Result<Vec<T>, ApiError> {
        let kinds = self.catalog.snapshot();
        match kinds.find(GROUP, "v1", plural) {
            Some(kind) => self.objects.all(kind).await,
            None => Ok(Vec::new()),
        }
    }
}
