//! A `MutatingAdmissionPolicy`, compiled: what it makes of an object.

use std::sync::Arc;

use cel::{OBJECT_BUDGET, Type};
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicySpec;
use serde_json::Value as Json;

use super::composed::{Composed, Expression, Named, compile_variables};
use super::conditions::MatchConditions;
use super::construct::{TYPES, to_configuration, to_json};
use super::matching::Criteria;
use super::variables::{AdmissionVars, Declared};
use crate::schema::Schema;
use crate::{apply, patch};

#[derive(Debug)]
pub struct MutatingPolicy {
    /// The error is of the policy's configuration.
    pub criteria: Result<Criteria, String>,
    pub param_kind: Option<(String, String)>,
    pub ignore_failure: bool,
    /// Whether it wants to see what others change after it.
    pub reinvoke: bool,
    conditions: Result<MatchConditions, String>,
    variables: Named,
    mutations: Vec<Mutation>,
}

#[derive(Debug)]
enum Mutation {
    Apply(Expression),
    JsonPatch(Expression),
}

impl MutatingPolicy {
    pub fn compile(spec: &MutatingAdmissionPolicySpec) -> Self {
        let declared = Declared { params: spec.param_kind.is_some(), authorizer: true };
        let conditions: Vec<(&str, &str)> = spec
            .match_conditions
            .iter()
            .flatten()
            .map(|condition| (condition.name.as_str(), condition.expression.as_str()))
            .collect();
        let conditions = MatchConditions::compile_with(declared, &conditions)
            .map_err(|faults| faults.into_iter().map(|fault| fault.detail).collect::<Vec<_>>().join(", "));
        let env = declared.env().constructing(TYPES);
        let (env, variables) = compile_variables(env, spec.variables.as_deref());
        let mutations = spec.mutations.iter().flatten().map(|mutation| match &*mutation.patch_type {
            "JSONPatch" => {
                let source = mutation.json_patch.as_ref().and_then(|p| p.expression.as_deref());
                let operation = Type::List(Arc::new(Type::Object("JSONPatch".into())));
                Mutation::JsonPatch(Expression::compile(&env, source.unwrap_or_default(), &[operation]))
            }
            _ => {
                let source = mutation.apply_configuration.as_ref().and_then(|a| a.expression.as_deref());
                let object = Type::Object("Object".into());
                Mutation::Apply(Expression::compile(&env, source.unwrap_or_default(), &[object]))
            }
        });
        Self {
            criteria: Criteria::compile(spec.match_constraints.as_ref()),
            param_kind: spec.param_kind.as_ref().map(|kind| {
                (kind.api_version.clone().unwrap_or_default(), kind.kind.clone().unwrap_or_default())
            }),
            ignore_failure: spec.failure_policy.as_deref() == Some("Ignore"),
            reinvoke: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
            conditions,
            variables,
            mutations: mutations.collect(),
        }
    }

    /// The faults of each mutation's expression.
    pub(crate) fn faults(&self) -> Vec<Option<String>> {
        let fault = |mutation: &Mutation| match mutation {
            Mutation::Apply(expression) | Mutation::JsonPatch(expression) => {
                expression.fault().map(str::to_owned)
            }
        };
        self.mutations.iter().map(fault).collect()
    }

    /// What becomes of the object by one mutation after the other, and what went wrong with some. `None` is that
    /// the policy is not about it.
    pub fn mutate(
        &self,
        vars: &AdmissionVars<'_>,
        schema: Option<&Schema>,
    ) -> Result<Option<(Json, Vec<String>)>, String> {
        if !self.conditions.clone()?.matches(vars)? || !vars.object.is_object() {
            return Ok(None);
        }
        let mut object = vars.object.clone();
        let mut faults = Vec::new();
        for mutation in &self.mutations {
            let now = AdmissionVars { object: &object, ..vars.clone() };
            match self.step(mutation, &now, schema) {
                Ok(new) => object = new,
                Err(fault) => faults.push(fault),
            }
        }
        Ok(Some((object, faults)))
    }

    fn step(
        &self,
        mutation: &Mutation,
        vars: &AdmissionVars<'_>,
        schema: Option<&Schema>,
    ) -> Result<Json, String> {
        let mut budget = OBJECT_BUDGET;
        let composed = Composed::new(vars, &self.variables);
        match mutation {
            Mutation::Apply(expression) => {
                let value = expression.evaluate(&composed, &mut budget)??;
                let mut configuration = to_configuration(&value)?;
                for field in ["apiVersion", "kind"] {
                    if let Some(held) = vars.object.get(field) {
                        configuration[field] = held.clone();
                    }
                }
                applied(vars.object, &configuration, schema)
            }
            Mutation::JsonPatch(expression) => {
                let value = expression.evaluate(&composed, &mut budget)??;
                match patch::json(vars.object, &to_json(&value)?) {
                    Ok(new) => Ok(new),
                    // A test that does not hold is how a patch says that it is not wanted.
                    Err(patch::PatchError::TestFailed(_)) => Ok(vars.object.clone()),
                    Err(patch::PatchError::JsonPatch(fault)) => Err(format!("JSON Patch: {fault}")),
                    Err(error) => Err(format!("JSON Patch: {error}")),
                }
            }
        }
    }
}

fn applied(object: &Json, configuration: &Json, schema: Option<&Schema>) -> Result<Json, String> {
    if let Some(schema) = schema {
        let whole = apply::atomics(configuration, schema);
        if !whole.is_empty() {
            return Err(format!(
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
                whole.join(", ")
            ));
        }
    }
    apply::field_set_of(configuration, schema).map_err(|fault| {
        format!("error applying patch: failed to convert patch object to typed object: {fault}")
    })?;
    Ok(apply::merged(object, configuration, schema))
}
