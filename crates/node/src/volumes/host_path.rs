//! `hostPath`: a path of the node itself.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::Volume;

use super::{Plugin, Prepared, Preparing, VolumeContext, VolumeError, io_at};

pub struct HostPath;

impl Plugin for HostPath {
    fn name(&self) -> &'static str {
        "host-path"
    }

    fn takes(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn prepare<'a>(&'a self, _: &'a VolumeContext<'a>, volume: &'a Volume) -> Preparing<'a> {
        Box::pin(async move {
            let Some(source) = &volume.host_path else {
                return Err(VolumeError::UnknownKind(volume.name.clone()));
            };
            let path = Path::new(&source.path);
            check(path, source.type_.as_deref().unwrap_or_default())?;
            Ok(Prepared { host_path: path.to_owned(), readonly: false })
        })
    }
}

/// Makes or verifies what the type demands. Without a type a missing directory is made when it is mounted, as ever.
pub fn check(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let found = fs::metadata(path).ok();
    let create_directory = || {
        fs::create_dir_all(path).map_err(io_at("create", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(io_at("change the mode of", path))
    };
    let is = |wanted: &'static str, holds: fn(&fs::FileType) -> bool| {
        if found.as_ref().is_some_and(|m| holds(&m.file_type())) {
            Ok(())
        } else {
            Err(VolumeError::HostPathType { path: path.to_owned(), wanted })
        }
    };
    match kind {
        "DirectoryOrCreate" if found.is_none() => create_directory(),
        "" if found.is_none() => create_directory(),
        "" => Ok(()),
        "Directory" | "DirectoryOrCreate" => is("directory", fs::FileType::is_dir),
        "FileOrCreate" if found.is_none() => fs::write(path, b"").map_err(io_at("create", path)),
        "File" | "FileOrCreate" => is("file", fs::FileType::is_file),
        "Socket" => is("socket file", |kind| kind.is_socket()),
        "CharDevice" => is("character device", |kind| kind.is_char_device()),
        "BlockDevice" => is("block device", |kind| kind.is_block_device()),
        _ => Err(VolumeError::HostPathType { path: path.to_owned(), wanted: "known type" }),
    }
}
