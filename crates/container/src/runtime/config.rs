//! What the caller says a sandbox or a container is to be: plain data, as in CRI.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What all containers of one sandbox share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxConfig {
    /// Chosen by the caller, unique on the node: `[A-Za-z0-9_.-]`, at most 64 characters.
    pub id: String,
    /// The uid of whatever the sandbox belongs to; several attempts share it.
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub attempt: u32,
    /// Empty: the host's UTS namespace is kept.
    pub hostname: String,
    /// Where `ContainerConfig::log_path` is relative to.
    pub log_directory: PathBuf,
    /// Kept and reported; the caller writes and mounts `resolv.conf`.
    pub dns: Dns,
    /// A pinned network namespace, made by the caller. `None`: the network namespace of the caller.
    pub network_namespace: Option<PathBuf>,
    /// All containers see each other's processes.
    pub share_pid: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    pub sysctls: BTreeMap<String, String>,
    /// The cgroup below which each container gets one named after its id; relative to the cluster's own root cgroup.
    pub cgroup_parent: String,
    /// Of `cgroup_parent`: what all containers together may take.
    pub resources: Resources,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Chosen by the caller, unique on the node: `[A-Za-z0-9_.-]`, at most 64 characters.
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub image: ImageRef,
    /// What the image itself says; `command`, `args`, `env`, `working_dir` and `security.user` override it.
    pub image_config: ImageConfig,
    pub rootfs: Rootfs,
    /// Replaces the image's entrypoint, and then also its `cmd`.
    pub command: Vec<String>,
    /// Replaces the image's `cmd`.
    pub args: Vec<String>,
    /// Empty: the image's.
    pub working_dir: String,
    /// In order; a later one of the same name wins, and all win over the image's.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Relative to `SandboxConfig::log_directory`. Empty: no log is kept.
    pub log_path: PathBuf,
    pub stdin: bool,
    /// Close stdin when the first attached client leaves.
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: Security,
    /// Overrides the image's stop signal (`SIGTERM`, `TERM`, `15`).
    pub stop_signal: Option<String>,
    /// Share the PID namespace of this other container of the sandbox (ephemeral debug containers).
    pub target_container: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// Which image a container was made from; reported back, never interpreted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRef {
    /// As the user wrote it.
    pub reference: String,
    /// The resolved digest or id.
    pub id: String,
}

/// The parts of an OCI image configuration that shape the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`; looked up in the root's `/etc/passwd` and `/etc/group`.
    pub user: String,
    pub working_dir: String,
    pub stop_signal: Option<String>,
}

/// An overlay file system to be mounted as the container's root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// The read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The directory it is mounted on. All of these exist when the container is created.
    pub merged: PathBuf,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Must exist for a bind; ignored for a tmpfs.
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub readonly: bool,
    pub propagation: Propagation,
    pub kind: MountKind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A directory or file of the host, with what is mounted below it.
    #[default]
    Bind,
    Tmpfs {
        /// `None`: half of the memory, the kernel's default.
        size_bytes: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    pub host_path: PathBuf,
    /// Empty: the same path.
    pub container_path: PathBuf,
    /// Out of `r`, `w`, `m`.
    pub permissions: String,
}

/// cgroup v1 terms, as in CRI; translated where v2 rules. `None` leaves the kernel's default (or, in an update, the
/// present value).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; negative: no limit.
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    /// Protected from reclaim (v2 `memory.min` when set); no effect on v1.
    pub memory_request_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    pub oom_score_adj: Option<i32>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// All capabilities and devices, nothing masked, no seccomp.
    pub privileged: bool,
    /// `None`: the image's user.
    pub user: Option<UserSpec>,
    pub supplemental_groups: Vec<u32>,
    pub capabilities: Capabilities,
    pub readonly_rootfs: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// `None`: the usual ones. Empty: nothing is masked.
    pub masked_paths: Option<Vec<String>>,
    /// `None`: the usual ones. Empty: nothing is read-only.
    pub readonly_paths: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserSpec {
    /// Without a gid: the primary group `/etc/passwd` names, or 0.
    Id { uid: u32, gid: Option<u32> },
    /// Looked up in the root's `/etc/passwd`.
    Name { username: String, gid: Option<u32> },
    /// The image's user with this group.
    Group { gid: u32 },
}

/// Changes to the default set. Names with or without `CAP_`; `ALL` is understood.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub add: Vec<String>,
    pub drop: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// A profile in the JSON form of Docker and OCI.
    Localhost(PathBuf),
}
