//! Blobs by digest. A blob is there whole or not at all, and what is there has been verified.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{ImageError, Result, failed};
use crate::reference::is_digest;

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", base::id::hex(&Sha256::digest(bytes)))
}

/// Hashes what passes through.
pub struct Hashing<T> {
    inner: T,
    hash: Sha256,
    pub bytes: u64,
}

impl<T> Hashing<T> {
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    pub fn finish(self) -> (T, String) {
        (self.inner, format!("sha256:{}", base::id::hex(&self.hash.finalize())))
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The directory of blobs.
#[derive(Debug, Clone)]
pub struct Content {
    root: PathBuf,
}

impl Content {
    pub fn open(root: &Path) -> Result<Self> {
        let content = Self { root: root.to_owned() };
        for directory in [content.blobs(), content.ingest()] {
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        }
        Ok(content)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where unfinished things lie; nothing in it survives a restart.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub fn temporary(&self) -> PathBuf {
        self.ingest().join(base::id::uuid())
    }

    pub fn path(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").filter(|_| is_digest(digest));
        hex.map(|hex| self.blobs().join(hex)).ok_or_else(|| ImageError::InvalidDigest(digest.to_owned()))
    }

    pub fn contains(&self, digest: &str) -> bool {
        self.path(digest).is_ok_and(|path| path.exists())
    }

    pub fn size(&self, digest: &str) -> Result<u64> {
        let path = self.path(digest)?;
        Ok(fs::metadata(&path).map_err(failed("read", &path))?.len())
    }

    pub fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.path(digest)?;
        fs::read(&path).map_err(failed("read", &path))
    }

    pub fn open_blob(&self, digest: &str) -> Result<File> {
        let path = self.path(digest)?;
        File::open(&path).map_err(failed("open", &path))
    }

    /// Returns its digest.
    pub fn add(&self, bytes: &[u8]) -> Result<String> {
        self.add_from(bytes, None).map(|(digest, _)| digest)
    }

    /// Takes a blob in, refusing it when it is not the one expected. Returns digest and size.
    pub fn add_from(&self, mut reader: impl Read, expected: Option<&str>) -> Result<(String, u64)> {
        let mut writer = self.writer()?;
        io::copy(&mut reader, &mut writer).map_err(failed("write", &writer.path))?;
        writer.commit(expected)
    }

    pub fn writer(&self) -> Result<BlobWriter> {
        let path = self.temporary();
        let file = File::create(&path).map_err(failed("create", &path))?;
        Ok(BlobWriter { content: self.clone(), path, file: Hashing::new(file), done: false })
    }

    pub fn remove(&self, digest: &str) -> Result<()> {
        let path = self.path(digest)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    pub fn list(&self) -> Result<Vec<String>> {
        let directory = self.blobs();
        let entries = fs::read_dir(&directory).map_err(failed("list", &directory))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.map(|name| format!("sha256:{name}")).filter(|digest| is_digest(digest)).collect())
    }
}

/// A blob on its way in; dropped unfinished it leaves nothing.
pub struct BlobWriter {
    content: Content,
    path: PathBuf,
    file: Hashing<File>,
    done: bool,
}

impl BlobWriter {
    pub fn commit(mut self, expected: Option<&str>) -> Result<(String, u64)> {
        let file = self.file.inner.try_clone().map_err(failed("sync", &self.path))?;
        file.sync_all().map_err(failed("sync", &self.path))?;
        let hash = std::mem::take(&mut self.file.hash);
        let actual = format!("sha256:{}", base::id::hex(&hash.finalize()));
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(ImageError::Digest { expected: expected.to_owned(), actual });
        }
        let target = self.content.path(&actual)?;
        fs::rename(&self.path, &target).map_err(failed("rename to", &target))?;
        self.done = true;
        sync_directory(&self.content.blobs())?;
        Ok((actual, self.file.bytes))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.done {
            // The next start empties the directory anyway.
            fs::remove_file(&self.path).ok();
        }
    }
}

pub fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

/// Whole or not at all, and on the disk when it returns.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    // A name of its own: another process may be writing the same file.
    let temporary = path.with_extension(format!("{}.tmp", base::id::uuid()));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(failed("write", path))?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_blob_is_taken_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let content = Content::open(directory.path()).expect("a store");
        let digest = content.add(b"hello").expect("added");
        assert_eq!(content.read(&digest).expect("read"), b"hello");
        let error = content.add_from(&b"other"[..], Some(&digest)).expect_err("refused");
        assert!(matches!(error, ImageError::Digest { .. }), "{error}");
        assert_eq!(content.list().expect("list"), [digest]);
        assert!(fs::read_dir(content.ingest()).expect("list").next().is_none(), "nothing unfinished is left");
        assert!(content.read("sha256:../../etc/passwd").is_err());
    }
}
