//! What the node wants of an image store, as narrow as it can be; the wiring adapts the real one to it.

use container::runtime::{ImageConfig, Rootfs};
use futures::future::BoxFuture;

/// An image that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration: `sha256:…`.
    pub id: String,
    /// `repository@sha256:…` when it was pulled, else the id: what a container status shows as `imageID`.
    pub repo_digest: String,
    /// The normal form of the reference: `docker.io/library/busybox:1.36`.
    pub name: String,
    pub size_bytes: u64,
    pub config: ImageConfig,
}

/// What a node reports of the images it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRecord {
    pub names: Vec<String>,
    pub size_bytes: u64,
}

/// Credentials for one registry, out of a pull secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// As the secret names it: `registry.example.com`, `https://index.docker.io/v1/`.
    pub registry: String,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} for {})", self.username, self.registry)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be parsed: `InvalidImageName`.
    #[error("couldn't parse image name {reference:?}: {message}")]
    InvalidName { reference: String, message: String },
    /// The registry or the network refused: `ErrImagePull`.
    #[error("{message}")]
    Pull { reference: String, message: String },
    #[error("root file system of {container_id}: {message}")]
    Rootfs { container_id: String, message: String },
}

pub type ImageReply<'a, T> = BoxFuture<'a, Result<T, ImageError>>;

pub trait Images: Send + Sync + 'static {
    /// The image if it is here.
    fn find<'a>(&'a self, reference: &'a str) -> ImageReply<'a, Option<Image>>;
    /// Fetches what is missing of it. Simultaneous pulls of one reference share the work.
    fn pull<'a>(&'a self, reference: &'a str, credentials: &'a [Credentials]) -> ImageReply<'a, Image>;
    /// Makes (or finds again) the directories of a container's root above the layers of an image.
    fn prepare_rootfs<'a>(&'a self, image_id: &'a str, container_id: &'a str) -> ImageReply<'a, Rootfs>;
    /// Removes them; idempotent.
    fn remove_rootfs<'a>(&'a self, container_id: &'a str) -> ImageReply<'a, ()>;
    fn list(&self) -> ImageReply<'_, Vec<ImageRecord>>;
}
