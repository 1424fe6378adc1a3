//! One container of a pod as the runtime wants it.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use container::runtime::{ContainerConfig, ImageRef, Mount, Rootfs};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::context::{Context, PodKey};
use super::record::{hash_of, keys};
use crate::env::{EnvError, EnvInput, environment, expand};
use crate::images::Image;
use crate::objects::Objects;
use crate::resources::container_resources;
use crate::security::{SecurityError, security};
use crate::volumes::Prepared;
use crate::volumes::mounts::{MountError, mounts};

const MESSAGE_PATH_DEFAULT: &str = "/dev/termination-log";

/// What can be wrong with a container before it is even made: `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("write {}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Everything the configuration is made of.
pub struct ConfigInput<'a> {
    pub context: &'a Context,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub image: &'a Image,
    pub objects: &'a Objects,
    pub volumes: &'a BTreeMap<String, Prepared>,
    pub pod_ip: Ipv4Addr,
    /// The container whose processes an ephemeral one wants to see.
    pub target: Option<String>,
}

/// The id of a run: always the same for the same attempt, so that a repeated call finds what the first one made.
pub fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    base::id::sha256_hex(format!("{uid}/{name}/{attempt}").as_bytes())
}

/// Where the log of a run is, below the pod's log directory.
pub fn log_path(name: &str, attempt: u32) -> PathBuf {
    Path::new(name).join(format!("{attempt}.log"))
}

pub fn container_config(input: &ConfigInput<'_>, rootfs: Rootfs) -> Result<ContainerConfig, ConfigError> {
    let ConfigInput { context, pod, container, attempt, image, .. } = *input;
    let key = PodKey::of(pod);
    let fields = context.field_context(Some(input.pod_ip));
    let services = context.services.list();
    let env = environment(&EnvInput {
        pod,
        container,
        fields: &fields,
        objects: input.objects,
        services: &services,
    })?;
    let lookup = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let mut all_mounts = mounts(container, input.volumes, &env)?;
    let message_file = message_file(context, &key, container, attempt)?;
    add_node_files(&mut all_mounts, context, &key, container, &message_file);
    let mut labels = BTreeMap::from([
        (keys::POD_UID.to_owned(), key.uid.clone()),
        (keys::POD_NAME.to_owned(), key.name.clone()),
        (keys::POD_NAMESPACE.to_owned(), key.namespace.clone()),
    ]);
    labels.insert(keys::CONTAINER_NAME.to_owned(), container.name.clone());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned());
    let annotations = BTreeMap::from([
        (keys::HASH.to_owned(), hash_of(container)),
        (keys::MESSAGE_FILE.to_owned(), message_file.to_string_lossy().into_owned()),
        (keys::MESSAGE_POLICY.to_owned(), policy),
        (keys::IMAGE_NAME.to_owned(), image.name.clone()),
    ]);
    Ok(ContainerConfig {
        id: container_id(&key.uid, &container.name, attempt),
        name: container.name.clone(),
        attempt,
        image: ImageRef {
            reference: container.image.clone().unwrap_or_default(),
            id: image.repo_digest.clone(),
        },
        image_config: image.config.clone(),
        rootfs,
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env,
        mounts: all_mounts,
        devices: Vec::new(),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: container_resources(pod, container, context.capacity.memory_bytes),
        security: security(pod, container, image, &context.seccomp_dir())?,
        stop_signal: container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()),
        target_container: input.target.clone(),
        labels,
        annotations,
    })
}

/// An empty file anybody may write, mounted where the container leaves its last words.
fn message_file(
    context: &Context,
    key: &PodKey,
    container: &Container,
    attempt: u32,
) -> Result<PathBuf, ConfigError> {
    let directory = context.config.pod_dir(&key.uid).join("containers").join(&container.name);
    let path = directory.join(attempt.to_string());
    let failed = |source| ConfigError::File { path: path.clone(), source };
    fs::create_dir_all(&directory).map_err(failed)?;
    fs::write(&path, b"").map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(path)
}

/// Hosts, resolver and the last words, unless a volume is mounted there.
fn add_node_files(
    all: &mut Vec<Mount>,
    context: &Context,
    key: &PodKey,
    container: &Container,
    message_file: &Path,
) {
    let directory = context.config.pod_dir(&key.uid);
    let message_path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    let readonly_root = container.security_context.as_ref().and_then(|s| s.read_only_root_filesystem);
    let files = [
        (directory.join("etc-hosts"), "/etc/hosts", readonly_root == Some(true)),
        (directory.join("resolv.conf"), "/etc/resolv.conf", readonly_root == Some(true)),
        (message_file.to_owned(), message_path.unwrap_or(MESSAGE_PATH_DEFAULT), false),
    ];
    for (host_path, container_path, readonly) in files {
        if !all.iter().any(|mount| mount.container_path == Path::new(container_path)) {
            let container_path = PathBuf::from(container_path);
            all.push(Mount { host_path, container_path, readonly, ..Mount::default() });
        }
    }
}
