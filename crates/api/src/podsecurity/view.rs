//! A pod as the checks see it: containers of all three sorts alike, and words for lists of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, LifecycleHandler, PodSecurityContext, PodSpec, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Version;

pub struct Part<'a> {
    pub name: &'a str,
    pub security: Option<&'a SecurityContext>,
    pub host_ports: Vec<i32>,
    /// Other hosts that its probes and hooks ask.
    pub hosts: Vec<&'a str>,
}

pub struct View<'a> {
    pub annotations: Option<&'a BTreeMap<String, String>>,
    pub spec: &'a PodSpec,
    pub security: Option<&'a PodSecurityContext>,
    pub parts: Vec<Part<'a>>,
    pub version: Version,
}

impl<'a> View<'a> {
    pub fn new(meta: &'a ObjectMeta, spec: &'a PodSpec, version: Version) -> Self {
        let plain = spec.init_containers.iter().flatten().chain(&spec.containers).map(plain);
        let parts = plain.chain(spec.ephemeral_containers.iter().flatten().map(ephemeral)).collect();
        let (annotations, security) = (meta.annotations.as_ref(), spec.security_context.as_ref());
        Self { annotations, spec, security, parts, version }
    }

    pub fn since(&self, minor: u32) -> bool {
        self.version >= Version::Minor(minor)
    }

    pub fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Root in a user namespace of its own is nobody outside.
    pub fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// The names of the parts that a test finds wanting.
    pub fn bad(&self, is_bad: impl Fn(&Part<'a>) -> bool) -> Vec<&'a str> {
        self.parts.iter().filter(|p| is_bad(p)).map(|p| p.name).collect()
    }

    /// The parts whose security context is found wanting.
    pub fn insecure(&self, is_bad: impl Fn(&SecurityContext) -> bool) -> Vec<&'a str> {
        self.bad(|part| part.security.is_some_and(&is_bad))
    }
}

fn plain(container: &Container) -> Part<'_> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().flat_map(|probe| {
        let http = probe.http_get.as_ref().and_then(|g| g.host.as_deref());
        [http, probe.tcp_socket.as_ref().and_then(|s| s.host.as_deref())]
    });
    let hooks = container.lifecycle.iter().flat_map(|l| [&l.post_start, &l.pre_stop]).flatten();
    let hosts = probes.chain(hooks.flat_map(handler)).flatten().filter(|h| !h.is_empty()).collect();
    let ports = container.ports.iter().flatten().filter_map(|p| p.host_port).filter(|p| *p != 0);
    let (name, security) = (container.name.as_str(), container.security_context.as_ref());
    Part { name, security, host_ports: ports.collect(), hosts }
}

/// Neither ports nor probes nor hooks are allowed in those.
fn ephemeral(container: &EphemeralContainer) -> Part<'_> {
    let (name, security) = (container.name.as_str(), container.security_context.as_ref());
    Part { name, security, host_ports: Vec::new(), hosts: Vec::new() }
}

fn handler(handler: &LifecycleHandler) -> [Option<&str>; 2] {
    let http = handler.http_get.as_ref().and_then(|g| g.host.as_deref());
    [http, handler.tcp_socket.as_ref().and_then(|s| s.host.as_deref())]
}

pub fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    items.join(", ")
}

pub fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// `container "a"`, `containers "a", "b"`.
pub fn named(word: &str, names: &[&str]) -> String {
    format!("{} {}", plural(word, names.len()), quoted(names))
}

/// Who sets something: the pod, some of its containers, or both.
pub fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let containers = (!containers.is_empty()).then(|| named("container", containers));
    let all: Vec<String> = pod.then(|| "pod".to_owned()).into_iter().chain(containers).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

pub type Values = BTreeSet<String>;
