//! Layer archives onto a tree. The tree is the mounted stack below with an empty directory on top, so that everything a
//! layer leaves unsaid (parents it does not name, links it writes through) is as the layers below have it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use rustix::fs::FileType;
use tar::{Archive, Entry, EntryType};

use crate::tree::{Owner, Place, Tree, clean};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Docker's own marks of its old storage.
const RESERVED: &[u8] = b".wh..wh.";

/// Undoes whatever compression the first bytes tell of.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = io::BufReader::with_capacity(256 * 1024, reader);
    let start = io::BufRead::fill_buf(&mut reader)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Ok(Box::new(Frames { rest: Some(reader), current: None }));
    }
    for (magic, name) in [(&b"BZh"[..], "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z'][..], "xz")] {
        if start.starts_with(magic) {
            return Err(io::Error::other(format!("{name} compression is not supported")));
        }
    }
    Ok(Box::new(reader))
}

type Zstd<R> = ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>;

/// Zstandard frames one after the other: the decoder knows only one.
struct Frames<R: io::BufRead> {
    rest: Option<R>,
    current: Option<Box<Zstd<R>>>,
}

impl<R: io::BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(current) = &mut self.current {
                match current.read(buffer)? {
                    0 if !buffer.is_empty() => {
                        self.rest = self.current.take().map(|decoder| decoder.into_inner())
                    }
                    count => return Ok(count),
                }
            }
            let Some(mut rest) = self.rest.take() else { return Ok(0) };
            if rest.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let decoder = ruzstd::decoding::StreamingDecoder::new(rest).map_err(io::Error::other)?;
            self.current = Some(Box::new(decoder));
        }
    }
}

pub struct Unpacker<'a> {
    tree: Tree,
    /// Where the tree keeps what this layer itself has brought; `None` for an archive that is no layer, in which
    /// whiteouts are ordinary files.
    upper: Option<&'a Path>,
    owner: Option<Owner>,
    /// Set last, because every file put into a directory changes it.
    directory_times: Vec<(PathBuf, (i64, i64))>,
}

impl<'a> Unpacker<'a> {
    pub fn layer(root: &Path, upper: &'a Path) -> io::Result<Self> {
        Ok(Self { tree: Tree::open(root)?, upper: Some(upper), owner: None, directory_times: Vec::new() })
    }

    /// `owner`: whom everything is to belong to, instead of whom the archive says.
    pub fn archive(root: &Path, owner: Option<Owner>) -> io::Result<Self> {
        Ok(Self { tree: Tree::open(root)?, upper: None, owner, directory_times: Vec::new() })
    }

