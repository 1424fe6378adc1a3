//! Asks each validating policy that is about an operation, and does what its bindings say.

use std::collections::{BTreeMap, HashSet};

use api::policy::Denial;
use api::status::{ApiError, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};

use super::GROUP;
use super::asked::{Asked, unknown_param_kind};
use crate::admission::attributes::Attributes;
use crate::{ApiServer, audit};

/// Neither object is there for a stream, only the old one for a deletion.
pub async fn validate(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let server = &server.0;
    let policies = server.policies().await?;
    if policies.validating.is_empty() || attributes.group() == GROUP {
        return Ok(());
    }
    let asked = Asked::new(server, attributes).await?;
    let (object, old) = (object.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    let subject = asked.subject(object, old);
    let mut refusals = Refusals::default();
    let mut annotations = BTreeMap::<String, Vec<String>>::new();
    for held in &policies.validating {
        let fails = !held.policy.ignore_failure;
        let matched = match &held.policy.criteria {
            Ok(criteria) => criteria.matches(&subject),
            Err(fault) => {
                refusals.misconfigured(fails, &held.name, None, fault);
                continue;
            }
        };
        let Some(matched) = matched else { continue };
        if let Some(fault) = unknown_param_kind(server, held.policy.param_kind.as_ref()) {
            refusals.misconfigured(fails, &held.name, None, &fault);
            continue;
        }
        let request = asked.request(&matched);
        let shown = asked.shown(server, attributes, &matched, object).await?;
        let shown_old = asked.shown(server, attributes, &matched, old).await?;
        for binding in &held.bindings {
            match &binding.criteria {
                Ok(criteria) if criteria.matches(&subject).is_none() => continue,
                Ok(_) => {}
                Err(fault) => {
                    refusals.misconfigured(fails, &held.name, Some(&binding.name), fault);
                    continue;
                }
            }
            let params =
                asked.params(server, held.policy.param_kind.as_ref(), binding.params.as_ref()).await?;
            let params = match params {
                Ok(params) => params,
                Err(fault) => {
                    refusals.misconfigured(fails, &held.name, Some(&binding.name), &fault);
                    continue;
                }
            };
            for param in &params {
                let verdict = held.policy.judge(&asked.vars(&shown, &shown_old, &request, param));
                for denial in verdict.denials {
                    act(attributes, &mut refusals, (&held.name, &binding.name), &binding.actions, denial);
                }
                for fault in verdict.annotation_faults {
                    let denial = Denial { message: fault, reason: "Invalid".to_owned(), expression: 0 };
                    refusals.push(&held.name, Some(&binding.name), denial);
                }
                for (key, value) in verdict.annotations {
                    let policy = &held.name;
                    tracing::debug!(policy, key, value, "a policy's audit annotation");
                    annotations.entry(format!("{policy}/{key}")).or_default().push(value);
                }
                // A judgement may take a while: others are let through between two.
                tokio::task::yield_now().await;
            }
        }
    }
    for (key, mut values) in annotations {
        let mut seen = HashSet::new();
        values.retain(|value| seen.insert(value.clone()));
        audit::annotate(key, values.join(", "));
    }
    if !refusals.kept.is_empty() {
        audit::annotate(FAILURE, Value::from(std::mem::take(&mut refusals.kept)).to_string());
    }
    refusals.into_result(attributes)
}

fn act(
    attributes: &Attributes<'_>,
    refusals: &mut Refusals,
    (policy, binding): (&str, &str),
    actions: &[String],
    denial: Denial,
) {
    for action in actions {
        match action.as_str() {
            "Deny" => refusals.push(policy, Some(binding), denial.clone()),
            "Warn" => attributes.context.warn([format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                denial.message
            )]),
            _ => refusals.kept.push(json!({
                "message": denial.message,
                "policy": policy,
                "binding": binding,
                "expressionIndex": denial.expression.to_string(),
                "validationActions": actions,
            })),
        }
    }
}

/// What refuses; the first decides what the client is told.
#[derive(Default)]
struct Refusals {
    first: Option<Denial>,
    /// What the audit is told of, where a binding asks for that.
    kept: Vec<Value>,
}

const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

impl Refusals {
    fn push(&mut self, policy: &str, binding: Option<&str>, denial: Denial) {
        let with = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
        let message =
            format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {}", denial.message);
        self.first.get_or_insert(Denial { message, ..denial });
    }

    fn misconfigured(&mut self, fails: bool, policy: &str, binding: Option<&str>, fault: &str) {
        if fails {
            let what = if binding.is_some() { "binding" } else { "policy" };
            let message = format!("failed to configure {what}: {fault}");
            self.push(policy, binding, Denial { message, reason: "Invalid".to_owned(), expression: 0 });
        }
    }

    fn into_result(self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let Some(denial) = self.first else { return Ok(()) };
        let resource = Resource { group: attributes.group(), plural: attributes.resource() };
        let mut error = ApiError::forbidden(&resource, attributes.shown_name(), &denial.message);
        let (code, reason) = match denial.reason.as_str() {
            "Forbidden" => (403, "Forbidden"),
            "Unauthorized" => (401, "Unauthorized"),
            "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
            _ => (422, "Invalid"),
        };
        (error.code, error.reason) = (code, reason.into());
        let cause = StatusCause { message: Some(denial.message), ..Default::default() };
        error.details.get_or_insert_default().causes = Some(vec![cause]);
        Err(error)
    }
}
