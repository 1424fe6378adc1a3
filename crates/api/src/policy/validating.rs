//! A `ValidatingAdmissionPolicy`, compiled: what it says of an operation.

use cel::{OBJECT_BUDGET, Type, Value};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicySpec;

use super::composed::{Composed, Expression, Named, compile_variables};
use super::conditions::MatchConditions;
use super::matching::Criteria;
use super::variables::{AdmissionVars, Declared};

/// The longest message that an expression may give.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
/// The longest value of an audit annotation.
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

#[derive(Debug)]
pub struct ValidatingPolicy {
    /// The error is of the policy's configuration.
    pub criteria: Result<Criteria, String>,
    /// `apiVersion` and `kind` of what it takes parameters from.
    pub param_kind: Option<(String, String)>,
    /// Whether operations go on when the policy itself fails.
    pub ignore_failure: bool,
    conditions: Result<MatchConditions, String>,
    variables: Named,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// Why an operation is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub message: String,
    /// A `Status`' reason.
    pub reason: String,
    /// Which of the policy's validations it comes from.
    pub expression: usize,
}

/// What a policy came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub denials: Vec<Denial>,
    /// What it wants kept with the audit event.
    pub annotations: Vec<(String, String)>,
    /// Faults of annotations: they deny whatever the binding's actions are.
    pub annotation_faults: Vec<String>,
}

impl ValidatingPolicy {
    pub fn compile(spec: &ValidatingAdmissionPolicySpec) -> Self {
        let declared = Declared { params: spec.param_kind.is_some(), authorizer: true };
        let conditions: Vec<(&str, &str)> = spec
            .match_conditions
            .iter()
            .flatten()
            .map(|condition| (condition.name.as_str(), condition.expression.as_str()))
            .collect();
        let conditions = MatchConditions::compile_with(declared, &conditions)
            .map_err(|faults| faults.into_iter().map(|fault| fault.detail).collect::<Vec<_>>().join(", "));
        let (env, variables) = compile_variables(declared.env(), spec.variables.as_deref());
        // Messages and annotations do not ask what is allowed.
        let plain = Declared { authorizer: false, ..declared };
        let (plain, _) = compile_variables(plain.env(), spec.variables.as_deref());
        let validations = spec.validations.iter().flatten().map(|validation| Validation {
            expression: Expression::compile(&env, &validation.expression, &[Type::Bool]),
            message: validation.message.clone().unwrap_or_default(),
            message_expression: validation
                .message_expression
                .as_ref()
                .map(|source| Expression::compile(&plain, source, &[Type::String])),
            reason: validation.reason.clone().unwrap_or_else(|| "Invalid".to_owned()),
        });
        let annotations = spec.audit_annotations.iter().flatten().map(|annotation| {
            let types = [Type::String, Type::Null, Type::Dyn];
            (annotation.key.clone(), Expression::compile(&plain, &annotation.value_expression, &types))
        });
        Self {
            criteria: Criteria::compile(spec.match_constraints.as_ref()),
            param_kind: spec.param_kind.as_ref().map(|kind| {
                (kind.api_version.clone().unwrap_or_default(), kind.kind.clone().unwrap_or_default())
            }),
            ignore_failure: spec.failure_policy.as_deref() == Some("Ignore"),
            conditions,
            validations: validations.collect(),
            annotations: annotations.collect(),
            variables,
        }
    }

    /// What the policy says of an operation, with one set of parameters.
    pub fn judge(&self, vars: &AdmissionVars<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let matches = self.conditions.clone().and_then(|conditions| conditions.matches(vars));
        match matches {
            Ok(true) => {}
            Ok(false) => return verdict,
            Err(fault) => {
                self.failed(&mut verdict, fault);
                return verdict;
            }
        }
        let composed = Composed::new(vars, &self.variables);
        if let Err(fault) = self.validate(&composed, &mut verdict) {
            verdict.denials.clear();
            self.failed(&mut verdict, fault.to_owned());
            return verdict;
        }
        if let Err(fault) = self.annotate(&composed, &mut verdict) {
            verdict = Verdict::default();
            self.failed(&mut verdict, fault.to_owned());
        }
        verdict
    }

    fn failed(&self, verdict: &mut Verdict, message: String) {
        if !self.ignore_failure {
            verdict.denials.push(Denial { message, reason: "Invalid".to_owned(), expression: 0 });
        }
    }

    fn validate(&self, composed: &Composed<'_, '_>, verdict: &mut Verdict) -> Result<(), &'static str> {
        let mut budget = OBJECT_BUDGET;
        let mut results = Vec::new();
        for validation in &self.validations {
            results.push((validation, validation.expression.evaluate(composed, &mut budget)?));
        }
        for (expression, (validation, result)) in results.into_iter().enumerate() {
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(_) => match validation.message(composed, &mut budget) {
                    Ok(message) => {
                        let reason = validation.reason.clone();
                        verdict.denials.push(Denial { message, reason, expression });
                    }
                    Err(fault) => self.failed(verdict, format!("failed messageExpression: {fault}")),
                },
                Err(fault) => self.failed(verdict, fault),
            }
        }
        Ok(())
    }

    fn annotate(&self, composed: &Composed<'_, '_>, verdict: &mut Verdict) -> Result<(), &'static str> {
        let mut budget = OBJECT_BUDGET;
        for (key, expression) in &self.annotations {
            match expression.evaluate(composed, &mut budget)? {
                Ok(Value::String(text)) => {
                    let text = text.trim();
                    let mut end = text.len().min(MAX_ANNOTATION_BYTES);
                    while !text.is_char_boundary(end) {
                        end -= 1;
                    }
                    if end > 0 {
                        verdict.annotations.push((key.clone(), text[..end].to_owned()));
                    }
                }
                Ok(Value::Null) => {}
                Ok(other) => verdict.annotation_faults.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    expression.source,
                    other.type_name()
                )),
                Err(fault) if !self.ignore_failure => verdict.annotation_faults.push(fault),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Validation {
    /// What is told of it when it does not hold.
    fn message(&self, composed: &Composed<'_, '_>, budget: &mut i64) -> Result<String, &'static str> {
        let evaluated = match &self.message_expression {
            Some(expression) => expression.evaluate(composed, budget)?.ok(),
            None => None,
        };
        if let Some(Value::String(text)) = evaluated {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
                return Ok(text.to_owned());
            }
        }
        Ok(match self.message.trim() {
            "" => format!("failed expression: {}", self.expression.source.trim()),
            message => message.to_owned(),
        })
    }
}