    /// Reads the archive to the end of the stream, so that the stream's digest is that of the whole.
    pub fn unpack(&mut self, below: &Path, mut reader: impl Read) -> io::Result<()> {
        let mut archive = Archive::new(&mut reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = clean(Path::new(OsStr::from_bytes(&entry.path_bytes())))?;
            self.entry(&below.join(&path), &mut entry)
                .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
        io::copy(&mut reader, &mut io::sink())?;
        for (path, (seconds, nanoseconds)) in self.directory_times.iter().rev() {
            if let Some(place) = self.tree.place(path)?
                && place.file_type()? == Some(FileType::Directory)
            {
                place.set_modified(*seconds, *nanoseconds)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        if let (Some(upper), Some(name)) = (self.upper, path.file_name()) {
            let bytes = name.as_bytes();
            if bytes == OPAQUE {
                return self.hide_all_below(upper, path.parent().unwrap_or(Path::new("")));
            }
            if bytes.starts_with(RESERVED) {
                return Ok(());
            }
            if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
                return self.hide(upper, &path.with_file_name(OsStr::from_bytes(hidden)));
            }
        }
        // The root itself is ours.
        let Some(place) = self.tree.place(path)? else { return Ok(()) };
        if self.create(&place, entry)? {
            self.describe(path, &place, entry)?;
        }
        Ok(())
    }

    fn hide(&self, upper: &Path, path: &Path) -> io::Result<()> {
        if path.file_name().is_none() {
            return Err(io::Error::other("a whiteout without a name"));
        }
        // A whiteout speaks of lower layers: what this layer has brought itself stays.
        if is_own(&upper.join(path)) {
            return Ok(());
        }
        match self.tree.place(path)? {
            Some(place) => place.clear(),
            None => Ok(()),
        }
    }

    fn hide_all_below(&self, upper: &Path, directory: &Path) -> io::Result<()> {
        let Some(place) = self.tree.place(directory)? else { return Ok(()) };
        if place.file_type()? != Some(FileType::Directory) {
            return place.make_directory(0o755);
        }
        let own = upper.join(directory);
        place.clear_children(&|name| Ok(!is_own(&own.join(name))))
    }

    /// `false`: a second name for what has been described already.
    fn create(&self, place: &Place, entry: &mut Entry<'_, impl Read>) -> io::Result<bool> {
        let header = entry.header();
        let link = || -> io::Result<PathBuf> {
            let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link without target"))?;
            Ok(PathBuf::from(OsStr::from_bytes(&target)))
        };
        let numbers = || -> io::Result<(u32, u32)> {
            Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
        };
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => place.create_file(entry)?,
            EntryType::Directory => place.make_directory(0o755)?,
            EntryType::Symlink => place.create_symlink(&link()?)?,
            EntryType::Link => {
                let target =
                    self.tree.place(&link()?)?.ok_or_else(|| io::Error::other("a link to the root"))?;
                place.link_to(&target)?;
                return Ok(false);
            }
            EntryType::Char | EntryType::Block => {
                let kind = if header.entry_type() == EntryType::Char {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                let (major, minor) = numbers()?;
                if (kind, major, minor) == (FileType::CharacterDevice, 0, 0) {
                    // To the file system this would be a whiteout.
                    return Err(io::Error::other("device 0/0 is refused"));
                }
                place.create_node(kind, major, minor)?;
            }
            EntryType::Fifo => place.create_node(FileType::Fifo, 0, 0)?,
            EntryType::XGlobalHeader => return Ok(false),
            other => return Err(io::Error::other(format!("unknown kind of entry {:?}", other.as_byte()))),
        }
        Ok(true)
    }

    fn describe(&mut self, path: &Path, place: &Place, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        let (mut uid, mut gid, mode) = (header.uid()?, header.gid()?, header.mode()?);
        let mut modified = (header.mtime()? as i64, 0);
        let mut xattrs = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let (Ok(key), value) = (extension.key(), extension.value_bytes()) else { continue };
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            match key {
                "uid" => uid = number().unwrap_or(uid),
                "gid" => gid = number().unwrap_or(gid),
                "mtime" => modified = parse_time(value).unwrap_or(modified),
                _ => xattrs
                    .extend(key.strip_prefix("SCHILY.xattr.").map(|name| (name.to_owned(), value.to_vec()))),
            }
        }
        let owner = Owner { uid: uid as u32, gid: gid as u32 };
        place.set_owner(self.owner.unwrap_or(owner))?;
        if kind != EntryType::Symlink {
            place.set_mode(mode)?;
        }
        // After the owner, whose change takes file capabilities away.
        for (name, value) in xattrs.iter().filter(|(name, _)| !is_reserved_xattr(name)) {
            match place.set_xattr(name, value) {
                // This file system, or this kind of file, cannot have it.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) if error.raw_os_error() == Some(libc::EPERM) && name.starts_with("user.") => {}
                result => result?,
            }
        }
        match kind {
            EntryType::Directory => self.directory_times.push((path.to_owned(), modified)),
            _ => place.set_modified(modified.0, modified.1)?,
        }
        Ok(())
    }
}

/// In the upper directory, and not as the file system's own mark of a removal.
fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| !(metadata.file_type().is_char_device() && metadata.rdev() == 0))
}

/// The overlay's own marks: an image could redirect a directory with them.
pub fn is_reserved_xattr(name: &str) -> bool {
    name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.")
}

/// `1700000000.123456789`
fn parse_time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((seconds.parse().ok()?, nanoseconds))
}
