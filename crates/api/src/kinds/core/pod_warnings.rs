//! What whoever writes a pod or a template is warned of: what is allowed and does not do what it seems to.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kinds::names::{Rule, fault};
use crate::quantity::Quantity;

/// Labels of nodes that have been renamed, and how that is told.
const NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];
const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub fn of_pod(pod: &Pod) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(spec) = &pod.spec {
        Warnings { prefix: "", out: &mut out }.all(spec, &pod.metadata);
    }
    out
}

/// `field` is where the template stands.
pub fn of_template(field: &str, template: &PodTemplateSpec) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(spec) = &template.spec {
        let prefix = format!("{field}.");
        let meta = template.metadata.clone().unwrap_or_default();
        Warnings { prefix: &prefix, out: &mut out }.all(spec, &meta);
    }
    out
}

/// A name that becomes part of those of pods, which are host names too.
pub fn of_name(meta: &ObjectMeta) -> Option<String> {
    let fault = fault(Rule::Label, meta.name.as_deref().unwrap_or_default())?;
    Some(format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
         recommended: [{fault}]"
    ))
}

struct Warnings<'a> {
    prefix: &'a str,
    out: &'a mut Vec<String>,
}

impl Warnings<'_> {
    fn push(&mut self, field: &str, text: impl std::fmt::Display) {
        self.out.push(format!("{}{field}: {text}", self.prefix));
    }

    fn all(&mut self, spec: &PodSpec, meta: &ObjectMeta) {
        self.placement(spec);
        self.annotations(spec, meta);
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        volumes.iter().enumerate().for_each(|(i, volume)| self.volume(&format!("spec.volumes[{i}]"), volume));
        volumes.iter().for_each(|volume| super::volume_overlaps::warnings(volume, self.out));
        self.names(spec);
        self.fractions("spec.overhead", spec.overhead.as_ref());
        let containers = containers(spec);
        for (field, container) in &containers {
            self.container(field, container);
        }
        self.ports(&containers);
        if spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
            let text = "must be >= 0; negative values are invalid and will be treated as 1";
            self.push("spec.terminationGracePeriodSeconds", text);
        }
        if let Some(affinity) = &spec.affinity {
            self.affinity(affinity);
        }
    }

    fn placement(&mut self, spec: &PodSpec) {
        for key in spec.node_selector.iter().flat_map(BTreeMap::keys) {
            if let Some(text) = renamed(key) {
                self.push(&format!("spec.nodeSelector[{key}]"), text);
            }
        }
        let node = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = node.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
        const AFFINITY: &str = "spec.affinity.nodeAffinity";
        for (i, term) in required.iter().flat_map(|r| r.node_selector_terms.iter()).enumerate() {
            let at =
                format!("{AFFINITY}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{i}]");
            self.term(&at, term);
        }
        let preferred = node.and_then(|n| n.preferred_during_scheduling_ignored_during_execution.as_ref());
        for (i, term) in preferred.into_iter().flatten().enumerate() {
            let at = format!("{AFFINITY}.preferredDuringSchedulingIgnoredDuringExecution[{i}].preference");
            self.term(&at, &term.preference);
        }
        for (i, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
            let at = format!("spec.topologySpreadConstraints[{i}]");
            if let Some(text) = renamed(&constraint.topology_key) {
                self.push(&format!("{at}.topologyKey"), format!("{} is {text}", constraint.topology_key));
            }
            if constraint.label_selector.is_none() {
                self.push(&format!("{at}.labelSelector"), NULL_SELECTOR);
            }
        }
    }

    fn term(&mut self, field: &str, term: &NodeSelectorTerm) {
        for (i, expression) in term.match_expressions.iter().flatten().enumerate() {
            if let Some(text) = renamed(&expression.key) {
                let at = format!("{field}.matchExpressions[{i}].key");
                self.push(&at, format!("{} is {text}", expression.key));
            }
        }
    }

    fn affinity(&mut self, affinity: &Affinity) {
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
        let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
        let required = [
            (
                "podAffinity",
                near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            (
                "podAntiAffinity",
                far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
        ];
        for (part, terms) in required {
            for (i, term) in terms.into_iter().flatten().enumerate() {
                if term.label_selector.is_none() {
                    self.push(&format!("spec.affinity.{part}.{REQUIRED}[{i}].labelSelector"), NULL_SELECTOR);
                }
            }
        }
        let preferred = [
            (
                "podAffinity",
                near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            (
                "podAntiAffinity",
                far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
        ];
        for (part, terms) in preferred {
            for (i, term) in terms.into_iter().flatten().enumerate() {
                if term.pod_affinity_term.label_selector.is_none() {
                    let at = format!("spec.affinity.{part}.{PREFERRED}[{i}].podAffinityTerm.labelSelector");
                    self.push(&at, NULL_SELECTOR);
                }
            }
        }
    }

    fn annotations(&mut self, spec: &PodSpec, meta: &ObjectMeta) {
        let none = BTreeMap::new();
        let annotations = meta.annotations.as_ref().unwrap_or(&none);
        for (key, text) in ANNOTATIONS.iter().filter(|(key, _)| annotations.contains_key(*key)) {
            self.push(&format!("metadata.annotations[{key}]"), text);
        }
        let text = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
        let confined = spec.security_context.as_ref().is_some_and(|c| c.seccomp_profile.is_some());
        if !confined && annotations.contains_key(SECCOMP_POD) {
            self.push(&format!("metadata.annotations[{SECCOMP_POD}]"), text);
        }
        for (_, container) in containers(spec) {
            let confined = container.security_context.as_ref().is_some_and(|c| c.seccomp_profile.is_some());
            let key = format!("{SECCOMP_CONTAINER}{}", container.name);
            if !confined && annotations.contains_key(&key) {
                self.push(&format!("metadata.annotations[{key}]"), text);
            }
        }
    }

    fn volume(&mut self, field: &str, volume: &Volume) {
        for (part, there, text) in [
            (
                "photonPersistentDisk",
                volume.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if there {
                self.push(&format!("{field}.{part}"), text);
            }
        }
    }

    /// What is named twice, or not at all.
    fn names(&mut self, spec: &PodSpec) {
        let mut seen = HashSet::new();
        let aliases = spec.host_aliases.iter().flatten().map(|a| a.ip.as_str()).enumerate();
        for (i, ip) in aliases.filter(|(_, ip)| !seen.insert(*ip)) {
            self.push(&format!("spec.hostAliases[{i}].ip"), format!("duplicate ip {ip:?}"));
        }
        let secrets = || spec.image_pull_secrets.iter().flatten().map(|s| s.name.as_str()).enumerate();
        let mut seen = HashSet::new();
        for (i, name) in secrets().filter(|(_, name)| !seen.insert(*name)) {
            self.push(&format!("spec.imagePullSecrets[{i}].name"), format!("duplicate name {name:?}"));
        }
        for (i, name) in secrets().filter(|(_, name)| name.is_empty()) {
            self.push(&format!("spec.imagePullSecrets[{i}].name"), format!("invalid empty name {name:?}"));
        }
    }

    fn fractions(
        &mut self,
        field: &str,
        amounts: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    ) {
        for name in ["memory", "ephemeral-storage"] {
            let Some(amount) = amounts.and_then(|a| a.get(name)) else { continue };
            if let Ok(amount) = Quantity::parse(&amount.0)
                && !amount.is_whole()
            {
                let shown = amount.to_string();
                let text = format!("fractional byte value {shown:?} is invalid, must be an integer");
                self.push(&format!("{field}[{name}]"), text);
            }
        }
    }

    fn container(&mut self, field: &str, container: &Container) {
        let resources = container.resources.as_ref();
        self.fractions(&format!("{field}.resources.limits"), resources.and_then(|r| r.limits.as_ref()));
        self.fractions(&format!("{field}.resources.requests"), resources.and_then(|r| r.requests.as_ref()));
        let variables = container.env.as_deref().unwrap_or_default();
        let mut seen = HashSet::new();
        for (i, variable) in variables.iter().enumerate() {
            let repeated = !seen.insert(variable.name.as_str());
            let reference = format!("$({})", variable.name);
            let value = variable.value.as_deref().unwrap_or_default();
            // One that is made from the one before is meant so.
            let hides = variable.value_from.is_some() || value == reference || !value.contains(&reference);
            if hides && repeated {
                let name = &variable.name;
                let text =
                    format!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.push(&format!("{field}.env[{i}]"), text);
            }
        }
    }

    fn ports(&mut self, containers: &[(String, &Container)]) {
        let mut seen: Vec<(String, &ContainerPort)> = Vec::new();
        let mut alike: HashMap<(i32, &str), Vec<usize>> = HashMap::new();
        for (field, container) in containers {
            for (i, port) in container.ports.iter().flatten().enumerate() {
                let at = format!("{field}.ports[{i}]");
                let others = alike.entry(number(port)).or_default();
                for (other, held) in others.iter().take(MAX_CLASHES).map(|other| &seen[*other]) {
                    if let Some(text) = clash(port, held) {
                        self.push(&at, format!("{text} port definition with {}{other}", self.prefix));
                    }
                }
                others.push(seen.len());
                seen.push((at, port));
            }
        }
        let mut named: BTreeMap<&str, String> = BTreeMap::new();
        for (at, port) in &seen {
            let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) else { continue };
            match named.get(name) {
                Some(other) => {
                    let other = format!("{}{other}", self.prefix);
                    let text = format!(
                        "duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
                    );
                    self.push(at, text);
                }
                None => drop(named.insert(name, at.clone())),
            }
        }
    }
}

/// A port is compared with so many of its number: nobody is told of more.
const MAX_CLASHES: usize = 16;
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

fn renamed(label: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(known, _)| *known == label).map(|(_, text)| *text)
}

fn containers(spec: &PodSpec) -> Vec<(String, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, c)| (format!("spec.initContainers[{i}]"), c));
    let main = spec.containers.iter().enumerate().map(|(i, c)| (format!("spec.containers[{i}]"), c));
    init.chain(main).collect()
}

