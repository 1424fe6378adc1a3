//! `secret`: the keys of a Secret as files. They lie in memory, in the pod's directory, which only root can enter.

use k8s_openapi::api::core::v1::{KeyToPath, Volume};

use super::config_map::{mode_of, pick};
use super::payload::{self, Payload};
use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError, memory};

pub struct SecretVolume;

impl Plugin for SecretVolume {
    fn name(&self) -> &'static str {
        "secret"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let path = context.directory_of(self.name(), &volume.name);
            if let Some(source) = &volume.secret {
                let name = source.secret_name.as_deref().unwrap_or_default();
                let optional = source.optional.unwrap_or(false);
                let mode = mode_of(source.default_mode);
                let payload = project(context, name, optional, source.items.as_deref(), mode)?;
                memory::ensure(&path, payload::DIRECTORY_MODE, None)?;
                payload::write(&path, &payload, context.fs_group, context.now)?;
            }
            Ok(Prepared { host_path: path, readonly: true })
        })
    }
}

/// The files one Secret gives.
pub fn project(
    context: &VolumeContext<'_>,
    name: &str,
    optional: bool,
    items: Option<&[KeyToPath]>,
    mode: u32,
) -> Result<Payload, VolumeError> {
    let secret = match context.objects.secret(name) {
        Ok(secret) => secret,
        Err(_) if optional => return Ok(Payload::new()),
        Err(error) => return Err(error.into()),
    };
    let keys: Vec<(String, Vec<u8>)> =
        secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    pick(items, optional, mode, &keys, VolumeError::SecretKey)
}
