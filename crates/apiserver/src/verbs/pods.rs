//! What pods alone have: being bound to a node, and being evicted.

use std::sync::Arc;

use ::http::StatusCode;
use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};

use super::delete;
use super::input;
use super::ownership::Ownership;
use super::update::{Writes, change};
use crate::admission::{self, Operation};
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context};

fn success(code: StatusCode) -> Answer {
    respond::json(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code.as_u16()}),
    )
}

/// The older door: the pod is the one that has the binding's name.
pub async fn bind_named(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let input = input::object(context, body).await?;
    let kinds = server.0.catalog.snapshot();
    let pods = kinds.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let mut target = context.target.clone();
    target.plural = pods.plural.to_string();
    target.name = meta::name(&input).to_owned();
    let pod = Context {
        who: context.who.clone(),
        query: context.query.clone(),
        headers: context.headers.clone(),
        form: context.form,
        target,
        kind: Arc::clone(pods),
        warnings: Default::default(),
    };
    bind(server, &pod, crate::http::body::full(input.to_string())).await
}

/// Sets `spec.nodeName` and the PodScheduled condition, once.
pub async fn bind(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let mut value = input::other(context, body).await?;
    let binding: Binding = serde_json::from_value(value.clone())
        .map_err(|e| ApiError::bad_request(format!("invalid Binding: {e}")))?;
    let wanted = binding.metadata.uid.clone().unwrap_or_default();
    let node = binding.target.name.unwrap_or_default();
    if value["target"]["kind"] == "Node" {
        admission::topology_labels::label(server, &mut value, &node).await?;
    }
    admission::extend(server, context, &mut value, None, Operation::Create).await?;
    admission::validate(server, context, Some(&value), None, Operation::Create).await?;
    if node.is_empty() {
        return Err(ApiError::bad_request("target.name: Required value"));
    }
    change(server, context, Writes::Binding, Ownership::Take, |old| {
        let refuse = |why: String| Err(ApiError::conflict(&context.resource(), &context.target.name, &why));
        if let Some(held) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            return refuse(format!("pod {} is already assigned to node {held:?}", meta::name(old)));
        }
        if !wanted.is_empty() && wanted != meta::uid(old) {
            let held = meta::uid(old);
            return refuse(format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {held}"
            ));
        }
        if meta::is_deleting(old) {
            return refuse(format!("pod {} is being deleted, cannot be assigned to a host", meta::name(old)));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = node.as_str().into();
        let labels: Vec<(&str, &str)> = meta::pairs(&value, "labels").collect();
        if !labels.is_empty() {
            let held = meta::pairs(old, "labels").chain(labels).map(|(k, v)| (k.to_owned(), v.into()));
            meta::set(&mut new, "labels", Value::Object(held.collect()));
        }
        Ok(new)
    })
    .await?;
    change(server, context, Writes::Status, Ownership::Take, |old| {
        let mut new = old.clone();
        let now = base::time::rfc3339_seconds(base::time::now());
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(scheduled);
        new["status"]["conditions"] = Value::Array(conditions);
        Ok(new)
    })
    .await?;
    Ok(success(StatusCode::CREATED))
}

/// Deletes a pod if every budget that covers it allows one disruption more.
pub async fn evict(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let mut eviction = input::other(context, body).await?;
    admission::extend(server, context, &mut eviction, None, Operation::Create).await?;
    admission::validate(server, context, Some(&eviction), None, Operation::Create).await?;
    let found = server.0.objects.get(&context.kind, &context.target.namespace, &context.target.name).await?;
    let (_, pod) = found.ok_or_else(|| ApiError::not_found(&context.resource(), &context.target.name))?;
    let kinds = server.0.catalog.snapshot();
    if let Some(kind) = kinds.by_kind("policy", "PodDisruptionBudget") {
        let budgets: Vec<PodDisruptionBudget> = server.0.objects.all(kind).await?;
        let labels = meta::pairs(&pod, "labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        for budget in budgets {
            let here = budget.metadata.namespace.as_deref() == Some(meta::namespace(&pod));
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            let covers = api::selector::Selector::from_optional(selector).is_ok_and(|s| s.matches(&labels));
            if here && covers && !is_over(&pod) {
                take_from(server, context, kind, &budget.metadata.name.unwrap_or_default()).await?;
            }
        }
    }
    let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    delete::delete(server, context, crate::http::body::full(options.to_string())).await?;
    Ok(success(StatusCode::CREATED))
}

