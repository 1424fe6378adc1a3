//! Directories in memory: for what is secret, which must not reach the disk, and for volumes that ask for it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::MountFlags;

use super::{VolumeError, io_at};

/// Makes a directory in memory, unless it is one. Whether it is new.
///
/// One that holds something on disk is left: it was made by an earlier version, and is what running containers see. Without its
/// mount (the machine was down) one of ours is empty.
pub fn ensure(path: &Path, mode: u32, limit_milli: Option<i128>) -> Result<bool, VolumeError> {
    fs::create_dir_all(path).map_err(io_at("create", path))?;
    let device =
        |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).map_err(io_at("look at", path));
    let is_mounted = device(path)? != device(path.parent().unwrap_or(path))?;
    let is_empty = || fs::read_dir(path).map(|mut entries| entries.next().is_none());
    if is_mounted || !is_empty().map_err(io_at("read", path))? {
        return Ok(false);
    }
    let mut options = format!("mode={mode:o}");
    if let Some(milli) = limit_milli {
        options += &format!(",size={}", milli / 1000);
    }
    let options = CString::new(options).unwrap_or_default();
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
        .map_err(|error| io_at("mount memory on", path)(error.into()))?;
    Ok(true)
}
