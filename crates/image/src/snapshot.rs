//! Unpacked layers, each once however many images share it, and the writable roots of containers on top of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::content::{Content, Hashing, write_atomically};
use crate::error::{ImageError, Result, decode, failed};
use crate::manifest::chain_ids;
use crate::overlay::Overlay;
use crate::tree::remove_all;
use crate::unpack::{Unpacker, decompress};

/// What a container's root is mounted from. The caller mounts it, on `merged`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRoot {
    /// The read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    pub merged: PathBuf,
}

/// Which layers a container holds on to.
#[derive(Serialize, Deserialize)]
struct Pin {
    chain_ids: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Snapshots {
    root: PathBuf,
    content: Content,
}

impl Snapshots {
    pub fn open(root: &Path, content: &Content) -> Result<Self> {
        let snapshots = Self { root: root.to_owned(), content: content.clone() };
        for directory in [root.join("snapshots"), root.join("containers")] {
            fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        }
        Ok(snapshots)
    }

    /// Where the layer of a stack is unpacked. It is there when it is whole.
    pub fn path(&self, chain_id: &str) -> PathBuf {
        self.root.join("snapshots").join(chain_id.trim_start_matches("sha256:"))
    }

    pub fn contains(&self, chain_id: &str) -> bool {
        self.path(chain_id).is_dir()
    }

    /// The directories of a stack, topmost first.
    pub fn lower(&self, chain: &[String]) -> Vec<PathBuf> {
        chain.iter().rev().map(|chain_id| self.path(chain_id)).collect()
    }

    /// Unpacks the top layer of a stack whose lower layers are unpacked already, and checks that it is what it says.
    pub fn unpack(&self, diff_ids: &[String], blob: &str) -> Result<()> {
        let chain = chain_ids(diff_ids);
        let (Some((top, below)), Some(expected)) = (chain.split_last(), diff_ids.last()) else {
            return Ok(());
        };
        if self.contains(top) {
            return Ok(());
        }
        let work = self.content.temporary();
        let result = self.unpack_in(&work, &self.lower(below), blob, expected);
        let result = result.and_then(|()| self.adopt(top, &work.join("upper")));
        remove_all(&work).map_err(failed("remove", &work))?;
        result
    }

    fn unpack_in(&self, work: &Path, lower: &[PathBuf], blob: &str, expected: &str) -> Result<()> {
        let broken =
            |error: std::io::Error| ImageError::Layer { layer: blob.to_owned(), message: error.to_string() };
        let overlay = Overlay::mount(work, lower)?;
        let upper = overlay.upper();
        let file = self.content.open_blob(blob)?;
        let mut reader = Hashing::new(decompress(file).map_err(broken)?);
        let mut unpacker = Unpacker::layer(&overlay.merged(), &upper).map_err(broken)?;
        unpacker.unpack(Path::new(""), &mut reader).map_err(broken)?;
        let (_, actual) = reader.finish();
        drop(unpacker);
        overlay.unmount()?;
        if actual == expected {
            Ok(())
        } else {
            Err(ImageError::Digest { expected: expected.to_owned(), actual })
        }
    }

    /// Makes a finished directory the snapshot of a stack. On the disk before it can be seen.
    pub fn adopt(&self, chain_id: &str, directory: &Path) -> Result<()> {
        let target = self.path(chain_id);
        if target.exists() {
            return Ok(());
        }
        let handle = fs::File::open(directory).map_err(failed("open", directory))?;
        rustix::fs::syncfs(&handle).map_err(failed("sync", directory))?;
        match fs::rename(directory, &target) {
            // Somebody else was as fast.
            Err(_) if target.exists() => Ok(()),
            result => result.map_err(failed("rename to", &target)),
        }
    }

    /// A writable root on top of a stack. Preparing it again returns the same.
    pub fn prepare(&self, container_id: &str, chain: &[String]) -> Result<ContainerRoot> {
        let directory = self.container(container_id);
        let root = ContainerRoot {
            lower: self.lower(chain),
            upper: directory.join("upper"),
            work: directory.join("work"),
            merged: directory.join("merged"),
        };
        for part in [&root.upper, &root.work, &root.merged] {
            fs::create_dir_all(part).map_err(failed("create", part))?;
        }
        let mut root = root;
        if root.lower.is_empty() {
            // Nothing to lie on top of: an empty layer.
            let empty = directory.join("empty");
            fs::create_dir_all(&empty).map_err(failed("create", &empty))?;
            root.lower.push(empty);
        }
        let pin = Pin { chain_ids: chain.to_vec() };
        let bytes =
            serde_json::to_vec(&pin).map_err(|source| ImageError::Decode { what: "pin".into(), source })?;
        write_atomically(&directory.join("pin.json"), &bytes)?;
        Ok(root)
    }

    /// Removes what a container has written. It must be unmounted.
    pub fn release(&self, container_id: &str) -> Result<()> {
        let directory = self.container(container_id);
        remove_all(&directory).map_err(failed("remove", &directory))
    }

    fn container(&self, container_id: &str) -> PathBuf {
        self.root.join("containers").join(container_id)
    }

    /// Stacks that containers hold on to.
    pub fn pinned(&self) -> Result<Vec<String>> {
        let directory = self.root.join("containers");
        let mut pinned = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))?.flatten() {
            let file = entry.path().join("pin.json");
            if let Ok(bytes) = fs::read(&file) {
                pinned.extend(decode::<Pin>("pin", &bytes)?.chain_ids);
            }
        }
        Ok(pinned)
    }

    pub fn list(&self) -> Result<Vec<String>> {
        let directory = self.root.join("snapshots");
        let entries = fs::read_dir(&directory).map_err(failed("list", &directory))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.map(|name| format!("sha256:{name}")).collect())
    }

    pub fn remove(&self, chain_id: &str) -> Result<()> {
        let path = self.path(chain_id);
        remove_all(&path).map_err(failed("remove", &path))
    }
}
