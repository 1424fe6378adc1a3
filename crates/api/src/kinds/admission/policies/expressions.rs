//! The expressions of policies, judged when they are written.

use cel::{Env, Type};
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, Variable};

use crate::kinds::Errors;
use crate::policy::{Declared, Expression, MatchConditions, compile_variables};
use crate::status::FieldError;

pub fn has_lines(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// An expression that must be there, and be of one of these types.
pub fn check(env: &Env, source: &str, types: &[Type], field: &str, errors: &mut Errors) {
    let name = field.rsplit('.').next().unwrap_or(field);
    if source.trim().is_empty() {
        return errors.push(FieldError::required(field, format!("{name} is not specified")));
    }
    if let Some(fault) = Expression::compile(env, source, types).fault() {
        errors.push(FieldError::invalid(field, source, fault));
    }
}

pub fn conditions(
    declared: Declared,
    conditions: Option<&Vec<MatchCondition>>,
    field: &str,
    errors: &mut Errors,
) {
    let named: Vec<(&str, &str)> =
        conditions.into_iter().flatten().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
    for fault in MatchConditions::compile_with(declared, &named).err().into_iter().flatten() {
        let source = named.get(fault.index).map_or("", |(_, source)| source);
        if !source.trim().is_empty() {
            let field = format!("{field}[{}].expression", fault.index);
            errors.push(FieldError::invalid(field, source, fault.detail));
        }
    }
}

/// The environment with the policy's variables, whose own faults are told.
pub fn variables(env: Env, variables: Option<&Vec<Variable>>, field: &str, errors: &mut Errors) -> Env {
    let mut env = env;
    let mut seen = std::collections::BTreeSet::new();
    for (index, variable) in variables.into_iter().flatten().enumerate() {
        let place = format!("{field}[{index}]");
        let name = variable.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            let detail = "name is not a valid CEL identifier";
            errors.push(FieldError::invalid(format!("{place}.name"), name, detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{place}.name"), name));
        }
        let source = variable.expression.as_str();
        if source.trim().is_empty() {
            let detail = "expression is not specified";
            errors.push(FieldError::required(format!("{place}.expression"), detail));
        } else if let Err(issues) = cel::Program::compile(&env, source) {
            let detail = format!("compilation failed: {issues}");
            errors.push(FieldError::invalid(format!("{place}.expression"), source, detail));
        }
        (env, _) = compile_variables(env, Some(std::slice::from_ref(variable)));
    }
    env
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
