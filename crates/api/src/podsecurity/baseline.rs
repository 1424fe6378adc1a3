//! The baseline: what gives a pod its node.

use k8s_openapi::api::core::v1::SELinuxOptions;

use super::view::{Values, View, named, plural, quoted, setters};
use super::{Check, Violation};

/// In the order of their names, in which they are told.
pub const CHECKS: &[Check] = &[
    Check::new("appArmorProfile", 0, app_armor),
    Check::new("capabilities_baseline", 0, capabilities),
    Check::new("hostNamespaces", 0, host_namespaces),
    Check::new("hostPathVolumes", 0, host_paths),
    Check::new("hostPorts", 0, host_ports),
    Check::new("hostProbesAndHostLifecycle", 34, hosts),
    Check::new("privileged", 0, privileged),
    Check::new("procMount", 0, proc_mount_unless_own_users),
    Check::new("seLinuxOptions", 0, selinux),
    Check::new("seccompProfile_baseline", 0, seccomp),
    Check::new("sysctls", 0, sysctls),
    Check::new("windowsHostProcess", 0, host_process),
];

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Kernel parameters that a pod may set, and since when.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Types of SELinux that a pod may take, and since when.
const SELINUX_TYPES: &[(&str, u32)] = &[
    ("", 0),
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];

fn app_armor(view: &View<'_>) -> Option<Violation> {
    let bad_type = |t: &str| !matches!(t, "RuntimeDefault" | "Localhost");
    let mut values = Values::new();
    let of_pod = view.security.and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str());
    let of_pod = of_pod.filter(|t| bad_type(t));
    values.extend(of_pod.map(str::to_owned));
    let containers = view.insecure(|s| s.app_armor_profile.as_ref().is_some_and(|p| bad_type(&p.type_)));
    let types = view.parts.iter().filter_map(|p| p.security?.app_armor_profile.as_ref());
    values.extend(types.map(|p| p.type_.clone()).filter(|t| bad_type(t)));
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations: Vec<String> = (view.annotations.into_iter().flatten())
        .filter(|(key, value)| key.starts_with(APP_ARMOR_ANNOTATION) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let by_annotation = (!annotations.is_empty()).then(|| plural("annotation", annotations.len()));
    let who: Vec<String> = setters(of_pod.is_some(), &containers).into_iter().chain(by_annotation).collect();
    if who.is_empty() {
        return None;
    }
    let all: Vec<String> = values.into_iter().chain(annotations).collect();
    Violation::new(
        &plural("forbidden AppArmor profile", all.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(all)),
    )
}

fn capabilities(view: &View<'_>) -> Option<Violation> {
    let forbidden = |c: &&String| !CAPABILITIES.contains(&c.as_str());
    added_capabilities(view, forbidden).and_then(|detail| Violation::new("non-default capabilities", detail))
}

/// Which containers add capabilities that they may not.
pub fn added_capabilities(view: &View<'_>, forbidden: impl Fn(&&String) -> bool) -> Option<String> {
    let mut values = Values::new();
    for part in &view.parts {
        let added = part.security.and_then(|s| s.capabilities.as_ref()?.add.as_ref());
        values.extend(added.into_iter().flatten().filter(&forbidden).cloned());
    }
    let containers = view.insecure(|s| {
        let added = s.capabilities.as_ref().and_then(|c| c.add.as_ref());
        added.into_iter().flatten().any(|c| forbidden(&c))
    });
    (!containers.is_empty()).then(|| {
        let who = named("container", &containers);
        format!("{who} must not include {} in securityContext.capabilities.add", quoted(values))
    })
}

fn host_namespaces(view: &View<'_>) -> Option<Violation> {
    let spec = view.spec;
    let all = [
        ("hostNetwork=true", spec.host_network),
        ("hostPID=true", spec.host_pid),
        ("hostIPC=true", spec.host_ipc),
    ];
    let shared: Vec<&str> = all.into_iter().filter(|(_, on)| *on == Some(true)).map(|(t, _)| t).collect();
    if shared.is_empty() { None } else { Violation::new("host namespaces", shared.join(", ")) }
}

fn host_paths(view: &View<'_>) -> Option<Violation> {
    let volumes = view.spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let names: Vec<&str> = volumes.map(|v| v.name.as_str()).collect();
    if names.is_empty() { None } else { Violation::new("hostPath volumes", named("volume", &names)) }
}

fn host_ports(view: &View<'_>) -> Option<Violation> {
    let containers = view.bad(|p| !p.host_ports.is_empty());
    let ports: Values = view.parts.iter().flat_map(|p| &p.host_ports).map(ToString::to_string).collect();
    if containers.is_empty() {
        return None;
    }
    let uses = if containers.len() == 1 { "uses" } else { "use" };
    let (who, what) = (named("container", &containers), plural("hostPort", ports.len()));
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    Violation::new("hostPort", format!("{who} {uses} {what} {ports}"))
}

