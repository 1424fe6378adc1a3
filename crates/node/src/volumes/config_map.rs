//! `configMap`: the keys of a ConfigMap as files.

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Volume};

use super::payload::{self, FileContent, MODE_DEFAULT, Payload};
use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError};

pub struct ConfigMapVolume;

impl Plugin for ConfigMapVolume {
    fn name(&self) -> &'static str {
        "configmap"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let path = context.directory_of(self.name(), &volume.name);
            if let Some(source) = &volume.config_map {
                let optional = source.optional.unwrap_or(false);
                let mode = mode_of(source.default_mode);
                let payload = project(context, &source.name, optional, source.items.as_deref(), mode)?;
                payload::write(&path, &payload, context.fs_group, context.now)?;
            }
            Ok(Prepared { host_path: path, readonly: true })
        })
    }
}

pub fn mode_of(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(MODE_DEFAULT)
}

/// The files one ConfigMap gives.
pub fn project(
    context: &VolumeContext<'_>,
    name: &str,
    optional: bool,
    items: Option<&[KeyToPath]>,
    mode: u32,
) -> Result<Payload, VolumeError> {
    let map = match context.objects.config_map(name) {
        Ok(map) => map,
        Err(_) if optional => return Ok(Payload::new()),
        Err(error) => return Err(error.into()),
    };
    pick(items, optional, mode, &keys_of(map), VolumeError::ConfigKey)
}

fn keys_of(map: &ConfigMap) -> Vec<(String, Vec<u8>)> {
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

/// All keys under their names, or the listed ones under their paths.
pub fn pick(
    items: Option<&[KeyToPath]>,
    optional: bool,
    mode: u32,
    keys: &[(String, Vec<u8>)],
    missing: fn(String) -> VolumeError,
) -> Result<Payload, VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file =
            |(key, bytes): &(String, Vec<u8>)| (key.clone(), FileContent { bytes: bytes.clone(), mode });
        return Ok(keys.iter().map(file).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match keys.iter().find(|(key, _)| *key == item.key) {
            Some((_, bytes)) => {
                let mode = item.mode.map_or(mode, |own| mode_of(Some(own)));
                payload.insert(item.path.clone(), FileContent { bytes: bytes.clone(), mode });
            }
            None if optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(payload)
}
