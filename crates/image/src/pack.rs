//! A directory as a layer archive: sorted, so that the same tree is always the same bytes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::unpack::is_reserved_xattr;

/// Writes what is below `root`: an overlay's upper directory, whose marks of removal become whiteouts, or any other.
pub fn pack(root: &Path, writer: impl Write) -> io::Result<()> {
    let mut packer = Packer { tar: Builder::new(writer), links: HashMap::new() };
    packer.children(root, Path::new(""))?;
    packer.tar.into_inner()?.flush()
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn children(&mut self, directory: &Path, name: &Path) -> io::Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        names.into_iter().try_for_each(|child| self.entry(&directory.join(&child), &name.join(&child)))
    }

    fn entry(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            let mut hidden = b".wh.".to_vec();
            hidden.extend_from_slice(name.file_name().unwrap_or_default().as_bytes());
            return self.empty(&name.with_file_name(OsStr::from_bytes(&hidden)));
        }
        if kind.is_socket() {
            return Ok(());
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&(metadata.dev(), metadata.ino())).cloned() {
                let mut header = header(&metadata, EntryType::Link);
                return self.tar.append_link(&mut header, name, first);
            }
            self.links.insert((metadata.dev(), metadata.ino()), name.to_owned());
        }
        self.extensions(path, &metadata)?;
        if kind.is_dir() {
            let mut header = header(&metadata, EntryType::Directory);
            self.tar.append_data(&mut header, name.join(""), io::empty())?;
            if xattr(path, "trusted.overlay.opaque")?.as_deref() == Some(b"y") {
                self.empty(&name.join(".wh..wh..opq"))?;
            }
            return self.children(path, name);
        }
        if kind.is_symlink() {
            let mut header = header(&metadata, EntryType::Symlink);
            return self.tar.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() {
            let mut header = header(&metadata, EntryType::Regular);
            header.set_size(metadata.len());
            return self.tar.append_data(&mut header, name, File::open(path)?);
        }
        let entry_type = match (kind.is_fifo(), kind.is_block_device()) {
            (true, _) => EntryType::Fifo,
            (_, true) => EntryType::Block,
            _ => EntryType::Char,
        };
        let mut header = header(&metadata, entry_type);
        header.set_device_major(rustix::fs::major(metadata.rdev()))?;
        header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        self.tar.append_data(&mut header, name, io::empty())
    }

    fn empty(&mut self, name: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        self.tar.append_data(&mut header, name, io::empty())
    }

    fn extensions(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let mut extensions = Vec::new();
        if metadata.mtime_nsec() != 0 {
            extensions.push((
                "mtime".to_owned(),
                format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()).into_bytes(),
            ));
        }
        for name in xattr_names(path)? {
            if !is_reserved_xattr(&name)
                && !name.starts_with("security.selinux")
                && let Some(value) = xattr(path, &name)?
            {
                extensions.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        let borrowed = extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        if extensions.is_empty() { Ok(()) } else { self.tar.append_pax_extensions(borrowed) }
    }
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(metadata.mtime().max(0) as u64);
    header.set_size(0);
    header
}

fn xattr_names(path: &Path) -> io::Result<Vec<String>> {
    let mut buffer = vec![0u8; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        result => result?,
    };
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

fn xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0u8; 64 * 1024];
    match rustix::fs::lgetxattr(path, name, &mut buffer[..]) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
