//! One store, several processes: the server holds it open while the command line builds into it. The kernel's file
//! locks keep them apart and are let go of however a process ends; the index is read again when another has written it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Result, failed};
use crate::tree::remove_all;

/// A lock that ends with its file.
#[derive(Debug)]
pub struct Held {
    _file: File,
}

#[derive(Debug, Clone)]
pub struct Locks {
    folder: PathBuf,
}

impl Locks {
    pub fn open(root: &Path) -> Result<Self> {
        let folder = root.join("locks");
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        Ok(Self { folder })
    }

    fn take(&self, name: &str, how: FlockOperation) -> Result<Option<Held>> {
        let path = self.folder.join(name);
        let file = File::create(&path).map_err(failed("open", &path))?;
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Some(Held { _file: file })),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed("lock", &path)(error)),
            }
        }
    }

    fn wait(&self, name: &str, how: FlockOperation) -> Result<Held> {
        let held = self.take(name, how)?;
        // Only a lock that does not wait comes back empty.
        held.ok_or_else(|| failed("lock", &self.folder.join(name))(std::io::Error::from(Errno::WOULDBLOCK)))
    }

    /// Held as long as a process has the store open. The first clears away what others left unfinished.
    pub fn enter(&self, ingest: &Path) -> Result<Held> {
        // Two that come at once take their turns here.
        let _turn = self.wait("entering", FlockOperation::LockExclusive)?;
        if let Some(alone) = self.take("open", FlockOperation::NonBlockingLockExclusive)? {
            remove_all(ingest).map_err(failed("clear", ingest))?;
            drop(alone);
        }
        self.wait("open", FlockOperation::LockShared)
    }

    /// Of whoever changes the index.
    pub fn index(&self) -> Result<Held> {
        self.wait("index", FlockOperation::LockExclusive)
    }

    /// Of whoever adds what nothing names yet; waits for a collection in another process.
    pub fn add(&self) -> Result<Held> {
        self.wait("adding", FlockOperation::LockShared)
    }

    /// Of the collector; `None` while another process adds.
    pub fn collect(&self) -> Result<Option<Held>> {
        self.take("adding", FlockOperation::NonBlockingLockExclusive)
    }
}

/// Which version of a file was read: a file that is replaced by renaming is another each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version(Option<(u64, i64, i64, u64)>);

pub fn version(path: &Path) -> Version {
    let of = |m: fs::Metadata| (m.ino(), m.mtime(), m.mtime_nsec(), m.size());
    Version(fs::metadata(path).ok().map(of))
}

#[cfg(test)]
mod tests {
    use crate::{ImageStore, Settings};

    /// Two openings are as two processes: the kernel's locks belong to the opened file.
    #[test]
    fn two_processes_share_a_store() {
        let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
        let (root, files) = (directory.path().join("images"), directory.path().join("files"));
        std::fs::create_dir(&files).expect("a directory");
        std::fs::write(files.join("hello"), "hello").expect("a file");
        let server = ImageStore::open(&root).expect("a store");
        let adding = server.add_blocking().expect("adding");
        std::fs::write(root.join("ingest/unfinished"), "").expect("a file");

        let command = ImageStore::open(&root).expect("the same store");
        assert!(root.join("ingest/unfinished").exists(), "what the other works on stays");
        let record = command.import_rootfs_dir(&files, "localhost/a:1", Settings::default()).expect("added");
        assert_eq!(server.resolve("localhost/a:1").expect("read").as_ref(), Some(&record));
        server.tag("localhost/a:1", "localhost/b:1").expect("named");
        assert!(command.remove("localhost/a:1").expect("removed"), "both names were known");
        assert_eq!(command.list().expect("listed").len(), 1);

        assert!(command.remove("localhost/b:1").expect("removed"));
        assert_eq!(command.collect().expect("looked").blobs, 0, "nothing is collected while the other adds");
        drop(adding);
        assert!(command.collect().expect("collected").blobs > 0);
        assert_eq!(server.resolve("localhost/b:1").expect("read"), None);

        drop((server, command));
        drop(ImageStore::open(&root).expect("opened again"));
        assert!(!root.join("ingest/unfinished").exists(), "the first to come clears");
    }
}
