//! Requests and limits as the kernel wants them, by the kubelet's formulas.

use std::collections::BTreeMap;

use container::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
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

/// What the kernel is told about all containers of a pod together. Without a limit in one of its containers a pod has none,
/// unless it has its own (`spec.resources`).
pub fn pod_resources(pod: &Pod) -> Resources {
    let request = |name: &str| total(pod, name, Side::Requests).unwrap_or(0);
    let cpu_limit = total(pod, "cpu", Side::Limits).filter(|milli| *milli > 0);
    let memory_limit = total(pod, "memory", Side::Limits).filter(|milli| *milli > 0);
    let quota = cpu_limit.map(|milli| (milli.saturating_mul(CPU_PERIOD_US as i64) / 1000).max(QUOTA_MIN_US));
    let shares = u64::try_from(request("cpu").saturating_mul(1024) / 1000).unwrap_or(0);
    Resources {
        cpu_shares: Some(shares.clamp(SHARES_MIN as u64, SHARES_MAX as u64)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| CPU_PERIOD_US),
        memory_limit_bytes: memory_limit.map(|milli| milli.saturating_add(999) / 1000),
        ..Resources::default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Requests,
    Limits,
}

/// In thousandths: what runs together, or the init container that takes more beside the sidecars before it; and the
/// overhead. For limits nothing if one that runs has none.
fn total(pod: &Pod, name: &str, side: Side) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let of = |resources: Option<&ResourceRequirements>| -> Option<i64> {
        let resources = resources?;
        let (requests, limits) = (Some(&resources.requests), Some(&resources.limits));
        let found = match side {
            Side::Requests => find(requests, name).or(find(limits, name)),
            Side::Limits => find(limits, name),
        };
        found.map(|q| i64::try_from(amount_milli(q)).unwrap_or(i64::MAX)).filter(|milli| *milli > 0)
    };
    let overhead =
        find(Some(&spec.overhead), name).map_or(0, |q| i64::try_from(amount_milli(q)).unwrap_or(0));
    if let Some(own) = of(spec.resources.as_ref()) {
        return Some(own.saturating_add(overhead));
    }
    let (mut running, mut sidecars, mut starting) = (0i64, 0i64, 0i64);
    for container in spec.init_containers.iter().flatten() {
        let amount = of(container.resources.as_ref());
        if side == Side::Limits && amount.is_none() {
            return None;
        }
        let amount = amount.unwrap_or(0);
        match is_sidecar(container) {
            true => sidecars = sidecars.saturating_add(amount),
            false => starting = starting.max(sidecars.saturating_add(amount)),
        }
    }
    for container in &spec.containers {
        let amount = of(container.resources.as_ref());
        if side == Side::Limits && amount.is_none() {
            return None;
        }
        running = running.saturating_add(amount.unwrap_or(0));
    }
    Some(running.saturating_add(sidecars).max(starting).saturating_add(overhead))
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

    #[test]
    fn a_pod_has_what_its_containers_have_together() {
        let check = |spec: serde_json::Value, shares: u64, quota: Option<i64>, memory: Option<i64>| {
            let pod: Pod = serde_json::from_value(json!({ "spec": spec })).expect("a pod");
            let r = pod_resources(&pod);
            assert_eq!(
                (r.cpu_shares, r.cpu_quota, r.memory_limit_bytes),
                (Some(shares), quota, memory),
                "{spec}"
            );
            assert_eq!(r.cpu_period.is_some(), quota.is_some());
        };
        let c = |name: &str, requests: serde_json::Value, limits: serde_json::Value| json!({"name": name, "resources": {"requests": requests, "limits": limits}});
        let small = c("a", json!({"cpu": "250m"}), json!({"cpu": "500m", "memory": "64Mi"}));
        let other = c("b", json!({"cpu": "250m"}), json!({"cpu": "1", "memory": "32Mi"}));
        let free = json!({"name": "free"});
        check(json!({"containers": [free]}), 2, None, None);
        check(json!({"containers": [small]}), 256, Some(50_000), Some(64 << 20));
        check(json!({"containers": [small, other]}), 512, Some(150_000), Some(96 << 20));
        // One without a limit, and nothing limits all.
        check(json!({"containers": [small, free]}), 256, None, None);
        check(json!({"containers": [small], "initContainers": [free]}), 256, None, None);
        let memory = c("m", json!({}), json!({"memory": "64Mi"}));
        check(json!({"containers": [memory]}), 2, None, Some(64 << 20));
        // What prepares may take more than what runs; sidecars run beside both.
        let large = c("large", json!({"cpu": "1"}), json!({"cpu": "2", "memory": "128Mi"}));
        check(
            json!({"containers": [small], "initContainers": [large]}),
            1024,
            Some(200_000),
            Some(128 << 20),
        );
        let mut sidecar = other.clone();
        sidecar["restartPolicy"] = "Always".into();
        check(
            json!({"containers": [small], "initContainers": [sidecar]}),
            512,
            Some(150_000),
            Some(96 << 20),
        );
        let both = json!({"containers": [small], "initContainers": [sidecar, large]});
        check(both, 1280, Some(300_000), Some(160 << 20));
        let overhead = json!({"cpu": "250m", "memory": "16Mi"});
        check(json!({"containers": [small], "overhead": overhead}), 512, Some(75_000), Some(80 << 20));
        // Without limits the overhead alone limits nothing.
        check(json!({"containers": [free], "overhead": overhead}), 256, None, None);
        let own = json!({"containers": [free], "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}});
        check(own, 1024, None, Some(1 << 30));
    }
}
