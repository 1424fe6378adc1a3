//! The local provisioner: a volume is a directory of one node, made when the first pod needs it and removed with the
//! volume.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base::constants::{LOCAL_PROVISIONER, annotations, labels};
use base::id::fnv1a_32;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::reference;
use super::protection::PV_FINALIZER;
use crate::meta;

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("claim.spec.selector is not supported for dynamic provisioning")]
    Selector,
    #[error("volume mode {0:?} is not supported: a directory is no block device")]
    Mode(String),
    #[error("node {0:?} not found")]
    NoNode(String),
    #[error("no node is there to make the volume on")]
    NoNodes,
    #[error("{path:?} is not a directory of a volume below {base:?}")]
    Outside { path: PathBuf, base: PathBuf },
    #[error("could not remove {path:?}: {source}")]
    Remove {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The volume for a claim. Its name follows from the claim, so that it is made once.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    nodes: &[Arc<Node>],
    volumes_dir: &Path,
) -> Result<PersistentVolume, LocalError> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err(LocalError::Selector);
    }
    if let Some(mode) = spec.volume_mode.as_ref().filter(|mode| *mode != "Filesystem") {
        return Err(LocalError::Mode(mode.clone()));
    }
    let node = choose(claim, nodes)?;
    let hostname = meta::labels(&node.metadata).get(labels::HOSTNAME).cloned();
    let hostname = hostname.unwrap_or_else(|| meta::name(&node.metadata).to_owned());
    let name = format!("pvc-{}", meta::uid(&claim.metadata));
    let (namespace, claim_name) = (meta::namespace(&claim.metadata), meta::name(&claim.metadata));
    let path = volumes_dir.join(format!("{name}_{namespace}_{claim_name}"));
    let requirement = NodeSelectorRequirement {
        key: labels::HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![hostname]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..Default::default() };
    let policy = class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into());
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some(
                [(annotations::PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())].into(),
            ),
            finalizers: Some(vec![PV_FINALIZER.into()]),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: spec.resources.and_then(|r| r.requests),
            claim_ref: Some(reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: path.to_string_lossy().into_owned(),
                type_: Some("DirectoryOrCreate".into()),
            }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(policy),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..Default::default()
        }),
        status: None,
    })
}

/// The node that the scheduler selected; for immediate binding any, by the claim's uid.
fn choose<'a>(claim: &PersistentVolumeClaim, nodes: &'a [Arc<Node>]) -> Result<&'a Arc<Node>, LocalError> {
    if let Some(selected) = meta::annotation(&claim.metadata, annotations::SELECTED_NODE) {
        let node = nodes.iter().find(|n| n.metadata.name.as_deref() == Some(selected));
        return node.ok_or_else(|| LocalError::NoNode(selected.to_owned()));
    }
    let open = |node: &&Arc<Node>| node.spec.as_ref().and_then(|s| s.unschedulable) != Some(true);
    let mut open: Vec<_> = nodes.iter().filter(open).collect();
    open.sort_by_key(|n| n.metadata.name.clone());
    let luck = usize::try_from(fnv1a_32(meta::uid(&claim.metadata).as_bytes())).unwrap_or(0);
    let at = luck.checked_rem(open.len()).ok_or(LocalError::NoNodes)?;
    open.get(at).copied().ok_or(LocalError::NoNodes)
}

/// The directory of a volume, if it is one that this provisioner could have made: directly below the directory of all
/// volumes. Whatever else a volume's path says is never removed.
pub fn directory(volume: &PersistentVolume, volumes_dir: &Path) -> Result<PathBuf, LocalError> {
    let path = volume
        .spec
        .as_ref()
        .and_then(|s| s.host_path.as_ref())
        .map(|h| PathBuf::from(&h.path))
        .unwrap_or_default();
    let outside = || LocalError::Outside { path: path.clone(), base: volumes_dir.to_owned() };
    let rest = path.strip_prefix(volumes_dir).map_err(|_| outside())?;
    let mut parts = rest.components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) if name.to_string_lossy().starts_with("pvc-") => Ok(path),
        _ => Err(outside()),
    }
}

/// Removes a directory and all in it; links in it are removed, not followed.
pub async fn remove(path: PathBuf) -> Result<(), LocalError> {
    let removed = tokio::task::spawn_blocking({
        let path = path.clone();
        move || std::fs::remove_dir_all(path)
    });
    match removed.await.map_err(io::Error::other).and_then(|result| result) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LocalError::Remove { path, source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_on_the_selected_node_and_nothing_else_is_ever_removed() {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.uid = Some("u".into());
        claim.metadata.name = Some("data".into());
        claim.metadata.namespace = Some("ns".into());
        claim.metadata.annotations = Some([(annotations::SELECTED_NODE.to_owned(), "n2".to_owned())].into());
        let node = |name: &str| {
            let mut node = Node::default();
            node.metadata.name = Some(name.into());
            Arc::new(node)
        };
        let base = Path::new("/v");
        let class = StorageClass::default();
        let mut made = volume(&claim, &class, &[node("n1"), node("n2")], base).expect("n2 is there");
        assert_eq!(meta::name(&made.metadata), "pvc-u");
        assert_eq!(directory(&made, base).expect("its own"), PathBuf::from("/v/pvc-u_ns_data"));
        assert!(matches!(volume(&claim, &class, &[node("n1")], base), Err(LocalError::NoNode(_))));
        for path in ["/v", "/v/..", "/v/pvc-a/../../etc", "/etc", "/v/pvc-a/b", "/v/other", "", "/vv/pvc-x"] {
            let source = made.spec.as_mut().and_then(|s| s.host_path.as_mut()).expect("set");
            source.path = path.into();
            assert!(directory(&made, base).is_err(), "{path}");
        }
    }
}
