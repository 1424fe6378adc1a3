//! `projected`: several sources in one directory, among them the service account's token.

use k8s_openapi::api::core::v1::{Volume, VolumeProjection};

use super::config_map::mode_of;
use super::payload::{self, FileContent, Payload};
use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError, config_map, downward, memory, secret};

/// A token is the pod's own: with a group or a user of its own it must be able to read it.
const TOKEN_MODE: u32 = 0o600;
const TOKEN_MODE_SHARED: u32 = 0o640;

pub struct Projected;

impl Plugin for Projected {
    fn name(&self) -> &'static str {
        "projected"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let path = context.directory_of(self.name(), &volume.name);
            if let Some(projected) = &volume.projected {
                let mode = mode_of(projected.default_mode);
                let mut payload = Payload::new();
                for source in projected.sources.iter().flatten() {
                    payload.extend(project(context, source, mode).await?);
                }
                // A token of the pod's is among them nearly always.
                memory::ensure(&path, payload::DIRECTORY_MODE, None)?;
                payload::write(&path, &payload, context.fs_group, context.now)?;
            }
            Ok(Prepared { host_path: path, readonly: true })
        })
    }
}

async fn project(
    context: &VolumeContext<'_>,
    source: &VolumeProjection,
    mode: u32,
) -> Result<Payload, VolumeError> {
    if let Some(map) = &source.config_map {
        let optional = map.optional.unwrap_or(false);
        return config_map::project(context, &map.name, optional, map.items.as_deref(), mode);
    }
    if let Some(of) = &source.secret {
        let optional = of.optional.unwrap_or(false);
        return secret::project(context, &of.name, optional, of.items.as_deref(), mode);
    }
    if let Some(fields) = &source.downward_api {
        return downward::project(context, fields.items.as_deref().unwrap_or_default(), mode);
    }
    if let Some(token) = &source.service_account_token {
        let bytes = context.tokens.token(context, token).await?.into_bytes();
        let content = FileContent { bytes, mode: token_mode(context, mode) };
        return Ok(Payload::from([(token.path.clone(), content)]));
    }
    Ok(Payload::new())
}

fn token_mode(context: &VolumeContext<'_>, mode: u32) -> u32 {
    let spec = context.pod.spec.as_ref();
    let users = spec.map(|spec| {
        let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
        let of_each = spec
            .containers
            .iter()
            .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
        of_each.collect::<Vec<_>>()
    });
    let someone_else = users.is_some_and(|users| users.iter().any(|user| user.is_some_and(|uid| uid != 0)));
    // Owned by root here, so a container that is not root reads it by the mode for everybody, as the volume says.
    match (context.fs_group, someone_else) {
        (Some(_), _) => TOKEN_MODE_SHARED,
        (None, true) => mode,
        (None, false) => {
            if mode == payload::MODE_DEFAULT {
                mode
            } else {
                TOKEN_MODE
            }
        }
    }
}
