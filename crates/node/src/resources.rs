//! Requests and limits as the kernel wants them, by the kubelet's formulas.

use std::collections::BTreeMap;

use container::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const CPU_PERIOD_US: u64 = 100_000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;
const QUOTA_MIN_US: i64 = 1_000;
const OOM_GUARANTEED: i32 = -997;
const OOM_BEST_EFFORT: i32 = 1_000;
/// From this priority on a pod is critical to its node.
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// A quantity in thousandths of its unit; what cannot be parsed is nothing (the API has validated it).
pub fn amount_milli(quantity: &Quantity) -> i128 {
    match api::quantity::Quantity::parse(&quantity.0) {
        // Beyond what fits in thousandths only whole units can matter.
        Ok(parsed) if parsed.to_i64().unsigned_abs() > 1 << 50 => i128::from(parsed.to_i64()) * 1000,
        Ok(parsed) => i128::from(parsed.to_milli()),
        Err(_) => 0,
    }
}

fn amount(quantity: &Quantity) -> i64 {
    i64::try_from((amount_milli(quantity) + 999) / 1000).unwrap_or(i64::MAX)
}

type Amounts = Option<BTreeMap<String, Quantity>>;

fn find<'a>(amounts: Option<&'a Amounts>, name: &str) -> Option<&'a Quantity> {
    amounts?.as_ref()?.get(name)
}

fn cpu_milli(amounts: Option<&Amounts>) -> Option<i64> {
    find(amounts, "cpu").map(|q| i64::try_from(amount_milli(q)).unwrap_or(i64::MAX))
}

fn memory_bytes(amounts: Option<&Amounts>) -> Option<i64> {
    find(amounts, "memory").map(amount)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod. The API server writes the same into the status; here it must not depend on that.
pub fn qos_of(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref();
        let (requests, limits) = (resources.map(|r| &r.requests), resources.map(|r| &r.limits));
        for name in ["cpu", "memory"] {
            let request = find(requests, name).map(amount_milli).filter(|a| *a > 0);
            let limit = find(limits, name).map(amount_milli).filter(|a| *a > 0);
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.or(limit) == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The cgroup that holds the containers of a pod, below the cluster's own.
pub fn cgroup_parent(pod: &Pod, uid: &str) -> String {
    format!("{}/pod{uid}", qos_of(pod).name().to_lowercase())
}

/// What the kernel is told about one container.
pub fn container_resources(pod: &Pod, container: &Container, memory_capacity_bytes: i64) -> Resources {
    let resources = container.resources.as_ref();
    let (requests, limits) = (resources.map(|r| &r.requests), resources.map(|r| &r.limits));
    let cpu_limit = cpu_milli(limits).filter(|milli| *milli > 0);
    let cpu_request = cpu_milli(requests).or(cpu_limit).unwrap_or(0);
    let memory_request = memory_bytes(requests).or(memory_bytes(limits)).unwrap_or(0);
    let quota = cpu_limit.map(|milli| (milli.saturating_mul(CPU_PERIOD_US as i64) / 1000).max(QUOTA_MIN_US));
    Resources {
        cpu_shares: u64::try_from(cpu_request.saturating_mul(1024) / 1000)
            .ok()
            .map(|shares| shares.clamp(SHARES_MIN as u64, SHARES_MAX as u64)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        memory_limit_bytes: memory_bytes(limits).filter(|bytes| *bytes > 0),
        oom_score_adj: Some(oom_score(pod, memory_request, memory_capacity_bytes)),
        ..Resources::default()
    }
}

fn oom_score(pod: &Pod, memory_request_bytes: i64, memory_capacity_bytes: i64) -> i32 {
    let priority = pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0);
    match qos_of(pod) {
        _ if priority >= SYSTEM_CRITICAL_PRIORITY => OOM_GUARANTEED,
        Qos::Guaranteed => OOM_GUARANTEED,
        Qos::BestEffort => OOM_BEST_EFFORT,
        Qos::Burstable => {
            let share = i128::from(memory_request_bytes) * 1000 / i128::from(memory_capacity_bytes.max(1));
            let score = 1000 - i32::try_from(share).unwrap_or(1000);
            // Never more precious than a guaranteed pod, never as cheap as one that asked for nothing.
            score.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

/// Sidecars count as init containers in a spec; the kubelet treats them apart.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A container of the spec by name, wherever it is listed. Ephemeral ones are presented as ordinary containers.
pub fn find_container(spec: &PodSpec, name: &str) -> Option<Container> {
    let listed = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name);
    listed.cloned().or_else(|| {
        let ephemeral = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
        // The type has the same fields and one more; going through JSON keeps this true when fields are added.
        let value = serde_json::to_value(ephemeral).ok()?;
        serde_json::from_value(value).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}))
            .expect("a pod")
    }

    fn of(resources: serde_json::Value) -> (Qos, Resources) {
        let pod = pod(resources);
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        (qos_of(&pod), container_resources(&pod, container, 1 << 30))
    }

    #[test]
    fn formulas_are_the_kubelets() {
        let (qos, r) = of(json!({}));
        assert_eq!(
            (qos, r.cpu_shares, r.cpu_quota, r.oom_score_adj),
            (Qos::BestEffort, Some(2), None, Some(1000))
        );
        let (qos, r) = of(json!({"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "500m"}}));
        assert_eq!(
            (qos, r.cpu_shares, r.cpu_quota, r.oom_score_adj),
            (Qos::Burstable, Some(256), Some(50_000), Some(750))
        );
        let (qos, r) = of(json!({"limits": {"cpu": "1", "memory": "64Mi"}}));
        assert_eq!(
            (qos, r.memory_limit_bytes, r.oom_score_adj),
            (Qos::Guaranteed, Some(64 << 20), Some(-997))
        );
        let (_, r) = of(json!({"limits": {"cpu": "1m"}}));
        assert_eq!(r.cpu_quota, Some(1_000));
    }
}
