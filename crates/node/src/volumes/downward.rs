//! `downwardAPI`: fields of the pod itself as files.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume};

use super::config_map::mode_of;
use super::payload::{self, FileContent, Payload};
use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError};
use crate::env::{field_value, resource_value};

pub struct DownwardApi;

impl Plugin for DownwardApi {
    fn name(&self) -> &'static str {
        "downward-api"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let path = context.directory_of(self.name(), &volume.name);
            if let Some(source) = &volume.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                let payload = project(context, items, mode_of(source.default_mode))?;
                payload::write(&path, &payload, context.fs_group, context.now)?;
            }
            Ok(Prepared { host_path: path, readonly: true })
        })
    }
}

pub fn project(
    context: &VolumeContext<'_>,
    items: &[DownwardAPIVolumeFile],
    mode: u32,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            field_value(context.pod, context.fields, &field.field_path)
                .ok_or_else(|| VolumeError::Field(field.field_path.clone()))?
        } else if let Some(resource) = &item.resource_field_ref {
            let spec = context.pod.spec.as_ref();
            let name = resource.container_name.as_deref().unwrap_or_default();
            let container = spec.and_then(|spec| crate::resources::find_container(spec, name));
            container
                .and_then(|container| resource_value(&container, resource, context.fields))
                .ok_or_else(|| VolumeError::Field(resource.resource.clone()))?
        } else {
            continue;
        };
        let mode = item.mode.map_or(mode, |own| mode_of(Some(own)));
        payload.insert(item.path.clone(), FileContent { bytes: text.into_bytes(), mode });
    }
    Ok(payload)
}
