//! How much of what a pod asks for and a node offers. CPU in thousandths of a core, memory and storage in bytes,
//! everything else in whole units.

use std::collections::BTreeMap;

use api::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What a container that asks for nothing is taken to use when nodes are compared (never when they are ruled out).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // Validation refuses what is no quantity; what slipped through counts as none.
            let amount = Amount::parse(&quantity.0).unwrap_or(Amount::ZERO);
            match name.as_str() {
                "cpu" => resources.milli_cpu = amount.to_milli(),
                "memory" => resources.memory_bytes = amount.to_i64(),
                "ephemeral-storage" => resources.ephemeral_bytes = amount.to_i64(),
                // The number of pods is compared with how many there are, not with requests.
                "pods" => {}
                _ => {
                    resources.others.insert(name.clone(), amount.to_i64());
                }
            }
        }
        resources
    }

    pub fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory_bytes += other.memory_bytes;
        self.ephemeral_bytes += other.ephemeral_bytes;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory_bytes -= other.memory_bytes;
        self.ephemeral_bytes -= other.ephemeral_bytes;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() -= amount;
        }
    }

    fn at_least(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.max(other.milli_cpu);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(other.ephemeral_bytes);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }

    /// Each resource by name with its amount, those asked for only.
    pub fn named(&self) -> impl Iterator<Item = (&str, i64)> {
        let basic = [
            ("cpu", self.milli_cpu),
            ("memory", self.memory_bytes),
            ("ephemeral-storage", self.ephemeral_bytes),
        ];
        basic
            .into_iter()
            .chain(self.others.iter().map(|(n, a)| (n.as_str(), *a)))
            .filter(|(_, amount)| *amount > 0)
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory_bytes,
            "ephemeral-storage" => self.ephemeral_bytes,
            other => self.others.get(other).copied().unwrap_or(0),
        }
    }
}

/// What a node offers to pods, and how many pods it takes.
pub fn allocatable(node: &Node) -> (Resources, i64) {
    let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
    let pods = list.and_then(|l| l.get("pods")).and_then(|q| Amount::parse(&q.0).ok());
    (Resources::of(list), pods.map_or(110, |amount| amount.to_i64()))
}

fn requests(resources: Option<&ResourceRequirements>) -> Resources {
    let Some(resources) = resources else { return Resources::default() };
    let mut all = Resources::of(resources.requests.as_ref());
    // A limit without a request is a request too.
    let limits = resources.limits.iter().flatten();
    let requested = |name: &String| resources.requests.as_ref().is_some_and(|r| r.contains_key(name));
    let implied: BTreeMap<_, _> =
        limits.filter(|(n, _)| !requested(n)).map(|(n, q)| (n.clone(), q.clone())).collect();
    all.add(&Resources::of(Some(&implied)));
    all
}

/// What a pod needs at its hungriest moment: all containers and sidecars together, or one init container beside the
/// sidecars that were started before it, whichever is more; plus what its runtime class adds.
pub fn pod_requests(pod: &Pod) -> Resources {
    total(pod, |container| requests(container.resources.as_ref()))
}

/// As [`pod_requests`], but containers that ask for nothing count for a little.
pub fn pod_weight(pod: &Pod) -> (i64, i64) {
    let sum = total(pod, |container| {
        let mut asked = requests(container.resources.as_ref());
        if asked.milli_cpu == 0 {
            asked.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if asked.memory_bytes == 0 {
            asked.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        asked
    });
    (sum.milli_cpu, sum.memory_bytes)
}

fn total(pod: &Pod, of: impl Fn(&Container) -> Resources) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    let mut running = Resources::default();
    spec.containers.iter().for_each(|container| running.add(&of(container)));
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let asked = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&asked);
            sidecars.add(&asked);
            starting.at_least(&sidecars);
        } else {
            let mut moment = sidecars.clone();
            moment.add(&asked);
            starting.at_least(&moment);
        }
    }
    running.at_least(&starting);
    if let Some(pod_level) = &spec.resources {
        let stated = requests(Some(pod_level));
        if stated.milli_cpu > 0 {
            running.milli_cpu = stated.milli_cpu;
        }
        if stated.memory_bytes > 0 {
            running.memory_bytes = stated.memory_bytes;
        }
    }
    running.add(&Resources::of(spec.overhead.as_ref()));
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{container, pod};

    #[test]
    fn the_hungriest_moment_counts() {
        let mut pod = pod("a").0;
        let spec = pod.spec.get_or_insert_default();
        spec.containers = vec![container("100m", "1Gi"), container("200m", "1Gi")];
        let mut sidecar = container("50m", "10Mi");
        sidecar.restart_policy = Some("Always".into());
        spec.init_containers = Some(vec![sidecar, container("500m", "1Mi")]);
        let asked = pod_requests(&pod);
        assert_eq!(asked.milli_cpu, 550);
        assert_eq!(asked.memory_bytes, (2048 + 10) * 1024 * 1024);
    }
}