fn number(port: &ContainerPort) -> (i32, &str) {
    (port.container_port, port.protocol.as_deref().unwrap_or("TCP"))
}

/// How two definitions of one port are at odds.
fn clash(port: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let host = |p: &ContainerPort| (p.host_ip.clone().unwrap_or_default(), p.host_port.unwrap_or(0));
    let ((ip, number), (other_ip, other_number)) = (host(port), host(other));
    match () {
        () if (&ip, number) == (&other_ip, other_number) => Some("duplicate"),
        () if number == 0 || other_number == 0 => Some("overlapping"),
        () if number == other_number && ip.is_empty() != other_ip.is_empty() => Some("dangerously ambiguous"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let pod = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "x"}}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let mut told = of_pod(&pod);
        let annotated = told.extract_if(.., |text| text.starts_with("metadata.annotations")).count();
        assert_eq!(annotated, 1, "{told:?}");
        assert_eq!(told, expected);
    }

    #[test]
    fn what_does_not_do_what_it_seems_to_is_told() {
        check(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [{"name": "a",
                "env": [{"name": "X", "value": "1"}, {"name": "X", "value": "$(X)2"}, {"name": "X", "value": "3"}],
                "resources": {"limits": {"memory": "100m"}}, "ports": [{"containerPort": 80, "name": "w"}]},
                {"name": "b", "ports": [{"containerPort": 80, "name": "w"}]}]}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"X\", which may be dropped when using apply",
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[0]: duplicate port name \"w\" with spec.containers[0].ports[0], services and probes that \
                 select ports by name will use spec.containers[0].ports[0]",
            ],
        );
        check(
            json!({"containers": [], "imagePullSecrets": [{"name": ""}], "terminationGracePeriodSeconds": -1,
                "volumes": [{"name": "v", "projected": {"sources": [{}]}}, {"name": "g", "gitRepo": {"repository": "x"}}]}),
            &[
                "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "volume \"v\" (Projected) has no sources provided",
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        );
    }

    #[test]
    fn a_template_is_told_by_where_it_stands() {
        let template = json!({"spec": {"containers": [], "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]}});
        let template: PodTemplateSpec = serde_json::from_value(template).expect("a template");
        assert_eq!(
            of_template("spec.template", &template),
            [
                "spec.template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated \
                 since v1.17; use \"topology.kubernetes.io/zone\" instead",
                "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            ]
        );
    }
}
