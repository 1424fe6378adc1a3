//! A new node takes no pods before it is ready: the controller of nodes takes the taint off when it is.

use api::status::ApiError;
use base::constants::taints::NOT_READY;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Operation;
use crate::{ApiServer, Context};

pub fn admit<'a>(
    _server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let nodes = context.kind.group.is_empty() && context.kind.plural == "nodes";
        if !nodes || !operation.is_create() || !object.is_object() {
            return Ok(());
        }
        if object["spec"].is_null() {
            object["spec"] = json!({});
        }
        let mut taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let held = taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule");
        if !held && object["spec"].is_object() {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            object["spec"]["taints"] = Value::Array(taints);
        }
        Ok(())
    })
}
