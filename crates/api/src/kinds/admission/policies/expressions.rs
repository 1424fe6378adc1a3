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
        // What is only known when it is evaluated is taken, and not spoken of.
        errors.push(FieldError::invalid(field, source, fault.replace(" null_type dyn]", " null_type]")));
    }
}

/// What is wrong with conditions, each by its place.
pub fn conditions(declared: Declared, conditions: &[MatchCondition]) -> Vec<(usize, String)> {
    let named: Vec<(&str, &str)> =
        conditions.iter().map(|c| (c.name.as_str(), c.expression.as_str())).collect();
    let faults = MatchConditions::compile_with(declared, &named).err().into_iter().flatten();
    faults.map(|fault| (fault.index, fault.detail)).collect()
}

/// The environment with the policy's variables, whose own faults are told.
pub fn variables(env: Env, variables: Option<&Vec<Variable>>, field: &str, errors: &mut Errors) -> Env {
    let mut env = env;
    for (index, variable) in variables.into_iter().flatten().enumerate() {
        let place = format!("{field}[{index}]");
        let name = variable.name.as_str();
        if name.is_empty() {
            errors.push(FieldError::required(format!("{place}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            let detail = "must be a valid CEL identifier";
            errors.push(FieldError::invalid(format!("{place}.name"), name, detail));
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
