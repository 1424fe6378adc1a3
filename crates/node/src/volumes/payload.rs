//! Files that appear all at once: written to a fresh directory that `..data` is then pointed at, so that a reader sees
//! either the old or the new whole. Names at the top are links through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::ownership::give_to_group;
use super::{VolumeError, io_at};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileContent {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Relative path to content.
pub type Payload = BTreeMap<String, FileContent>;

pub const MODE_DEFAULT: u32 = 0o644;
pub const DIRECTORY_MODE: u32 = 0o755;
const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Makes `directory` hold exactly `payload`. Returns whether anything changed.
pub fn write(
    directory: &Path,
    payload: &Payload,
    fs_group: Option<u32>,
    now: Timestamp,
) -> Result<bool, VolumeError> {
    // The group's bits belong to what is wanted, so that a second look finds it unchanged.
    let payload: &Payload = &payload
        .iter()
        .map(|(path, content)| {
            let mode = content.mode | if fs_group.is_some() { 0o440 } else { 0 };
            (path.clone(), FileContent { bytes: content.bytes.clone(), mode })
        })
        .collect();
    for path in payload.keys() {
        let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        if path.is_empty() || !plain || path.starts_with("..") {
            return Err(VolumeError::Escape(path.clone()));
        }
    }
    fs::create_dir_all(directory).map_err(io_at("create", directory))?;
    set_mode(directory, DIRECTORY_MODE)?;
    let old = fs::read_link(directory.join(DATA)).ok();
    if let Some(old) = &old
        && read(&directory.join(old)).is_some_and(|current| current == *payload)
    {
        return Ok(false);
    }
    let stamp = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), base::id::name_suffix(8));
    let fresh = directory.join(&stamp);
    fs::create_dir(&fresh).map_err(io_at("create", &fresh))?;
    set_mode(&fresh, 0o755)?;
    for (path, content) in payload {
        let file = fresh.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(io_at("create", parent))?;
        }
        fs::write(&file, &content.bytes).map_err(io_at("write", &file))?;
        set_mode(&file, content.mode)?;
    }
    if let Some(group) = fs_group {
        give_to_group(&fresh, group, true)?;
    }
    let link = directory.join(DATA_NEW);
    remove_if_there(&link)?;
    symlink(&stamp, &link).map_err(io_at("link", &link))?;
    fs::rename(&link, directory.join(DATA)).map_err(io_at("publish", &fresh))?;
    link_names(directory, payload)?;
    if let Some(old) = old {
        let old = directory.join(old);
        fs::remove_dir_all(&old).map_err(io_at("remove", &old))?;
    }
    Ok(true)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io_at("change the mode of", path))
}

fn remove_if_there(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The first part of every path is a link through `..data`; links that lead nowhere any more go.
fn link_names(directory: &Path, payload: &Payload) -> Result<(), VolumeError> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let wanted: BTreeSet<String> = payload.keys().map(|path| first(path)).collect();
    for name in &wanted {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(io_at("link", &link))?;
        }
    }
    for entry in fs::read_dir(directory).map_err(io_at("list", directory))? {
        let entry = entry.map_err(io_at("list", directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// What a published directory holds; `None` if it cannot be read, which only means it is written again.
fn read(directory: &Path) -> Option<Payload> {
    let mut found = Payload::new();
    let mut pending = vec![(String::new(), directory.to_owned())];
    while let Some((prefix, directory)) = pending.pop() {
        for entry in fs::read_dir(directory).ok()? {
            let entry = entry.ok()?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().ok()?.is_dir() {
                pending.push((format!("{name}/"), entry.path()));
                continue;
            }
            let mode = entry.metadata().ok()?.permissions().mode() & 0o7777;
            found.insert(name, FileContent { bytes: fs::read(entry.path()).ok()?, mode });
        }
    }
    Some(found)
}
