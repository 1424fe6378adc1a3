//! Images from files: archives as `docker save` and OCI tools write them, and plain directories.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::content::Hashing;
use crate::error::{ImageError, Result, decode, failed};
use crate::manifest::{
    Configuration, Descriptor, History, Index, Manifest, RootFs, Settings, architecture, media_type,
};
use crate::pack::pack;
use crate::reference::Reference;
use crate::store::{ImageRecord, ImageStore};
use crate::tree::remove_all;
use crate::unpack::{Unpacker, decompress};

/// Where OCI archives keep an image's name; the first of them that is there counts.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An entry of Docker's own `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

impl ImageStore {
    /// Takes in every image of an archive. Images without a name keep only the one of their digest. Blocks.
    pub fn import_tar(&self, archive: &Path) -> Result<Vec<ImageRecord>> {
        let _adding = self.add_blocking()?;
        let work = self.content().temporary();
        fs::create_dir_all(&work).map_err(failed("create", &work))?;
        let result = self.import_unpacked(archive, &work);
        remove_all(&work).map_err(failed("remove", &work))?;
        result
    }

    fn import_unpacked(&self, archive: &Path, work: &Path) -> Result<Vec<ImageRecord>> {
        let broken = |error: std::io::Error| ImageError::Archive {
            path: archive.to_owned(),
            message: error.to_string(),
        };
        let file = File::open(archive).map_err(failed("open", archive))?;
        let reader = decompress(file).map_err(broken)?;
        Unpacker::archive(work, None).and_then(|mut u| u.unpack(Path::new(""), reader)).map_err(broken)?;
        if work.join("index.json").exists() {
            return self.import_layout(archive, work);
        }
        if work.join("manifest.json").exists() {
            return self.import_docker(archive, work);
        }
        let message = "neither an OCI layout nor saved by Docker".to_owned();
        Err(ImageError::Archive { path: archive.to_owned(), message })
    }

    fn import_layout(&self, archive: &Path, work: &Path) -> Result<Vec<ImageRecord>> {
        let index: Index = read_json(&work.join("index.json"))?;
        index.manifests.iter().map(|top| self.import_descriptor(archive, work, top)).collect()
    }

