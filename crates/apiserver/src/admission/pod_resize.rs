//! A pod that is resized must still fit on its node.

use api::quantity::Quantity;
use api::quota;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::ApiServer;

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let resizes = attributes.is("", "pods") && attributes.subresource == "resize";
        let (Some(new), Some(old), Operation::Update, true) = (object, old, attributes.operation, resizes)
        else {
            return Ok(());
        };
        let node = new["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() || new["spec"] == old["spec"] {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
        let Some((_, found)) = server.0.objects.get(kind, "", node).await? else {
            return Err(refused(attributes, &format!("node {node:?} not found")));
        };
        let found: Node = serde_json::from_value(found).map_err(ApiError::internal)?;
        let pod: Pod = serde_json::from_value(new.clone()).map_err(ApiError::internal)?;
        match misfit(&pod, &found) {
            Some(why) => Err(refused(attributes, &why)),
            None => Ok(()),
        }
    })
}

fn misfit(pod: &Pod, node: &Node) -> Option<String> {
    let system = node.metadata.labels.as_ref().and_then(|l| l.get(base::constants::labels::OS));
    if let Some(system) = system.filter(|s| *s != "linux") {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        return Some(format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}"));
    }
    let there = quota::read(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
    let wanted = quota::most_of_containers(pod, false);
    let fits = |name: &str, number: fn(&Quantity) -> i64| {
        let of = |amounts: &quota::Amounts| amounts.get(name).copied().unwrap_or(Quantity::ZERO);
        let (wanted, there) = (of(&wanted), of(&there));
        let numbers = (number(&wanted), number(&there));
        (wanted > there).then(|| format!("{name}, requested: {}, allocatable: {}", numbers.0, numbers.1))
    };
    let faults: Vec<String> =
        [fits("cpu", Quantity::to_milli), fits("memory", Quantity::to_i64)].into_iter().flatten().collect();
    let faults = faults.join("; ");
    (!faults.is_empty()).then(|| format!("node didn't have enough allocatable resources: {faults}"))
}
