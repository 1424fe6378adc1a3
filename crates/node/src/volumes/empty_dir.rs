//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use k8s_openapi::api::core::v1::Volume;

use super::ownership::give_to_group;
use super::{Plugin, Prepared, Preparing, VolumeContext, io_at, memory};
use crate::resources::amount_milli;

const MODE: u32 = 0o777;

pub struct EmptyDir;

impl Plugin for EmptyDir {
    fn name(&self) -> &'static str {
        "empty-dir"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn prepare<'a>(&'a self, context: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let path = context.directory_of(self.name(), &volume.name);
            // Contents belong to the pod: what is there already is left as it is.
            let mut is_new = !path.exists();
            fs::create_dir_all(&path).map_err(io_at("create", &path))?;
            let source = volume.empty_dir.as_ref();
            if source.and_then(|s| s.medium.as_deref()) == Some("Memory") {
                is_new |= memory::ensure(
                    &path,
                    MODE,
                    source.and_then(|s| s.size_limit.as_ref()).map(amount_milli),
                )?;
            }
            if is_new {
                fs::set_permissions(&path, fs::Permissions::from_mode(MODE))
                    .map_err(io_at("change the mode of", &path))?;
                if let Some(group) = context.fs_group {
                    give_to_group(&path, group, false)?;
                }
            }
            Ok(Prepared { host_path: path, readonly: false })
        })
    }
}