    fn import_descriptor(&self, archive: &Path, work: &Path, top: &Descriptor) -> Result<ImageRecord> {
        self.take_blob(work, &top.digest)?;
        let name = NAME_ANNOTATIONS.iter().find_map(|key| top.annotations.get(*key));
        let mut digest = top.digest.clone();
        let list: Index = decode("image index", &self.content().read(&digest)?)?;
        if !list.manifests.is_empty() {
            let found = list.for_this_platform();
            digest = found.ok_or_else(|| ImageError::NoPlatform { digest: digest.clone() })?.digest.clone();
            self.take_blob(work, &digest)?;
        }
        let manifest: Manifest = decode("manifest", &self.content().read(&digest)?)?;
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            self.take_blob(work, &blob.digest)?;
        }
        let names = match name {
            // Some tools write only the tag.
            Some(name) if !name.contains(['/', ':']) => {
                vec![self.unnamed(archive, &top.digest), format!("{}:{name}", stem(archive))]
            }
            Some(name) => vec![name.clone()],
            None => vec![self.unnamed(archive, &top.digest)],
        };
        let names =
            names.iter().map(|name| Ok(name.parse::<Reference>()?.to_string())).collect::<Result<_>>()?;
        self.complete(&digest, names)
    }

    fn unnamed(&self, archive: &Path, digest: &str) -> String {
        format!("{}@{digest}", stem(archive))
    }

    fn take_blob(&self, work: &Path, digest: &str) -> Result<()> {
        let hex =
            digest.strip_prefix("sha256:").ok_or_else(|| ImageError::InvalidDigest(digest.to_owned()))?;
        self.content().path(digest)?;
        if self.content().contains(digest) {
            return Ok(());
        }
        let path = work.join("blobs/sha256").join(hex);
        let file = File::open(&path).map_err(failed("open", &path))?;
        self.content().add_from(file, Some(digest)).map(drop)
    }

    fn import_docker(&self, archive: &Path, work: &Path) -> Result<Vec<ImageRecord>> {
        let images: Vec<DockerImage> = read_json(&work.join("manifest.json"))?;
        images.iter().map(|image| self.import_docker_image(archive, work, image)).collect()
    }

    fn import_docker_image(&self, archive: &Path, work: &Path, image: &DockerImage) -> Result<ImageRecord> {
        let inside = |path: &Path| -> Result<PathBuf> {
            let clean = crate::tree::clean(path).map_err(failed("read", path))?;
            Ok(work.join(clean))
        };
        let path = inside(&image.config)?;
        let config = fs::read(&path).map_err(failed("read", &path))?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let path = inside(layer)?;
            // Docker's archives may name a layer through a link to another one's.
            let path = fs::canonicalize(&path).map_err(failed("read", &path))?;
            if !path.starts_with(fs::canonicalize(work).map_err(failed("read", work))?) {
                let message = format!("layer {layer:?} lies outside");
                return Err(ImageError::Archive { path: archive.to_owned(), message });
            }
            let file = File::open(&path).map_err(failed("open", &path))?;
            let (digest, size) = self.content().add_from(file, None)?;
            layers.push(Descriptor {
                media_type: layer_media_type(&path)?,
                digest,
                size,
                ..Descriptor::default()
            });
        }
        let descriptor = Descriptor {
            media_type: media_type::OCI_CONFIG.into(),
            digest: self.content().add(&config)?,
            size: config.len() as u64,
            ..Descriptor::default()
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.into(),
            config: descriptor,
            layers,
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|source| ImageError::Decode { what: "manifest".into(), source })?;
        let digest = self.content().add(&bytes)?;
        let tags = image.repo_tags.clone().unwrap_or_default();
        let tags = if tags.is_empty() { vec![self.unnamed(archive, &digest)] } else { tags };
        let names =
            tags.iter().map(|tag| Ok(tag.parse::<Reference>()?.to_string())).collect::<Result<_>>()?;
        self.complete(&digest, names)
    }

    /// Makes an image of one layer from a directory. Blocks.
    pub fn import_rootfs_dir(
        &self,
        directory: &Path,
        reference: &str,
        settings: Settings,
    ) -> Result<ImageRecord> {
        let reference: Reference = reference.parse()?;
        let _adding = self.add_blocking()?;
        let (layer, diff_id) = self.add_layer(directory)?;
        let configuration = Configuration {
            architecture: architecture().into(),
            os: "linux".into(),
            config: settings,
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
            history: vec![History { created_by: Some("imported directory".into()), ..History::default() }],
            ..Configuration::default()
        };
        self.assemble(&configuration, vec![layer], vec![reference.to_string()])
    }

    /// A directory as a layer, uncompressed: on one machine compressing costs more than it saves. Returns its descriptor
    /// and diff id.
    pub(crate) fn add_layer(&self, directory: &Path) -> Result<(Descriptor, String)> {
        let mut writer = Hashing::new(self.content().writer()?);
        let buffered = std::io::BufWriter::with_capacity(256 * 1024, &mut writer);
        pack(directory, buffered).map_err(failed("pack", directory))?;
        let (writer, diff_id) = writer.finish();
        let (digest, size) = writer.commit(Some(&diff_id))?;
        let descriptor =
            Descriptor { media_type: media_type::OCI_LAYER.into(), digest, size, ..Descriptor::default() };
        Ok((descriptor, diff_id))
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    decode(&path.to_string_lossy(), &bytes)
}

fn layer_media_type(path: &Path) -> Result<String> {
    let mut start = [0; 4];
    let count = File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start));
    let start = &start[..count.map_err(failed("read", path))?];
    Ok(match start {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    }
    .into())
}

/// A repository name for what has none: the archive's, as far as its letters are allowed.
fn stem(archive: &Path) -> String {
    let name = archive.file_stem().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("localhost/{}", if name.is_empty() { "imported" } else { &name })
}
