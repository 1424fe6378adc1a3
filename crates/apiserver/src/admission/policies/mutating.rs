//! Has each mutating policy that is about an object change it, and those that asked for it once more, after others did.

use api::schema;
use api::status::{ApiError, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::asked::{Asked, unknown_param_kind};
use super::{GROUP, InForce};
use crate::admission::attributes::Attributes;
use crate::verbs::input;
use crate::{ApiServer, Server};
use api::policy::MutatingPolicy;

/// Says whether anything was changed.
pub async fn mutate(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    let server = &server.0;
    let policies = server.policies().await?;
    if policies.mutating.is_empty() || attributes.group() == GROUP {
        return Ok(false);
    }
    let asked = Asked::new(server, attributes).await?;
    let old = old.unwrap_or(&Value::Null);
    let mut run = Run { server, asked: &asked, attributes, old, faults: Vec::new() };
    let mut changed_by = None;
    for (at, held) in policies.mutating.iter().enumerate() {
        if run.one(held, object).await? {
            changed_by = Some(at);
        }
    }
    if let Some(last) = changed_by {
        for held in policies.mutating.iter().take(last).filter(|held| held.policy.reinvoke) {
            run.one(held, object).await?;
        }
    }
    run.refuse(attributes)?;
    Ok(changed_by.is_some())
}

struct Run<'a> {
    server: &'a Server,
    asked: &'a Asked,
    attributes: &'a Attributes<'a>,
    old: &'a Value,
    faults: Vec<String>,
}

impl Run<'_> {
    fn fault(&mut self, held: &InForce<MutatingPolicy, ()>, binding: Option<&str>, fault: &str) {
        if held.policy.ignore_failure {
            return;
        }
        let policy = &held.name;
        self.faults.push(match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {fault}"),
            None => format!("policy {policy:?} denied request: {fault}"),
        });
    }

    /// One policy, with each of its bindings. Says whether it changed the object.
    async fn one(
        &mut self,
        held: &InForce<MutatingPolicy, ()>,
        object: &mut Value,
    ) -> Result<bool, ApiError> {
        let matched = match &held.policy.criteria {
            Ok(criteria) => criteria.matches(&self.asked.subject(object, self.old)),
            Err(fault) => {
                self.fault(held, None, &format!("failed to configure policy: {fault}"));
                return Ok(false);
            }
        };
        let Some(matched) = matched else { return Ok(false) };
        if let Some(fault) = unknown_param_kind(self.server, held.policy.param_kind.as_ref()) {
            self.fault(held, None, &format!("failed to configure policy: {fault}"));
            return Ok(false);
        }
        let request = self.asked.request(&matched);
        let old = self.asked.shown(self.server, self.attributes, &matched, self.old).await?;
        let kinds = self.server.catalog.snapshot();
        let kind = kinds.find(&matched.group, &matched.version, &matched.resource);
        let kind = kind.unwrap_or(&self.attributes.context.kind);
        let (group, version, of) = &self.attributes.kind;
        let schema = match self.attributes.is_of_kind() {
            true => input::schema_of(kind),
            false => schema::of_kind(group, version, of),
        };
        let mut changed = false;
        for binding in &held.bindings {
            let fits = match &binding.criteria {
                Ok(criteria) => criteria.matches(&self.asked.subject(object, self.old)).is_some(),
                Err(fault) => {
                    let fault = format!("failed to configure binding: {fault}");
                    self.fault(held, Some(&binding.name), &fault);
                    false
                }
            };
            if !fits {
                continue;
            }
            let params =
                self.asked.params(self.server, held.policy.param_kind.as_ref(), binding.params.as_ref());
            let params = match params.await? {
                Ok(params) => params,
                Err(fault) => {
                    let fault = format!("failed to configure binding: {fault}");
                    self.fault(held, Some(&binding.name), &fault);
                    continue;
                }
            };
            for param in &params {
                let shown = self.asked.shown(self.server, self.attributes, &matched, object).await?;
                let vars = self.asked.vars(&shown, &old, &request, param);
                match held.policy.mutate(&vars, schema.as_ref()) {
                    Ok(Some((new, faults))) => {
                        let new = match matched == self.asked.resource {
                            true => new,
                            false => self.server.converted(kind, &self.attributes.context.kind, new).await?,
                        };
                        for fault in faults {
                            self.fault(held, Some(&binding.name), &fault);
                        }
                        changed |= new != *object;
                        *object = new;
                    }
                    Ok(None) => {}
                    Err(fault) => self.fault(held, Some(&binding.name), &fault),
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(changed)
    }

    fn refuse(self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let Some(first) = self.faults.first() else { return Ok(()) };
        let resource = Resource { group: attributes.group(), plural: attributes.resource() };
        let mut error = ApiError::forbidden(&resource, attributes.shown_name(), first);
        error.message = first.clone();
        // Where there is nothing to judge by, it is no fault of the object's.
        if !first.contains("failed to configure binding") {
            error.reason = "Invalid".into();
        }
        let cause = |message: String| StatusCause { message: Some(message), ..Default::default() };
        error.details.get_or_insert_default().causes = Some(self.faults.into_iter().map(cause).collect());
        Err(error)
    }
}
