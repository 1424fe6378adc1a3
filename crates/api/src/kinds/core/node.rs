//! `Node`: a machine, written by its agent.

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Node>::new("nodes", false)
        .short(&["no"])
        .prefix("/registry/minions")
        .status()
        .subresource("proxy", ("", "v1", "NodeProxyOptions"), &["create", "delete", "get", "patch", "update"])
        .validate(validate)
        .validate_update(|new, old, errors| {
            let pod_cidr = |n: &Node| n.spec.as_ref().and_then(|s| s.pod_cidr.clone());
            if pod_cidr(old).is_some() && pod_cidr(new) != pod_cidr(old) {
                let detail = "node updates may not change podCIDR except from \"\" to valid";
                errors.push(FieldError::forbidden("spec.podCIDRs", detail));
            }
        })
        .row(row)
        .fields(&["spec.unschedulable"], |n| {
            let unschedulable = n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
            vec![("spec.unschedulable", unschedulable.to_string())]
        })
        .done()
}

fn validate(node: &Node, errors: &mut Errors) {
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    for (i, taint) in taints.into_iter().flatten().enumerate() {
        let field = format!("spec.taints[{i}].effect");
        errors.one_of(field, Some(&taint.effect), &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
    }
}

fn row(node: &Node) -> Vec<Value> {
    let status = node.status.as_ref();
    let ready = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    let mut shown = match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        shown.push_str(",SchedulingDisabled");
    }
    const ROLE: &str = "node-role.kubernetes.io/";
    let labels = node.metadata.labels.iter().flatten();
    let roles: Vec<&str> =
        labels.filter_map(|(key, _)| key.strip_prefix(ROLE)).filter(|r| !r.is_empty()).collect();
    let address = |kind: &str| {
        let addresses = status.and_then(|s| s.addresses.as_ref());
        addresses.into_iter().flatten().find(|a| a.type_ == kind).map(|a| a.address.clone())
    };
    let info = status.and_then(|s| s.node_info.as_ref());
    vec![
        name_cell(&node.metadata),
        shown.into(),
        or_none(Some(&roles.join(","))),
        age_cell(&node.metadata),
        info.map(|i| i.kubelet_version.clone()).unwrap_or_default().into(),
        or_none(address("InternalIP").as_deref()),
        or_none(address("ExternalIP").as_deref()),
        info.map_or("<unknown>", |i| &i.os_image).into(),
        info.map_or("<unknown>", |i| &i.kernel_version).into(),
        info.map_or("<unknown>", |i| &i.container_runtime_version).into(),
    ]
}
