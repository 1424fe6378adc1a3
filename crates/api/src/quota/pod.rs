//! What a pod uses: the most that its containers ask for at any one time.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::{Amounts, read};
use crate::quantity::Quantity;
use crate::status::Resource;

/// Resources that may be asked of for requests and limits both, and are counted by their bare names as well.
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Whether the pod has ended, or should have by now: then it takes no room.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let overdue = pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| at.0 < base::time::now());
    matches!(phase, Some("Succeeded" | "Failed")) || overdue
}

/// Whether neither requests nor limits of CPU or memory are set: the quality of service `BestEffort`.
pub fn uses_nothing(pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let set = |r: &ResourceRequirements| {
        [&r.requests, &r.limits].into_iter().flatten().flatten().any(|(name, amount)| {
            let amount = Quantity::parse(&amount.0).unwrap_or(Quantity::ZERO);
            matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero()
        })
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let of_pod = spec.resources.as_ref().is_some_and(set);
    !of_pod && !containers.filter_map(|c| c.resources.as_ref()).any(set)
}

fn of(container: &Container, limits: bool) -> Amounts {
    let resources = container.resources.as_ref();
    read(resources.and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() }))
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = *entry + *amount;
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = most.entry(name.clone()).or_insert(*amount);
        if *amount > *entry {
            *entry = *amount;
        }
    }
}

/// The most of each resource that the pod holds at once: containers together with the sidecars, or one init container
/// with the sidecars before it.
fn most(pod: &Pod, limits: bool) -> Amounts {
    let mut sum = most_of_containers(pod, limits);
    let overhead = read(pod.spec.as_ref().and_then(|s| s.overhead.as_ref()));
    let present: Amounts =
        overhead.into_iter().filter(|(name, _)| !limits || sum.contains_key(name)).collect();
    add(&mut sum, &present);
    sum
}

/// The same without what the runtime itself takes.
pub fn most_of_containers(pod: &Pod, limits: bool) -> Amounts {
    let spec = pod.spec.clone().unwrap_or_default();
    let (mut sum, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let mut with = sidecars.clone();
        add(&mut with, &of(container, limits));
        raise(&mut starting, &with);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = with;
        }
    }
    spec.containers.iter().for_each(|container| add(&mut sum, &of(container, limits)));
    add(&mut sum, &sidecars);
    raise(&mut sum, &starting);
    // What is set for the pod as a whole stands for its containers.
    let whole =
        spec.resources.as_ref().and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
    sum.extend(read(whole));
    sum
}

pub fn usage(pod: &Pod) -> Amounts {
    if is_over(pod) {
        return Amounts::new();
    }
    let mut used = Amounts::from([("pods".to_owned(), Quantity::from_units(1))]);
    for (name, amount) in most(pod, false) {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in most(pod, true) {
        if COMPUTE.contains(&name.as_str()) {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

/// Whether a name is of something that pods use.
pub fn is_of_pods(hard: &str) -> bool {
    let bare = hard.strip_prefix("limits.").or_else(|| hard.strip_prefix("requests.")).unwrap_or(hard);
    let compute = COMPUTE.contains(&bare) || bare.starts_with("hugepages-");
    let extended = hard.strip_prefix("requests.").is_some_and(|name| name.contains('/'));
    hard == "pods" || compute || extended && !hard.contains("storageclass.storage.k8s.io")
}

/// Containers that must say how much they use, because a quota limits it, and do not: `limits.cpu for: a,b`.
pub fn missing(pod: &Pod, hard: &Amounts, resource: &Resource<'_>) -> Option<String> {
    if !resource.group.is_empty() || resource.plural != "pods" {
        return None;
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let mut faults = Vec::new();
    for name in hard.keys() {
        let (limits, bare) = match (name.strip_prefix("limits."), name.strip_prefix("requests.")) {
            (Some(bare), _) => (true, bare),
            (None, Some(bare)) => (false, bare),
            (None, None) => (false, name.as_str()),
        };
        if !COMPUTE.contains(&bare) {
            continue;
        }
        let whole = spec
            .resources
            .as_ref()
            .and_then(|r| if limits { r.limits.as_ref() } else { r.requests.as_ref() });
        if whole.is_some_and(|w| w.contains_key(bare)) {
            continue;
        }
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let silent: Vec<&str> =
            containers.filter(|c| !of(c, limits).contains_key(bare)).map(|c| c.name.as_str()).collect();
        if !silent.is_empty() {
            faults.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    (!faults.is_empty()).then(|| format!("must specify {}", faults.join("; ")))
}
