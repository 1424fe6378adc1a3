//! `persistentVolumeClaim`: the claim's volume, if this node can mount it: a path of the host, or a local volume.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use kube::Api;

use super::ownership::give_to_group;
use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError, host_path};

pub struct Claim;

impl Plugin for Claim {
    fn name(&self) -> &'static str {
        "persistent-volume-claim"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let pod_name = context.pod.metadata.name.as_deref().unwrap_or_default();
            let (name, readonly) = match &volume.persistent_volume_claim {
                Some(source) => (source.claim_name.clone(), source.read_only.unwrap_or(false)),
                // A generic ephemeral volume's claim is made by a controller under this name.
                None => (format!("{pod_name}-{}", volume.name), false),
            };
            let host_path = locate(context, &name).await?;
            if let Some(group) = context.fs_group.filter(|_| !readonly) {
                give_to_group(&host_path, group, false)?;
            }
            Ok(Prepared { host_path, readonly })
        })
    }
}

async fn locate(context: &VolumeContext<'_>, name: &str) -> Result<PathBuf, VolumeError> {
    let namespace = context.pod.metadata.namespace.as_deref().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
    let claim = claims.get_opt(name).await.map_err(VolumeError::Api)?;
    let claim = claim.ok_or_else(|| VolumeError::ClaimNotFound(name.to_owned()))?;
    let bound = claim.status.and_then(|status| status.phase).as_deref() == Some("Bound");
    let volume_name = claim.spec.and_then(|spec| spec.volume_name).filter(|_| bound);
    let volume_name = volume_name.ok_or_else(|| VolumeError::ClaimNotBound(name.to_owned()))?;
    let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
    let volume = volumes.get_opt(&volume_name).await.map_err(VolumeError::Api)?;
    let spec = volume.and_then(|volume| volume.spec);
    if let Some(source) = spec.as_ref().and_then(|spec| spec.host_path.as_ref()) {
        let path = PathBuf::from(&source.path);
        host_path::check(&path, source.type_.as_deref().unwrap_or("DirectoryOrCreate"))?;
        return Ok(path);
    }
    if let Some(source) = spec.as_ref().and_then(|spec| spec.local.as_ref()) {
        let path = PathBuf::from(&source.path);
        host_path::check(&path, "Directory")?;
        return Ok(path);
    }
    Err(VolumeError::Unmountable(volume_name))
}
