//! A container's own requests and limits as text.

use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};

use super::FieldContext;
use crate::resources::amount_milli;

/// The value in units of the divisor, rounded up. An absent limit is what the node can give.
pub fn resource_value(
    container: &Container,
    selector: &ResourceFieldSelector,
    context: &FieldContext,
) -> Option<String> {
    let (kind, name) = selector.resource.split_once('.')?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let own = match kind {
        "limits" => limits.and_then(|l| l.get(name)),
        "requests" => resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(name)),
        _ => return None,
    };
    // In thousandths of the resource's unit, wide enough for memory.
    let milli: i128 = match own {
        Some(quantity) => amount_milli(quantity),
        None => match (kind, name) {
            ("limits", "cpu") => i128::from(context.allocatable_cpu_milli),
            ("limits", "memory") => i128::from(context.allocatable_memory_bytes) * 1000,
            ("limits", "ephemeral-storage") => i128::from(context.allocatable_storage_bytes) * 1000,
            (_, "cpu" | "memory" | "ephemeral-storage") => 0,
            (_, other) if other.starts_with("hugepages-") => 0,
            _ => return None,
        },
    };
    let divisor = selector.divisor.as_ref().map(amount_milli).filter(|d| *d > 0).unwrap_or(1000);
    Some(((milli + divisor - 1) / divisor).to_string())
}