/// A pod that has ended, or never began, is no disruption.
fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"))
}

/// What a budget says that does not allow a disruption. When that changes is known only where the budget is about to be worked
/// out; otherwise clients that are told a time would ask again by themselves, where `kubectl drain` says why it waits.
fn not_allowed(budget: &Value) -> Option<ApiError> {
    let (name, status) = (meta::name(budget), &budget["status"]);
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (retry_after_seconds, why) = match () {
        () if number("observedGeneration") < meta::generation(budget) => {
            (10, "is still being processed by the server.".to_owned())
        }
        () if number("disruptionsAllowed") > 0 => return None,
        () => (0, held_up(status)),
    };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut refused = ApiError::too_many_requests(message, retry_after_seconds);
    let cause = StatusCause {
        reason: Some("DisruptionBudget".into()),
        message: Some(format!("The disruption budget {name} {why}")),
        field: None,
    };
    refused.details.get_or_insert_default().causes = Some(vec![cause]);
    Some(refused)
}

/// Why no disruption is allowed, as far as the budget's status tells.
fn held_up(status: &Value) -> String {
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let told = conditions.find(|c| c["type"] == "DisruptionAllowed").filter(|c| c["status"] == "False");
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let told = told.map(|condition| (text(condition, "reason"), text(condition, "message")));
    let told = told.filter(|(_, message)| !message.is_empty());
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    match told {
        Some((reason, message)) if reason == "SyncFailed" => {
            format!("does not allow evicting pods currently because it failed sync: {message}")
        }
        _ if healthy <= desired => format!("needs {desired} healthy pods and has {healthy} currently"),
        Some((reason, message)) => format!("does not allow evicting pods currently ({reason}): {message}"),
        None => "does not allow evicting pods currently".to_owned(),
    }
}

/// Takes one allowed disruption out of a budget, so that evictions at the same time do not share it; its controller
/// works the number out anew when the pod is gone.
async fn take_from(
    server: &ApiServer,
    context: &Context,
    kind: &Arc<Kind>,
    name: &str,
) -> Result<(), ApiError> {
    let mut target = context.target.clone();
    target.name = name.to_owned();
    let budget = Context {
        who: context.who.clone(),
        query: Default::default(),
        headers: context.headers.clone(),
        form: context.form,
        target,
        kind: Arc::clone(kind),
        warnings: Default::default(),
    };
    let pod = &context.target.name;
    change(server, &budget, Writes::Status, Ownership::Take, |old| {
        let allowed = old["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if let Some(refused) = not_allowed(old) {
            return Err(refused);
        }
        let mut new = old.clone();
        new["status"]["disruptionsAllowed"] = (allowed - 1).into();
        new["status"]["disruptedPods"][pod] = base::time::rfc3339_seconds(base::time::now()).into();
        Ok(new)
    })
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_say_why_they_allow_nothing() {
        let told = |status: Value| {
            let refused =
                not_allowed(&json!({"metadata": {"name": "b", "generation": 2}, "status": status}))?;
            let details = refused.details.unwrap_or_default();
            let why = details.causes.unwrap_or_default().pop().and_then(|cause| cause.message);
            let why = why.unwrap_or_default().strip_prefix("The disruption budget b ").map(str::to_owned);
            Some((refused.code, details.retry_after_seconds, why.unwrap_or_default()))
        };
        let told = |status: Value, seconds: Option<i32>, why: &str| {
            assert_eq!(told(status.clone()), Some((429, seconds, why.to_owned())), "{status}");
        };
        let fine = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "disruptionsAllowed": 1}});
        assert!(not_allowed(&fine).is_none());
        let early = "is still being processed by the server.";
        told(json!({"observedGeneration": 1, "disruptionsAllowed": 1}), Some(10), early);
        told(json!(null), Some(10), early);
        let with = |healthy: i64, reason: &str, message: &str| {
            json!({"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": healthy, "desiredHealthy": 2,
                   "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message}]})
        };
        told(with(2, "InsufficientPods", ""), None, "needs 2 healthy pods and has 2 currently");
        let failed = "does not allow evicting pods currently because it failed sync: x";
        told(with(2, "SyncFailed", "x"), None, failed);
        told(with(3, "Other", "x"), None, "does not allow evicting pods currently (Other): x");
        told(with(3, "Other", ""), None, "does not allow evicting pods currently");
    }
}
