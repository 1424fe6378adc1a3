//! `fsGroup`: a volume's files belong to the group, and the group may use them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use super::{VolumeError, io_at};

const DIRECTORY_MASK: u32 = 0o2110;

/// Hands `path` and what is below it to `group`. Symbolic links are changed themselves, never followed.
pub fn give_to_group(path: &Path, group: u32, readonly: bool) -> Result<(), VolumeError> {
    let metadata = fs::symlink_metadata(path).map_err(io_at("inspect", path))?;
    if metadata.gid() != group {
        lchown(path, None, Some(group)).map_err(io_at("change the group of", path))?;
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    let access = if readonly { 0o440 } else { 0o660 };
    let extra = if metadata.is_dir() { access | DIRECTORY_MASK } else { access };
    let wanted = metadata.mode() & 0o7777 | extra;
    // A change of owner clears the set-group bit, so this comes last.
    fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(io_at("change the mode of", path))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path).map_err(io_at("list", path))? {
            give_to_group(&entry.map_err(io_at("list", path))?.path(), group, readonly)?;
        }
    }
    Ok(())
}
