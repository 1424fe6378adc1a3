//! Volumes: one file a kind, one table. Each makes a directory (or file) of the host ready and says where it is; the
//! container's mounts are derived from that.

mod claim;
mod config_map;
mod downward;
mod empty_dir;
mod host_path;
mod memory;
pub mod mounts;
mod ownership;
pub mod payload;
mod projected;
mod secret;
mod token;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use kube::Client;

use crate::env::FieldContext;
use crate::objects::{ObjectError, Objects};

pub use token::TokenCache;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("configmap references non-existent config key: {0}")]
    ConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("hostPath type check failed: {} is not a {wanted}", path.display())]
    HostPathType { path: PathBuf, wanted: &'static str },
    #[error("persistentvolumeclaim {0:?} not found")]
    ClaimNotFound(String),
    #[error("persistentvolumeclaim {0:?} is not bound")]
    ClaimNotBound(String),
    #[error("persistentvolume {0:?} has no source this node can mount")]
    Unmountable(String),
    #[error("volume {0:?} is of a kind this node does not know")]
    UnknownKind(String),
    #[error("failed to fetch token: {0}")]
    Token(#[source] kube::Error),
    #[error("ask the API server: {0}")]
    Api(#[source] kube::Error),
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("path {0:?} of a volume leads outside of it")]
    Escape(String),
}

pub(crate) fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { what, path, source }
}

/// All that a volume may depend on.
pub struct VolumeContext<'a> {
    pub pod: &'a Pod,
    pub objects: &'a Objects,
    pub fields: &'a FieldContext,
    pub client: &'a Client,
    pub tokens: &'a TokenCache,
    /// `<pod>/volumes`
    pub directory: PathBuf,
    pub fs_group: Option<u32>,
    pub now: Timestamp,
}

impl VolumeContext<'_> {
    /// Where this volume's own directory is, as other node agents lay it out.
    fn directory_of(&self, plugin: &str, volume: &str) -> PathBuf {
        self.directory.join(format!("kubernetes.io~{plugin}")).join(volume)
    }
}

/// A volume that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub host_path: PathBuf,
    pub readonly: bool,
}

type Preparing<'a> = BoxFuture<'a, Result<Prepared, VolumeError>>;

/// A kind of volume.
trait Plugin: Sync {
    /// The name other node agents use in paths.
    fn name(&self) -> &'static str;
    fn takes(&self, volume: &Volume) -> bool;
    /// Makes it ready, or brings it up to date.
    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a>;
}

static PLUGINS: [&dyn Plugin; 7] = [
    &empty_dir::EmptyDir,
    &host_path::HostPath,
    &config_map::ConfigMapVolume,
    &secret::SecretVolume,
    &downward::DownwardApi,
    &projected::Projected,
    &claim::Claim,
];

/// Which volume failed, and how.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
pub struct SetUpError {
    pub volume: String,
    #[source]
    pub source: VolumeError,
}

/// Makes all volumes of a pod ready. Repeating it brings those up to date whose source changed.
pub async fn prepare_all(context: &VolumeContext<'_>) -> Result<BTreeMap<String, Prepared>, SetUpError> {
    let mut ready = BTreeMap::new();
    let volumes = context.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        let prepared = match PLUGINS.iter().find(|plugin| plugin.takes(volume)) {
            Some(plugin) => plugin.prepare(context, volume).await,
            None => Err(VolumeError::UnknownKind(volume.name.clone())),
        };
        let prepared = prepared.map_err(|source| SetUpError { volume: volume.name.clone(), source })?;
        ready.insert(volume.name.clone(), prepared);
    }
    Ok(ready)
}

/// Whether any volume follows an object that can change, or holds a token that runs out.
pub fn any_followed(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(|v| {
        v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
    })
}

/// Removes what `prepare_all` made below a pod's directory: mounts first.
pub fn release_all(directory: &Path) -> Result<(), VolumeError> {
    let table = Path::new("/proc/self/mountinfo");
    let mounts = std::fs::read_to_string(table).map_err(io_at("read", table))?;
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = below.filter(|mount| mount.starts_with(directory)).collect();
    below.reverse();
    for mount in below {
        rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH)
            .map_err(|error| io_at("unmount", mount)(error.into()))?;
    }
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", directory)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
