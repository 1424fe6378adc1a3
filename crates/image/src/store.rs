//! The images of this machine: blobs, unpacked layers, and the index that names them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::content::{Content, write_atomically};
use crate::error::{ImageError, Result, decode, failed};
use crate::manifest::{Configuration, Descriptor, Manifest, Settings, chain_ids, media_type};
use crate::reference::{Reference, is_digest};
use crate::shared::{Held, Locks, Version, version};
use crate::snapshot::{ContainerRoot, Snapshots};

/// An image that is here, whole and unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// The digest of its configuration.
    pub id: String,
    pub manifest_digest: String,
    /// `docker.io/library/nginx:1.29`
    pub tags: Vec<String>,
    /// `docker.io/library/nginx@sha256:…`
    pub digests: Vec<String>,
    /// Of its blobs, as they are transferred.
    pub size_bytes: u64,
    /// RFC 3339, if the image says.
    pub created: Option<String>,
    pub config: Settings,
    pub diff_ids: Vec<String>,
}

/// What a collection took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub blobs: usize,
    pub snapshots: usize,
    pub freed_blob_bytes: u64,
}

/// Full reference (with a tag or a digest) to the digest of a manifest for this machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Index {
    #[serde(default)]
    references: BTreeMap<String, String>,
}

/// Cheap to clone; all clones are the same store. Other processes may have it open as well, and see each other's images.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    content: Content,
    snapshots: Snapshots,
    locks: Locks,
    _open: Held,
    /// As it was read or written last.
    index: Mutex<(Version, Index)>,
    /// Shared by whoever adds what nothing names yet, exclusive to the collector.
    adding: Arc<tokio::sync::RwLock<()>>,
}

/// While it lives, nothing is collected.
pub(crate) struct Adding {
    _guard: tokio::sync::OwnedRwLockReadGuard<()>,
    _held: Held,
}

impl ImageStore {
    /// Opens or makes the store in a directory, clearing away what was left unfinished.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(failed("create", &root))?;
        let locks = Locks::open(&root)?;
        let open = locks.enter(&root.join("ingest"))?;
        let content = Content::open(&root)?;
        let snapshots = Snapshots::open(&root, &content)?;
        let index = Mutex::new(read_index(&root)?);
        let inner = Inner { root, content, snapshots, locks, _open: open, index, adding: Arc::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.inner.root
    }

    pub(crate) fn content(&self) -> &Content {
        &self.inner.content
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// The index as it is now, whoever wrote it.
    fn index(&self) -> Result<MutexGuard<'_, (Version, Index)>> {
        let mut index = self.inner.index.lock();
        if index.0 != version(&self.inner.root.join(INDEX)) {
            *index = read_index(&self.inner.root)?;
        }
        Ok(index)
    }

    pub(crate) async fn add(&self) -> Result<Adding> {
        let guard = self.inner.adding.clone().read_owned().await;
        let locks = self.inner.locks.clone();
        let held = tokio::task::spawn_blocking(move || locks.add()).await.map_err(ImageError::Worker)??;
        Ok(Adding { _guard: guard, _held: held })
    }

    /// Waits for a running collection. Not to be called on a thread of an asynchronous runtime.
    pub(crate) fn add_blocking(&self) -> Result<Adding> {
        loop {
            if let Ok(guard) = self.inner.adding.clone().try_read_owned() {
                return Ok(Adding { _guard: guard, _held: self.inner.locks.add()? });
            }
            // A collection holds the index's lock for as long as it runs.
            drop(self.inner.index.lock());
        }
    }

    /// The image that a reference, or an id (`sha256:…`), names; `None` when it is not here.
    pub fn resolve(&self, reference: &str) -> Result<Option<ImageRecord>> {
        if is_digest(reference) {
            return Ok(self.list()?.into_iter().find(|record| record.id == reference));
        }
        let full: Reference = reference.parse()?;
        let Some(manifest) = self.lookup(&full)? else { return Ok(None) };
        self.record(&manifest).map(Some)
    }

    fn lookup(&self, reference: &Reference) -> Result<Option<String>> {
        let name = match &reference.digest {
            // A tag beside a digest does not matter.
            Some(digest) => reference.with_digest(digest).to_string(),
            None => reference.to_string(),
        };
        Ok(self.index()?.1.references.get(&name).cloned())
    }

