//! What controllers ask of pods (is it active, ready, available, and since when), and how a pod is made from a
//! template.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::meta;

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending")
}

pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// It runs or will run, and nobody asked it to go.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !meta::is_deleting(&pod.metadata)
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when it has been ready without a break.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = condition(pod, "Ready").filter(|c| c.status == "True")?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether it has been ready for `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && available_in(pod, min_ready_seconds, now).is_none_or(|wait| wait.is_zero())
}

/// For a ready pod: how long until it counts as available.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        return is_ready(pod).then_some(Duration::ZERO);
    }
    let since = ready_since(pod)?;
    Some(remaining(since, i64::from(min_ready_seconds), now))
}

/// What is left of `seconds` counted from `from`.
pub fn remaining(from: Timestamp, seconds: i64, now: Timestamp) -> Duration {
    let passed_ms = now.as_millisecond().saturating_sub(from.as_millisecond());
    let left_ms = seconds.saturating_mul(1000).saturating_sub(passed_ms);
    Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
}

pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|s| s.restart_count).sum()
}

/// A pod as the template says, owned by `owner`. The caller names it.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `<owner>-` as the start of generated names, cut so that a suffix still fits.
pub fn generate_name(owner: &str) -> String {
    let cut: String = owner.chars().take(57).collect();
    format!("{cut}-")
}