fn hosts(view: &View<'_>) -> Option<Violation> {
    let mut containers = view.bad(|p| !p.hosts.is_empty());
    containers.sort_unstable();
    containers.dedup();
    let hosts: Values = view.parts.iter().flat_map(|p| &p.hosts).map(ToString::to_string).collect();
    if containers.is_empty() {
        return None;
    }
    let uses = if containers.len() == 1 { "uses" } else { "use" };
    let (who, what) = (named("container", &containers), plural("probe or lifecycle host", hosts.len()));
    Violation::new("probe or lifecycle host", format!("{who} {uses} {what} {}", quoted(hosts)))
}

fn privileged(view: &View<'_>) -> Option<Violation> {
    let containers = view.insecure(|s| s.privileged == Some(true));
    if containers.is_empty() {
        return None;
    }
    let who = named("container", &containers);
    Violation::new("privileged", format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount_unless_own_users(view: &View<'_>) -> Option<Violation> {
    if view.since(35) && view.has_own_users() { None } else { proc_mount(view) }
}

pub fn proc_mount(view: &View<'_>) -> Option<Violation> {
    let bad = |mount: &&String| mount.as_str() != "Default";
    let containers = view.insecure(|s| s.proc_mount.as_ref().is_some_and(|m| bad(&m)));
    if containers.is_empty() {
        return None;
    }
    let values = view.parts.iter().filter_map(|p| p.security?.proc_mount.as_ref()).filter(bad);
    let values: Values = values.cloned().collect();
    let who = named("container", &containers);
    Violation::new("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(values)))
}

fn selinux(view: &View<'_>) -> Option<Violation> {
    let known = |t: &str| SELINUX_TYPES.iter().any(|(name, since)| *name == t && view.since(*since));
    let set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
    let bad_type = |o: &SELinuxOptions| !known(o.type_.as_deref().unwrap_or_default());
    let bad = |o: &SELinuxOptions| bad_type(o) || set(&o.user) || set(&o.role);
    let of_pod = view.security.and_then(|s| s.se_linux_options.as_ref());
    let containers = view.insecure(|s| s.se_linux_options.as_ref().is_some_and(bad));
    let who = setters(of_pod.is_some_and(bad), &containers)?;
    let of_parts = view.parts.iter().filter_map(|p| p.security?.se_linux_options.as_ref());
    let all: Vec<&SELinuxOptions> = of_pod.into_iter().chain(of_parts).collect();
    let types: Values = all.iter().filter(|o| bad_type(o)).filter_map(|o| o.type_.clone()).collect();
    let mut faults = Vec::new();
    if !types.is_empty() {
        faults.push(format!("{} {}", plural("type", types.len()), quoted(types)));
    }
    if all.iter().any(|o| set(&o.user)) {
        faults.push("user may not be set".into());
    }
    if all.iter().any(|o| set(&o.role)) {
        faults.push("role may not be set".into());
    }
    let faults = faults.join("; ");
    Violation::new("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {faults}"))
}

pub fn is_seccomp(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

fn seccomp(view: &View<'_>) -> Option<Violation> {
    if view.since(19) { explicit_seccomp(view) } else { seccomp_annotations(view) }
}

/// Profiles that are set and may not be.
pub fn explicit_seccomp(view: &View<'_>) -> Option<Violation> {
    let bad = |t: &&str| !is_seccomp(t);
    let of_pod = view.security.and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
    let of_pod = of_pod.filter(bad);
    let containers = view.insecure(|s| s.seccomp_profile.as_ref().is_some_and(|p| !is_seccomp(&p.type_)));
    let who = setters(of_pod.is_some(), &containers)?;
    let of_parts =
        view.parts.iter().filter_map(|p| Some(p.security?.seccomp_profile.as_ref()?.type_.as_str()));
    let values: Values = of_pod.into_iter().chain(of_parts.filter(bad)).map(str::to_owned).collect();
    Violation::new(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values)),
    )
}

/// As profiles were named before there was a field for them.
fn seccomp_annotations(view: &View<'_>) -> Option<Violation> {
    let keys = view.parts.iter().map(|p| format!("{SECCOMP_OF_CONTAINER}{}", p.name));
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let bad: Values = std::iter::once(SECCOMP_OF_POD.to_owned())
        .chain(keys)
        .filter_map(|key| {
            let value = view.annotations?.get(&key).filter(|v| !allowed(v))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", bad.len());
    let bad = bad.into_iter().collect::<Vec<_>>().join(", ");
    Violation::new("seccompProfile", format!("forbidden {what} {bad}"))
}

fn sysctls(view: &View<'_>) -> Option<Violation> {
    let allowed = |name: &str| SYSCTLS.iter().any(|(n, since)| *n == name && view.since(*since));
    let set = view.security.and_then(|s| s.sysctls.as_ref()).into_iter().flatten();
    let bad: Vec<&str> = set.map(|s| s.name.as_str()).filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { Violation::new("forbidden sysctls", bad.join(", ")) }
}

fn host_process(view: &View<'_>) -> Option<Violation> {
    let of_pod = view.security.and_then(|s| s.windows_options.as_ref()?.host_process) == Some(true);
    let containers = view.insecure(|s| s.windows_options.as_ref().and_then(|w| w.host_process) == Some(true));
    let who = setters(of_pod, &containers)?;
    Violation::new(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
