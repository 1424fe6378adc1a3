//! Changing files below a directory without ever leaving it, whatever links lie there: an image's own links are
//! followed as its programs would follow them.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags, chmodat, chownat,
    linkat, lsetxattr, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A root directory.
pub struct Tree {
    root: OwnedFd,
}

/// A name in an open directory: the place where something is, or is to be.
pub struct Place {
    parent: OwnedFd,
    name: OsString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Tree {
    pub fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: openat(CWD, root, DIRECTORY, Mode::empty())? })
    }

    fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, DIRECTORY, Mode::empty(), ResolveFlags::IN_ROOT)
    }

    /// The place a path names, its parents made where they are missing. `None`: the root itself.
    pub fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let clean = clean(path)?;
        let Some(name) = clean.file_name() else { return Ok(None) };
        let parent = self.make_directories(clean.parent().unwrap_or(Path::new("")))?;
        Ok(Some(Place { parent, name: name.to_owned() }))
    }

    /// Makes a directory and its parents as far as they are missing, for root and readable by all.
    pub fn make_directories(&self, path: &Path) -> io::Result<OwnedFd> {
        let clean = clean(path)?;
        match self.directory(&clean) {
            Err(Errno::NOENT) => {}
            result => return Ok(result?),
        }
        let mut walked = PathBuf::new();
        for name in &clean {
            let parent = self.directory(&walked)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            walked.push(name);
        }
        Ok(self.directory(&walked)?)
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(openat2(&self.root, clean(path)?, flags, Mode::empty(), ResolveFlags::IN_ROOT)?.into())
    }

    /// Whether the path leads to a directory, links followed.
    pub fn is_dir(&self, path: &Path) -> bool {
        clean(path).is_ok_and(|path| self.directory(&path).is_ok())
    }
}

/// Relative and without `.`; a `..` is refused rather than understood.
pub fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir => return Err(io::Error::other(format!("path {path:?} leaves the root"))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(result)
}

impl Place {
    pub fn child(parent: OwnedFd, name: &OsStr) -> Self {
        Self { parent, name: name.to_owned() }
    }

    pub fn file_type(&self) -> io::Result<Option<FileType>> {
        match statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away whatever is there, with what is below it.
    pub fn clear(&self) -> io::Result<()> {
        match self.file_type()? {
            None => Ok(()),
            Some(FileType::Directory) => {
                self.clear_children(&|_| Ok(true))?;
                Ok(unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR)?)
            }
            Some(_) => Ok(unlinkat(&self.parent, &self.name, AtFlags::empty())?),
        }
    }

    /// Takes away the children that `wanted` says of.
    pub fn clear_children(&self, wanted: &dyn Fn(&OsStr) -> io::Result<bool>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&self.parent, &self.name, flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." && wanted(&name)? {
                names.push(name);
            }
        }
        for name in names {
            Self::child(directory.try_clone()?, &name).clear()?;
        }
        Ok(())
    }

    /// A directory that is there already is kept.
    pub fn make_directory(&self, mode: u32) -> io::Result<()> {
        if self.file_type()? != Some(FileType::Directory) {
            self.clear()?;
            mkdirat(&self.parent, &self.name, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    pub fn create_file(&self, reader: &mut dyn io::Read) -> io::Result<()> {
        self.clear()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.parent, &self.name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(reader, &mut file)?;
        Ok(())
    }

    pub fn create_symlink(&self, target: &Path) -> io::Result<()> {
        self.clear()?;
        Ok(symlinkat(target, &self.parent, &self.name)?)
    }

    pub fn create_node(&self, kind: FileType, major: u32, minor: u32) -> io::Result<()> {
        self.clear()?;
        let device = rustix::fs::makedev(major, minor);
        Ok(mknodat(&self.parent, &self.name, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// A second name for what is at `other`; a link is itself given the name, not followed.
    pub fn link_to(&self, other: &Self) -> io::Result<()> {
        let same = self.name == other.name && same_directory(&self.parent, &other.parent)?;
        if same {
            return Ok(());
        }
        self.clear()?;
        Ok(linkat(&other.parent, &other.name, &self.parent, &self.name, AtFlags::empty())?)
    }

    pub fn set_owner(&self, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        Ok(chownat(&self.parent, &self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Not for links, which have no mode.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(chmodat(&self.parent, &self.name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    pub fn set_modified(&self, seconds: i64, nanoseconds: i64) -> io::Result<()> {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(utimensat(&self.parent, &self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub fn set_xattr(&self, name: &str, value: &[u8]) -> io::Result<()> {
        // There is no call that takes a directory's descriptor; its entry in /proc is not followed any further.
        let path =
            Path::new("/proc/self/fd").join(self.parent.as_fd().as_raw_fd().to_string()).join(&self.name);
        Ok(lsetxattr(path, name, value, XattrFlags::empty())?)
    }
}

fn same_directory(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Removes a directory of ours. Not existing is success.
pub fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
