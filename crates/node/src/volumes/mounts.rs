//! From prepared volumes to the mounts of one container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use container::runtime::{Mount, MountKind, Propagation};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{Prepared, VolumeError, io_at};
use crate::env::expand;

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot find volume {0:?} to mount into container")]
    NoVolume(String),
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}: {source}")]
    SubPath {
        mount: String,
        container: String,
        #[source]
        source: Box<VolumeError>,
    },
}

/// The mounts in the order they must be made: what lies deeper comes later.
pub fn mounts(
    container: &Container,
    prepared: &BTreeMap<String, Prepared>,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, MountError> {
    let mut all = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = prepared.get(&mount.name).ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
        let host_path = match sub_path(mount, environment) {
            Some(sub) => within(&volume.host_path, &sub).map_err(|source| MountError::SubPath {
                mount: mount.name.clone(),
                container: container.name.clone(),
                source: Box::new(source),
            })?,
            None => volume.host_path.clone(),
        };
        all.push(Mount {
            host_path,
            container_path: PathBuf::from(&mount.mount_path),
            readonly: volume.readonly || mount.read_only.unwrap_or(false),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
            kind: MountKind::Bind,
        });
    }
    all.sort_by_key(|mount| mount.container_path.components().count());
    Ok(all)
}

fn sub_path(mount: &VolumeMount, environment: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| environment.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let fixed = mount.sub_path.clone().filter(|path| !path.is_empty());
    let pattern = mount.sub_path_expr.as_deref().filter(|path| !path.is_empty());
    fixed.or_else(|| pattern.map(|pattern| expand(pattern, lookup)))
}

/// A path inside a volume, made if it is missing. Links inside the volume are resolved now and must stay inside, for
/// whoever can write to the volume chose them.
fn within(volume: &Path, sub: &str) -> Result<PathBuf, VolumeError> {
    let relative = Path::new(sub);
    if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(VolumeError::Escape(sub.to_owned()));
    }
    let root = fs::canonicalize(volume).map_err(io_at("resolve", volume))?;
    let mut at = root.clone();
    for part in relative.components().filter(|c| matches!(c, Component::Normal(_))) {
        let next = at.join(part);
        if fs::symlink_metadata(&next).is_err() {
            fs::create_dir(&next).map_err(io_at("create", &next))?;
            fs::set_permissions(&next, fs::Permissions::from_mode(0o750 | 0o005))
                .map_err(io_at("change the mode of", &next))?;
        }
        at = fs::canonicalize(&next).map_err(io_at("resolve", &next))?;
        if !at.starts_with(&root) {
            return Err(VolumeError::Escape(sub.to_owned()));
        }
    }
    Ok(at)
}
