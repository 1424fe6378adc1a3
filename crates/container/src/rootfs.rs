//! The container's root: an overlay of read-only layers and one writable directory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::runtime::Rootfs;

/// The kernel takes at most a page of options.
const OPTIONS_MAX_BYTES: usize = 4000;

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("root without layers")]
    NoLayers,
    #[error("{operation} {path:?}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

fn failed<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> RootfsError {
    move |source| RootfsError::Io { operation, path: path.to_owned(), source: source.into() }
}

/// Mounts it, once: a root that is mounted already is left alone.
pub fn mount_overlay(rootfs: &Rootfs) -> Result<(), RootfsError> {
    if rootfs.lower.is_empty() {
        return Err(RootfsError::NoLayers);
    }
    for directory in [&rootfs.upper, &rootfs.work, &rootfs.merged] {
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
    }
    if is_mount_point(&rootfs.merged) {
        return Ok(());
    }
    let escaped: Vec<String> = rootfs.lower.iter().map(|path| escape(path)).collect();
    let mut opened: Vec<OwnedFd> = Vec::new();
    let lower = if escaped.iter().map(|path| path.len() + 1).sum::<usize>() < OPTIONS_MAX_BYTES / 2 {
        escaped.join(":")
    } else {
        // Many layers with long names: name them by descriptor, which is short.
        for path in &rootfs.lower {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            opened.push(openat(CWD, path, flags, Mode::empty()).map_err(failed("open", path))?);
        }
        opened.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect::<Vec<_>>().join(":")
    };
    let options =
        format!("lowerdir={lower},upperdir={},workdir={}", escape(&rootfs.upper), escape(&rootfs.work));
    let options = std::ffi::CString::new(options).map_err(failed("mount", &rootfs.merged))?;
    mount("overlay", &rootfs.merged, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(failed("mount overlay on", &rootfs.merged))
}

fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

/// Lazily, so that a process that still holds a file of it cannot keep its name. Not mounted is success.
pub fn unmount_all(path: &Path) -> Result<(), RootfsError> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed("unmount", path)(error)),
        }
    }
}

pub fn is_mount_point(path: &Path) -> bool {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&text).iter().any(|point| point == path)
}

/// In the order they were mounted.
pub fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(|point| PathBuf::from(unescape(point))).collect()
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Makes a directory (and its parents) inside a root, following links as the container would.
pub fn create_dir_inside(root: &Path, path: &Path) -> Result<(), RootfsError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd = openat(CWD, root, flags, Mode::empty()).map_err(failed("open", root))?;
    let mut walked = PathBuf::from(".");
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let parent = openat2(&root_fd, &walked, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .map_err(failed("open", &walked))?;
        match mkdirat(parent.as_fd(), name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("create", path)(error)),
        }
        walked.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        assert_eq!(escape(Path::new("/a:b,c\\d")), "/a\\:b\\,c\\\\d");
        assert_eq!(mount_points("1 2 0:3 / /a\\040b rw - tmpfs t rw"), [PathBuf::from("/a b")]);
    }
}
