//! A stack of layers mounted for as long as somebody works on it.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{Result, failed};

/// The kernel takes at most a page of options.
const OPTIONS_MAX_BYTES: usize = 4000;

/// Unmounts when dropped. `directory` holds `upper`, `work` and `merged`.
pub struct Overlay {
    directory: PathBuf,
    mounted: bool,
}

impl Overlay {
    /// Without layers there is nothing to mount: the merged directory is the upper one.
    pub fn mount(directory: &Path, lower: &[PathBuf]) -> Result<Self> {
        let mut overlay = Self { directory: directory.to_owned(), mounted: false };
        for part in [overlay.upper(), directory.join("work"), directory.join("merged")] {
            fs::create_dir_all(&part).map_err(failed("create", &part))?;
        }
        if !lower.is_empty() {
            mount_layers(
                lower,
                Some((&overlay.upper(), &directory.join("work"))),
                &directory.join("merged"),
            )?;
            overlay.mounted = true;
        }
        Ok(overlay)
    }

    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    pub fn merged(&self) -> PathBuf {
        if self.mounted { self.directory.join("merged") } else { self.upper() }
    }

    pub fn unmount(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) {
            let merged = self.directory.join("merged");
            unmount(&merged, UnmountFlags::DETACH).map_err(failed("unmount", &merged))?;
        }
        Ok(())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "a mount is left behind");
        }
    }
}

/// A read-only view of a stack, unmounted when dropped.
pub struct View {
    path: PathBuf,
    mounted: bool,
}

impl View {
    /// `directory` must exist and be empty.
    pub fn mount(directory: &Path, lower: &[PathBuf]) -> Result<Self> {
        match lower {
            [] => Ok(Self { path: directory.to_owned(), mounted: false }),
            // The kernel wants at least two layers where nothing is written.
            [only] => Ok(Self { path: only.clone(), mounted: false }),
            _ => {
                mount_layers(lower, None, directory)?;
                Ok(Self { path: directory.to_owned(), mounted: true })
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = unmount(&self.path, UnmountFlags::DETACH)
        {
            tracing::warn!(%error, path = ?self.path, "a mount is left behind");
        }
    }
}

fn mount_layers(lower: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> Result<()> {
    let escaped: Vec<String> = lower.iter().map(|path| escape(path)).collect();
    let mut opened: Vec<OwnedFd> = Vec::new();
    let layers = if escaped.iter().map(|path| path.len() + 1).sum::<usize>() < OPTIONS_MAX_BYTES / 2 {
        escaped.join(":")
    } else {
        // Many layers with long names: name them by descriptor, which is short.
        for path in lower {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            opened.push(openat(CWD, path, flags, Mode::empty()).map_err(failed("open", path))?);
        }
        opened.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect::<Vec<_>>().join(":")
    };
    let mut options = format!("lowerdir={layers}");
    if let Some((upper, work)) = writable {
        options += &format!(",upperdir={},workdir={}", escape(upper), escape(work));
        // A redirect would be a rename that no layer archive can say.
        if Path::new("/sys/module/overlay/parameters/redirect_dir").exists() {
            options += ",redirect_dir=off";
        }
    }
    let options = CString::new(options).map_err(failed("mount", target))?;
    mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .map_err(failed("mount overlay on", target))
}

fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}
