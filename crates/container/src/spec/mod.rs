//! From a container's configuration to the OCI runtime specification that says the same. Pure: what must be looked up
//! on the machine (user, devices, namespaces) is in [`SpecInput`].

pub mod capabilities;
mod devices;
mod mounts;
pub mod user;

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Process,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};

use crate::runtime::{ContainerConfig, Propagation, RuntimeError, SandboxConfig};
pub use devices::{HostDevice, host_devices, lookup_device};
use user::ResolvedUser;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where a container sees its groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Everything the specification depends on besides the configuration itself.
pub struct SpecInput<'a> {
    pub sandbox: &'a SandboxConfig,
    pub config: &'a ContainerConfig,
    pub user: &'a ResolvedUser,
    /// Holds what the containers of the sandbox share: `shm`, `hostname`.
    pub sandbox_dir: &'a Path,
    pub pid_namespace: PidNamespace,
    pub cgroup_path: &'a str,
    /// Its own group is to look like the root of all groups.
    pub cgroup_namespace: bool,
    /// The names of the hierarchies under `/sys/fs/cgroup`; none where there is one for all (v2).
    pub cgroup_hierarchies: Vec<String>,
    pub devices: Vec<HostDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PidNamespace {
    New,
    Join(PathBuf),
    Host,
}

pub fn build(input: &SpecInput<'_>) -> Result<Spec, RuntimeError> {
    let invalid = |message: String| RuntimeError::InvalidConfig { id: input.config.id.clone(), message };
    let args = arguments(input.config);
    if args.is_empty() {
        return Err(invalid("no command specified".into()));
    }
    assemble(input, args).map_err(|error| invalid(error.to_string()))
}

/// The command line: `command` replaces entrypoint and cmd of the image, `args` only its cmd.
pub fn arguments(config: &ContainerConfig) -> Vec<String> {
    let image = &config.image_config;
    let (first, rest) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &config.args),
        (false, _) => (&config.command, &config.args),
    };
    first.iter().chain(rest).cloned().collect()
}

/// `NAME=value` in order, each name once; later ones win over earlier ones and over the image's.
pub fn environment(sandbox: &SandboxConfig, config: &ContainerConfig, home: &str) -> Vec<String> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.into(), format!("HOME={home}")];
    if config.tty {
        env.push("TERM=xterm".into());
    }
    if !sandbox.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", sandbox.hostname));
    }
    let own = config.env.iter().map(|(name, value)| format!("{name}={value}"));
    let mut result: Vec<String> = Vec::new();
    env.extend(config.image_config.env.iter().cloned().chain(own));
    for entry in env {
        let name = entry.split_once('=').map_or(entry.as_str(), |(name, _)| name);
        let same = |known: &&mut String| known.split_once('=').map_or(known.as_str(), |(n, _)| n) == name;
        match result.iter_mut().find(same) {
            Some(known) => *known = entry,
            None => result.push(entry),
        }
    }
    result
}

pub fn working_dir(config: &ContainerConfig) -> &str {
    let own = Some(config.working_dir.as_str()).filter(|dir| !dir.is_empty());
    own.or(Some(config.image_config.working_dir.as_str()).filter(|dir| !dir.is_empty())).unwrap_or("/")
}

fn assemble(input: &SpecInput<'_>, args: Vec<String>) -> Result<Spec, OciSpecError> {
    let security = &input.config.security;
    let root = RootBuilder::default()
        .path(&*input.config.rootfs.merged)
        .readonly(security.readonly_rootfs)
        .build()?;
    let own = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let usual = |chosen: &Option<Vec<String>>, usual: &[&str]| match (chosen, security.privileged) {
        (Some(paths), _) => paths.clone(),
        (None, true) => Vec::new(),
        (None, false) => own(usual),
    };
    // Of several hierarchies each is a mount of its own, which the options of the one above do not reach. Whoever may write
    // there lifts its own limits, or freezes itself so that nothing ends it.
    let mut readonly_paths = usual(&security.readonly_paths, &READONLY_PATHS);
    if !security.privileged && !input.cgroup_hierarchies.is_empty() {
        readonly_paths.push(CGROUPS.to_owned());
        readonly_paths.extend(input.cgroup_hierarchies.iter().map(|name| format!("{CGROUPS}/{name}")));
    }
    let resources = LinuxResourcesBuilder::default().devices(devices::cgroup_rules(input)?).build()?;
    let shared = input.config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional);
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(input)?)
        .cgroups_path(PathBuf::from("/").join(input.cgroup_path.trim_start_matches('/')))
        .resources(resources)
        .devices(devices::nodes(&input.devices)?)
        .masked_paths(usual(&security.masked_paths, &MASKED_PATHS))
        .readonly_paths(readonly_paths)
        .rootfs_propagation(if shared { "shared" } else { "slave" })
        .build()?;
    let mut spec = SpecBuilder::default()
        .version("1.1.0")
        .root(root)
        .mounts(mounts::all(input)?)
        .process(process(input, args)?)
        .linux(linux)
        .build()?;
    // The builder invents one; the shim has set the sandbox's.
    spec.set_hostname(None);
    Ok(spec)
}

