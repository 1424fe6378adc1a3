//! Eviction: a pod is deleted as somebody wishes who can wait, if the budget that covers it allows a disruption. What is no
//! disruption is not held up: a pod that has ended or never began, and one that is not ready where the budget says so.
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>

use std::sync::Arc;

use ::http::StatusCode;
use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};
use store::Entry;

use super::ownership::Ownership;
use super::update::{Writes, change};
use super::{delete, input, pods, read};
use crate::admission::{self, Operation};
use crate::http::body::{Body, full};
use crate::http::respond::Answer;
use crate::{ApiServer, Context};

/// A pod that was not ready may have become so before it is deleted: then it is looked at again.
const TRIES: usize = 5;

/// What stands between a pod and its end.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Free,
    /// Nothing as long as it is as it is: it is not ready.
    FreeAsItIs,
    /// This budget.
    Counts(String),
}

pub async fn evict(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let mut eviction = input::other(context, body).await?;
    input::check_other(("policy", "v1", "Eviction"), &eviction)?;
    let namespace = meta::namespace(&eviction);
    if !namespace.is_empty() && namespace != context.target.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    if meta::name(&eviction) != context.target.name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    admission::extend(server, context, &mut eviction, None, Operation::Create).await?;
    admission::validate(server, context, Some(&eviction), None, Operation::Create).await?;
    let options =
        eviction.get("deleteOptions").filter(|o| o.is_object()).cloned().unwrap_or_else(|| json!({}));
    let dry_run = context.dry_run() || options["dryRun"] == json!(["All"]);
    let kinds = server.0.catalog.snapshot();
    let budgets = kinds.by_kind("policy", "PodDisruptionBudget");
    let mut tries = 0;
    loop {
        let (entry, pod) = read::find(server, context).await?;
        let covering = match budgets {
            Some(kind) if !is_over(&pod) => covering(server, kind, &pod).await?,
            _ => Vec::new(),
        };
        let verdict = verdict(&pod, &covering)?;
        if let (Verdict::Counts(name), Some(kind)) = (&verdict, budgets) {
            take_from(server, context, (kind, name), dry_run).await?;
        }
        let guarded = verdict == Verdict::FreeAsItIs;
        let deleted =
            delete::delete(server, context, full(with_guard(&options, &entry, guarded).to_string()));
        match deleted.await {
            Ok(_) => return Ok(pods::success(StatusCode::CREATED)),
            Err(error) if error.code == 409 && guarded && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The options, and where `guarded` that the pod is as it was seen.
fn with_guard(options: &Value, entry: &Entry, guarded: bool) -> Value {
    let mut options = options.clone();
    if guarded && options["preconditions"]["resourceVersion"].is_null() {
        options["preconditions"]["resourceVersion"] = entry.mod_revision.to_string().into();
    }
    options
}

/// A pod that has ended, never began, or is on its way out is no disruption.
fn is_over(pod: &Value) -> bool {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    ended || meta::is_deleting(pod)
}

async fn covering(
    server: &ApiServer,
    kind: &Arc<Kind>,
    pod: &Value,
) -> Result<Vec<PodDisruptionBudget>, ApiError> {
    let mut budgets: Vec<PodDisruptionBudget> =
        server.0.objects.in_namespace(kind, meta::namespace(pod)).await?;
    let labels = meta::pairs(pod, "labels").map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    budgets.retain(|budget| {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        api::selector::Selector::from_optional(selector).is_ok_and(|s| s.matches(&labels))
    });
    Ok(budgets)
}

/// `covering`: the budgets that select the pod.
fn verdict(pod: &Value, covering: &[PodDisruptionBudget]) -> Result<Verdict, ApiError> {
    let budget = match covering {
        [] => return Ok(Verdict::Free),
        [budget] => budget,
        _ => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::worded(500, String::new(), why.to_owned(), None));
        }
    };
    if !is_ready(pod) {
        let spec = budget.spec.as_ref();
        let always = spec.and_then(|s| s.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
        // Otherwise its service has to be well without it.
        let well = budget.status.as_ref().is_some_and(|status| {
            let desired = status.desired_healthy.unwrap_or(0);
            desired > 0 && status.current_healthy.unwrap_or(0) >= desired
        });
        if always || well {
            return Ok(Verdict::FreeAsItIs);
        }
    }
    Ok(Verdict::Counts(budget.metadata.name.clone().unwrap_or_default()))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// Takes one allowed disruption out of a budget, so that evictions at the same time do not share it; its controller
/// works the number out anew when the pod is gone. A trial takes nothing.
async fn take_from(
    server: &ApiServer,
    context: &Context,
    (kind, name): (&Arc<Kind>, &str),
    dry_run: bool,
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
    if dry_run {
        let (_, budget) = read::find(server, &budget).await?;
        return not_allowed(&budget).map_or(Ok(()), Err);
    }
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
