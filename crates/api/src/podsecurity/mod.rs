//! The Pod Security Standards: what of a pod the levels `baseline` and `restricted` forbid, in the words that users know,
//! at every version a namespace may pin. Pure: the server asks, and decides what a violation means.

mod baseline;
mod labels;
mod restricted;
mod view;

use std::fmt;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use labels::{Policy, policy};
use view::View;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The minor version whose standards hold. The latest is newer than any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Minor(u32),
    Latest,
}

/// What a namespace asks of its pods in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged:",
            Level::Baseline => "baseline:",
            Level::Restricted => "restricted:",
        })?;
        match self.version {
            Version::Minor(minor) => write!(f, "v1.{minor}"),
            Version::Latest => f.write_str("latest"),
        }
    }
}

/// What is wrong with a pod, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: &str, detail: String) -> Option<Self> {
        Some(Self { reason: reason.to_owned(), detail })
    }
}

/// One rule: from which minor version on it holds, and until before which. Rules of the restricted level may stand for
/// one of the baseline.
struct Check {
    id: &'static str,
    since: u32,
    replaces: &'static str,
    test: fn(&View<'_>) -> Option<Violation>,
}

impl Check {
    const fn new(id: &'static str, since: u32, test: fn(&View<'_>) -> Option<Violation>) -> Self {
        Self { id, since, replaces: "", test }
    }

    const fn replacing(
        id: &'static str,
        since: u32,
        replaces: &'static str,
        test: fn(&View<'_>) -> Option<Violation>,
    ) -> Self {
        Self { id, since, replaces, test }
    }

    fn holds(&self, version: Version) -> bool {
        version >= Version::Minor(self.since)
    }
}

/// Every violation of a standard, those of the baseline first.
pub fn violations(standard: Standard, meta: &ObjectMeta, spec: &PodSpec) -> Vec<Violation> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let view = View::new(meta, spec, standard.version);
    let restricted: Vec<&Check> = match standard.level {
        Level::Restricted => restricted::CHECKS.iter().filter(|c| c.holds(standard.version)).collect(),
        Level::Privileged | Level::Baseline => Vec::new(),
    };
    let replaced = |check: &&Check| restricted.iter().any(|r| r.replaces == check.id);
    let baseline = baseline::CHECKS.iter().filter(|c| c.holds(standard.version) && !replaced(c));
    baseline.chain(restricted.iter().copied()).filter_map(|check| (check.test)(&view)).collect()
}

/// Reasons with their details, as a refusal lists them.
pub fn in_detail(violations: &[Violation]) -> String {
    let texts = violations.iter().map(|v| match v.detail.as_str() {
        "" => v.reason.clone(),
        detail => format!("{} ({detail})", v.reason),
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// The reasons alone, as they are told of pods that are there already.
pub fn in_short(violations: &[Violation]) -> String {
    violations.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// So many pods are looked at when a namespace gets a stricter standard.
const EXISTING_PODS_MAX: usize = 3000;

/// What to warn of when a namespace's standard becomes stricter than pods that are in it. Of pods with the same owner one
/// is looked at before any other pod's siblings are.
pub fn of_existing(namespace: &str, standard: Standard, pods: &[Pod]) -> Vec<String> {
    let mut owners = std::collections::HashSet::new();
    let controller = |pod: &Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.clone()).next()
    };
    let (first, rest): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().partition(|pod| controller(pod).is_none_or(|uid| owners.insert(uid)));
    let mut found = std::collections::BTreeMap::<String, (&str, usize)>::new();
    for pod in first.into_iter().chain(rest).take(EXISTING_PODS_MAX) {
        let (Some(spec), name) = (&pod.spec, pod.metadata.name.as_deref().unwrap_or_default()) else {
            continue;
        };
        let violations = violations(standard, &pod.metadata, spec);
        if !violations.is_empty() {
            let (least, count) = found.entry(in_short(&violations)).or_insert((name, 0));
            *least = name.min(least);
            *count += 1;
        }
    }
    let mut warnings = Vec::new();
    if pods.len() > EXISTING_PODS_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {EXISTING_PODS_MAX} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut told: Vec<String> = found
        .into_iter()
        .map(|(why, (name, count))| match count {
            1 => format!("{name}: {why}"),
            2 => format!("{name} (and 1 other pod): {why}"),
            more => format!("{name} (and {} other pods): {why}", more - 1),
        })
        .collect();
    told.sort();
    warnings.extend(told);
    warnings
}

/// Whether an update of a pod is looked at anew: only what runs in it counts, the rest cannot be changed for the worse.
pub fn is_significant(new: &PodSpec, old: &PodSpec) -> bool {
    let images = |spec: &PodSpec| {
        let plain = [Some(&spec.containers), spec.init_containers.as_ref()];
        plain.map(|list| list.into_iter().flatten().map(|c| c.image.clone()).collect::<Vec<_>>())
    };
    let ephemeral = |spec: &PodSpec| {
        let all = spec.ephemeral_containers.iter().flatten();
        all.map(|c| (c.name.clone(), c.image.clone())).collect::<std::collections::HashSet<_>>()
    };
    let before = ephemeral(old);
    images(new) != images(old) || ephemeral(new).iter().any(|c| !before.contains(c))
}

#[cfg(test)]
mod tests;
