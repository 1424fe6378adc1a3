//! Stores, archives and mounted images for the tests.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};

use image::{ContainerRoot, ImageRecord, ImageStore};
use sha2::{Digest, Sha256};

pub fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::Builder::new().prefix("kedge-t").tempdir().expect("a directory");
    let store = ImageStore::open(directory.path().join("images")).expect("a store");
    (directory, store)
}

pub fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

/// A layer archive, entry by entry.
pub struct Layer(pub tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, mode: u32, owner: (u64, u64), size: usize) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(size as u64);
        header
    }

    /// Names as they are, even ones that the archive library would refuse to write.
    fn raw(mut self, mut header: tar::Header, path: &str, link: &str, content: &[u8]) -> Self {
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).expect("append");
        self
    }

    pub fn file_of(self, path: &str, content: &[u8], mode: u32, owner: (u64, u64)) -> Self {
        self.raw(Self::header(tar::EntryType::Regular, mode, owner, content.len()), path, "", content)
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.file_of(path, content.as_bytes(), 0o644, (0, 0))
    }

    pub fn dir(self, path: &str, mode: u32, owner: (u64, u64)) -> Self {
        self.raw(Self::header(tar::EntryType::Directory, mode, owner, 0), path, "", b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(Self::header(tar::EntryType::Symlink, 0o777, (0, 0), 0), path, target, b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.raw(Self::header(tar::EntryType::Link, 0o644, (0, 0), 0), path, target, b"")
    }

    pub fn device(self, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(tar::EntryType::Char, 0o600, (0, 0), 0);
        header.set_device_major(major).expect("major");
        header.set_device_minor(minor).expect("minor");
        self.raw(header, path, "", b"")
    }

    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let key = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(key.as_str(), value)]).expect("append");
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("finish")
    }
}

/// An image as `docker save` writes it. Each layer: what is stored, and what it is uncompressed.
pub fn docker_archive(directory: &Path, name: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> PathBuf {
    let diff_ids: Vec<String> = layers.iter().map(|(_, plain)| digest(plain)).collect();
    let config = serde_json::json!({
        "architecture": image::architecture(), "os": "linux",
        "config": {"Entrypoint": ["/entry"], "Cmd": null, "Env": ["A=1"], "User": "5", "StopSignal": "SIGINT"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let mut archive = Layer::new();
    for (name, (stored, _)) in names.iter().zip(layers) {
        archive = archive.file_of(name, stored, 0o644, (0, 0));
    }
    archive = archive.file("config.json", &config.to_string()).file("manifest.json", &manifest.to_string());
    let path = directory.join("image.tar");
    std::fs::write(&path, archive.bytes()).expect("archive");
    path
}

pub fn import(directory: &Path, store: &ImageStore, layers: Vec<Layer>) -> image::Result<ImageRecord> {
    let layers: Vec<_> =
        layers.into_iter().map(|layer| layer.bytes()).map(|bytes| (bytes.clone(), bytes)).collect();
    let archive = docker_archive(directory, "test:1", &layers);
    store.import_tar(&archive).map(|mut records| records.remove(0))
}

/// An image's files, mounted as a container would have them.
pub struct Mounted {
    root: ContainerRoot,
}

impl Mounted {
    pub fn new(store: &ImageStore, record: &ImageRecord) -> Self {
        let root = store.prepare(record, &base::id::uuid()).expect("a root");
        let lower: Vec<String> = root.lower.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let (upper, work) = (root.upper.display(), root.work.display());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        let options = std::ffi::CString::new(options).expect("no zero");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("overlay", &root.merged, "overlay", flags, Some(options.as_c_str()))
            .expect("mount");
        Self { root }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.merged.join(path)
    }

    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).expect("directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.root.merged, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("unmount: {error}");
        }
    }
}