/// User, capabilities and seccomp are not said: our own last steps set them, in the order that seccomp needs (it must be
/// installed while capabilities are still held), which libcontainer would not keep.
fn process(input: &SpecInput<'_>, args: Vec<String>) -> Result<Process, OciSpecError> {
    let mut process = ProcessBuilder::default()
        .terminal(input.config.tty)
        .args(args)
        .env(environment(input.sandbox, input.config, &input.user.home))
        .cwd(PathBuf::from(working_dir(input.config)))
        .build()?;
    process.set_no_new_privileges(None).set_rlimits(None).set_capabilities(None);
    Ok(process)
}

/// IPC and UTS are not named: the shim lives in the sandbox's own, and its children inherit them.
fn namespaces(input: &SpecInput<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let of = |typ| LinuxNamespaceBuilder::default().typ(typ);
    let mut all = vec![of(LinuxNamespaceType::Mount).build()?];
    if let Some(path) = &input.sandbox.network_namespace {
        all.push(of(LinuxNamespaceType::Network).path(&**path).build()?);
    }
    if input.cgroup_namespace {
        all.push(of(LinuxNamespaceType::Cgroup).build()?);
    }
    match &input.pid_namespace {
        PidNamespace::New => all.push(of(LinuxNamespaceType::Pid).build()?),
        PidNamespace::Join(path) => all.push(of(LinuxNamespaceType::Pid).path(&**path).build()?),
        PidNamespace::Host => {}
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{ImageConfig, Mount};

    fn config() -> ContainerConfig {
        let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
        ContainerConfig {
            id: "c".into(),
            image_config: ImageConfig {
                entrypoint: own(&["entry"]),
                cmd: own(&["cmd"]),
                env: own(&["A=image", "PATH=/bin"]),
                ..ImageConfig::default()
            },
            ..ContainerConfig::default()
        }
    }

    fn input<'a>(
        sandbox: &'a SandboxConfig,
        config: &'a ContainerConfig,
        user: &'a ResolvedUser,
    ) -> SpecInput<'a> {
        SpecInput {
            sandbox,
            config,
            user,
            sandbox_dir: Path::new("/s"),
            pid_namespace: PidNamespace::New,
            cgroup_path: "k/c",
            cgroup_namespace: false,
            cgroup_hierarchies: Vec::new(),
            devices: Vec::new(),
        }
    }

    #[test]
    fn command_and_args_override_the_image() {
        let check = |command: &[&str], args: &[&str], expect: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect();
            let config = ContainerConfig { command: own(command), args: own(args), ..config() };
            assert_eq!(arguments(&config), expect);
        };
        check(&[], &[], &["entry", "cmd"]);
        check(&[], &["a"], &["entry", "a"]);
        check(&["c"], &[], &["c"]);
        check(&["c"], &["a"], &["c", "a"]);
    }

    #[test]
    fn environment_names_each_variable_once() {
        let sandbox = SandboxConfig { hostname: "h".into(), ..SandboxConfig::default() };
        let config =
            ContainerConfig { env: vec![("A".into(), "1".into()), ("A".into(), "2".into())], ..config() };
        assert_eq!(environment(&sandbox, &config, "/root"), ["PATH=/bin", "HOME=/root", "HOSTNAME=h", "A=2"]);
    }

    #[test]
    fn a_spec_says_what_the_configuration_says() {
        let sandbox =
            SandboxConfig { network_namespace: Some("/run/netns/x".into()), ..SandboxConfig::default() };
        let mount = Mount {
            host_path: "/data".into(),
            container_path: "/dev/shm".into(),
            readonly: true,
            ..Mount::default()
        };
        let config = ContainerConfig { mounts: vec![mount], ..config() };
        let spec = build(&input(&sandbox, &config, &ResolvedUser::default())).expect("builds");
        let process = spec.process().as_ref().expect("process");
        assert_eq!(process.no_new_privileges(), None);
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.namespaces().as_ref().map(Vec::len), Some(3));
        assert_eq!(linux.masked_paths().as_ref().map(Vec::len), Some(12));
        let mounts = spec.mounts().as_ref().expect("mounts");
        let shm: Vec<_> = mounts.iter().filter(|m| m.destination() == Path::new("/dev/shm")).collect();
        assert_eq!(shm.len(), 1, "the configured mount replaces the default one");
        assert!(shm[0].options().as_ref().is_some_and(|options| options.contains(&"ro".to_owned())));
    }

    #[test]
    fn no_command_is_an_error() {
        let config = ContainerConfig { image_config: ImageConfig::default(), ..config() };
        let error =
            build(&input(&SandboxConfig::default(), &config, &ResolvedUser::default())).expect_err("refused");
        assert_eq!(error.to_string(), "invalid configuration of \"c\": no command specified");
    }
}
