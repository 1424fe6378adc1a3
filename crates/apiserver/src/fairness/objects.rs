//! What the server writes of its own accord: the objects that every cluster has, and the condition `Dangling` of a flow
//! schema whose priority level is missing. Done when something of it has changed, and once at the start.

use std::collections::BTreeSet;
use std::time::Duration;

use ::http::{Method, Request};
use api::meta;
use api::status::ApiError;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::ApiServer;
use crate::bootstrap::flowcontrol::{self, GROUP};
use crate::bootstrap::sent;
use crate::http::body::full;

const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Several changes at once are looked at once; and whoever deletes something of ours sees it gone for a moment.
const SETTLING: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);

/// The condition that a flow schema should have, if it has another.
fn dangling(schema: &Value, levels: &BTreeSet<String>, now: &str) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let begun = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match levels.contains(level) {
        true => ("False", "Found", format!("{begun} and it exists")),
        false => ("True", "NotFound", format!("{begun} but there is no such object")),
    };
    let conditions = schema["status"]["conditions"].as_array();
    let present = conditions.into_iter().flatten().find(|c| c["type"] == "Dangling");
    let present = present.unwrap_or(&Value::Null);
    if present["status"] == status && present["reason"] == reason && present["message"] == message {
        return None;
    }
    let since = match &present["lastTransitionTime"] {
        Value::String(since) if present["status"] == status => since.as_str(),
        _ => now,
    };
    Some(
        json!({"type": "Dangling", "status": status, "lastTransitionTime": since, "reason": reason, "message": message}),
    )
}

/// Sees to all of it.
pub async fn settle(server: &ApiServer) -> Result<(), ApiError> {
    flowcontrol::keep(server).await?;
    let kinds = server.0.catalog.snapshot();
    let kind = |plural: &str| kinds.find(GROUP, "v1", plural).ok_or_else(ApiError::no_such_path);
    let levels: Vec<Value> = server.0.objects.all(kind("prioritylevelconfigurations")?).await?;
    let levels: BTreeSet<String> = levels.iter().map(|level| meta::name(level).to_owned()).collect();
    let schemas: Vec<Value> = server.0.objects.all(kind("flowschemas")?).await?;
    let now = base::time::rfc3339_seconds(base::time::now());
    try_join_all(schemas.iter().filter_map(|schema| {
        let condition = dangling(schema, &levels, &now)?;
        Some(tell(server, meta::name(schema), condition))
    }))
    .await?;
    Ok(())
}

async fn tell(server: &ApiServer, name: &str, condition: Value) -> Result<(), ApiError> {
    let body = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name},
        "status": {"conditions": [condition]}});
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("/apis/{GROUP}/v1/flowschemas/{name}/status?fieldManager={MANAGER}&force=true"))
        .header(::http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(full(body.to_string()))
        .map_err(ApiError::internal)?;
    // It may have been deleted meanwhile.
    sent(server, request, &[404, 409]).await
}

impl ApiServer {
    /// Sees to it for as long as the server is there.
    pub(crate) fn follow_fairness(&self) {
        let server = std::sync::Arc::downgrade(&self.0);
        let mut changed = self.0.fairness.changes();
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                tokio::time::sleep(SETTLING).await;
                changed.mark_unchanged();
                loop {
                    let Some(server) = server.upgrade().map(ApiServer) else { return };
                    let Err(error) = settle(&server).await else { break };
                    tracing::warn!(%error, "cannot see to the flow schemas");
                    drop(server);
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_without_its_level_is_told_so_once() {
        let levels = BTreeSet::from(["there".to_owned()]);
        let schema = |level: &str, conditions: Value| json!({"spec": {"priorityLevelConfiguration": {"name": level}}, "status": {"conditions": conditions}});
        let found = dangling(&schema("there", Value::Null), &levels, "now").expect("a condition");
        assert_eq!(
            found["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"there\" and it exists"
        );
        assert_eq!(dangling(&schema("there", json!([found])), &levels, "later"), None);
        let lost = dangling(&schema("gone", json!([found])), &levels, "later").expect("a condition");
        assert_eq!(
            (&lost["status"], &lost["reason"], &lost["lastTransitionTime"]),
            (&json!("True"), &json!("NotFound"), &json!("later"))
        );
        assert_eq!(
            lost["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" but there is no such object"
        );
        let other = dangling(&schema("away", json!([lost])), &levels, "last").expect("another message");
        assert_eq!(other["lastTransitionTime"], "later", "it was dangling before");
    }
}