    pub fn list(&self) -> Result<Vec<ImageRecord>> {
        let manifests: BTreeSet<String> = self.index()?.1.references.values().cloned().collect();
        manifests.iter().map(|manifest| self.record(manifest)).collect()
    }

    fn record(&self, manifest_digest: &str) -> Result<ImageRecord> {
        let content = self.content();
        let bytes = content.read(manifest_digest)?;
        let manifest: Manifest = decode("manifest", &bytes)?;
        let configuration: Configuration = decode("configuration", &content.read(&manifest.config.digest)?)?;
        let index = self.index()?;
        let named = index.1.references.iter().filter(|(_, digest)| *digest == manifest_digest);
        let (digests, tags) = named.map(|(name, _)| name.clone()).partition(|name| name.contains('@'));
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
        Ok(ImageRecord {
            id: manifest.config.digest,
            manifest_digest: manifest_digest.to_owned(),
            tags,
            digests,
            size_bytes: layers + manifest.config.size + bytes.len() as u64,
            created: configuration.created,
            config: configuration.config,
            diff_ids: configuration.rootfs.diff_ids,
        })
    }

    /// An image's own documents.
    pub(crate) fn documents(&self, record: &ImageRecord) -> Result<(Manifest, Configuration)> {
        let manifest: Manifest = decode("manifest", &self.content().read(&record.manifest_digest)?)?;
        let configuration = decode("configuration", &self.content().read(&manifest.config.digest)?)?;
        Ok((manifest, configuration))
    }

    /// Gives an image one more name.
    pub fn tag(&self, source: &str, target: &str) -> Result<ImageRecord> {
        let record =
            self.resolve(source)?.ok_or_else(|| ImageError::NotFound { reference: source.to_owned() })?;
        let target: Reference = target.parse()?;
        self.name([target.to_string()], &record.manifest_digest)?;
        self.record(&record.manifest_digest)
    }

    /// Takes a name away, or with an id all names of the image. What nothing names any more is collected, unless
    /// something is being added just now. `false`: there was no such name.
    pub fn remove(&self, reference: &str) -> Result<bool> {
        let names: Vec<String> = if is_digest(reference) {
            let record = self.resolve(reference)?;
            record.map(|record| record.tags.into_iter().chain(record.digests).collect()).unwrap_or_default()
        } else {
            self.names_to_remove(&reference.parse()?)?
        };
        if names.is_empty() {
            return Ok(false);
        }
        self.change(|index| names.iter().for_each(|name| drop(index.references.remove(name))))?;
        self.collect()?;
        Ok(true)
    }

    /// The last tag of a repository takes the repository's digest with it.
    fn names_to_remove(&self, reference: &Reference) -> Result<Vec<String>> {
        let index = self.index()?;
        let index = &index.1;
        let name = match &reference.digest {
            Some(digest) => reference.with_digest(digest).to_string(),
            None => reference.to_string(),
        };
        let Some(manifest) = index.references.get(&name) else { return Ok(Vec::new()) };
        let repository = reference.name();
        let of_repository = |other: &&String| {
            other.strip_prefix(&repository).is_some_and(|rest| rest.starts_with([':', '@']))
        };
        let siblings =
            index.references.iter().filter(|(_, digest)| *digest == manifest).map(|(other, _)| other);
        let siblings: Vec<&String> = siblings.filter(of_repository).collect();
        let has_other_tag = siblings.iter().any(|other| **other != name && !other.contains('@'));
        Ok(if has_other_tag { vec![name] } else { siblings.into_iter().cloned().collect() })
    }

    pub(crate) fn name(&self, names: impl IntoIterator<Item = String>, manifest: &str) -> Result<()> {
        self.change(|index| {
            index.references.extend(names.into_iter().map(|name| (name, manifest.to_owned())))
        })
    }

    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<()> {
        let _turn = self.inner.locks.index()?;
        let mut index = self.index()?;
        let mut changed = index.1.clone();
        change(&mut changed);
        let bytes = serde_json::to_vec_pretty(&changed)
            .map_err(|source| ImageError::Decode { what: "image index".into(), source })?;
        let file = self.inner.root.join(INDEX);
        write_atomically(&file, &bytes)?;
        *index = (version(&file), changed);
        Ok(())
    }

