//! A pod that is bound to a node tells where that node is.

use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Map, Value};

use super::{Operation, is_pod};
use crate::{ApiServer, Context};

const LABELS: &[&str] = &["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let node = object["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        if is_pod(context) && operation.is_create() && !node.is_empty() {
            label(server, object, &node).await?;
        }
        Ok(())
    })
}

/// Writes the labels of a node's place over an object's own.
pub async fn label(server: &ApiServer, object: &mut Value, node: &str) -> Result<(), ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let Some(node) = server.0.objects.find(kind, "", node).await? else { return Ok(()) };
    let mut labels: Map<String, Value> =
        meta::pairs(object, "labels").map(|(k, v)| (k.to_owned(), v.into())).collect();
    let before = labels.len();
    let place = meta::pairs(&node, "labels").filter(|(key, _)| LABELS.contains(key));
    labels.extend(place.map(|(k, v)| (k.to_owned(), v.into())));
    if labels.len() != before || before > 0 {
        meta::set(object, "labels", Value::Object(labels));
    }
    Ok(())
}