    /// Unpacks an image whose blobs are all here, and gives it its names.
    pub(crate) fn complete(&self, manifest_digest: &str, names: Vec<String>) -> Result<ImageRecord> {
        let manifest: Manifest = decode("manifest", &self.content().read(manifest_digest)?)?;
        let configuration: Configuration =
            decode("configuration", &self.content().read(&manifest.config.digest)?)?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let message = format!("{} layers but {} diff ids", manifest.layers.len(), diff_ids.len());
            return Err(ImageError::Layer { layer: manifest_digest.to_owned(), message });
        }
        for (position, layer) in manifest.layers.iter().enumerate() {
            self.snapshots().unpack(&diff_ids[..=position], &layer.digest)?;
        }
        self.name(names, manifest_digest)?;
        self.record(manifest_digest)
    }

    /// Writes configuration and manifest for layers that are here, and gives the image its names.
    pub(crate) fn assemble(
        &self,
        configuration: &Configuration,
        layers: Vec<Descriptor>,
        names: Vec<String>,
    ) -> Result<ImageRecord> {
        let encode = |what: &str, result: serde_json::Result<Vec<u8>>| {
            result.map_err(|source| ImageError::Decode { what: what.to_owned(), source })
        };
        let bytes = encode("configuration", serde_json::to_vec(configuration))?;
        let config = Descriptor {
            media_type: media_type::OCI_CONFIG.into(),
            digest: self.content().add(&bytes)?,
            size: bytes.len() as u64,
            ..Descriptor::default()
        };
        let manifest =
            Manifest { schema_version: 2, media_type: media_type::OCI_MANIFEST.into(), config, layers };
        let digest = self.content().add(&encode("manifest", serde_json::to_vec(&manifest))?)?;
        self.complete(&digest, names)
    }

    /// A writable root for a container. Preparing it again returns the same.
    pub fn prepare(&self, image: &ImageRecord, container_id: &str) -> Result<ContainerRoot> {
        self.snapshots().prepare(container_id, &chain_ids(&image.diff_ids))
    }

    /// Removes what a container has written. It must be unmounted. Not existing is success.
    pub fn release(&self, container_id: &str) -> Result<()> {
        self.snapshots().release(container_id)
    }

    /// Removes blobs and unpacked layers that neither an image nor a container needs. Does nothing while something is
    /// being added.
    pub fn collect(&self) -> Result<Collected> {
        let _turn = self.inner.locks.index()?;
        let index = self.index()?;
        let Ok(_alone) = self.inner.adding.clone().try_write_owned() else { return Ok(Collected::default()) };
        let Some(_alone_of_all) = self.inner.locks.collect()? else { return Ok(Collected::default()) };
        let (blobs, snapshots) = self.needed(&index.1)?;
        let mut collected = Collected::default();
        for digest in self.content().list()?.into_iter().filter(|digest| !blobs.contains(digest)) {
            collected.freed_blob_bytes += self.content().size(&digest)?;
            self.content().remove(&digest)?;
            collected.blobs += 1;
        }
        for chain_id in self.snapshots().list()?.into_iter().filter(|chain_id| !snapshots.contains(chain_id))
        {
            self.snapshots().remove(&chain_id)?;
            collected.snapshots += 1;
        }
        Ok(collected)
    }

    fn needed(&self, index: &Index) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
        let mut blobs = BTreeSet::new();
        let mut snapshots: BTreeSet<String> = self.snapshots().pinned()?.into_iter().collect();
        for (name, digest) in &index.references {
            let manifest: Manifest = decode("manifest", &self.content().read(digest)?)?;
            let configuration: Configuration =
                decode("configuration", &self.content().read(&manifest.config.digest)?)?;
            snapshots.extend(chain_ids(&configuration.rootfs.diff_ids));
            // The list a digest names is kept, so that the image can be passed on under it.
            blobs.extend(name.split_once('@').map(|(_, digest)| digest.to_owned()));
            blobs.insert(digest.clone());
            blobs.insert(manifest.config.digest);
            blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
        }
        Ok((blobs, snapshots))
    }
}

const INDEX: &str = "index.json";

/// The version is taken first: a change in between is seen the next time.
fn read_index(root: &Path) -> Result<(Version, Index)> {
    let file = root.join(INDEX);
    let version = version(&file);
    match fs::read(&file) {
        Ok(bytes) => Ok((version, decode("image index", &bytes)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((version, Index::default())),
        Err(error) => Err(failed("read", &file)(error)),
    }
}
