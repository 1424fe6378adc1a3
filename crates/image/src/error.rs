//! Why an image could not be had, told apart as the one who waits for it must tell it apart.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// `InvalidImageName`: trying again is of no use.
    #[error("couldn't parse image name {reference:?}: invalid reference format{detail}")]
    InvalidReference { reference: String, detail: String },
    #[error("failed to resolve reference {reference:?}: not found")]
    NotFound { reference: String },
    /// No registry is asked for it.
    #[error(
        "failed to resolve reference {reference:?}: not found: images of localhost/ are built on this machine; build it with \
         `kedge build -t {reference} FOLDER`"
    )]
    NotBuilt { reference: String },
    #[error(
        "failed to resolve reference {reference:?}: pull access denied, repository does not exist or may require \
         authorization: {message}"
    )]
    Unauthorized { reference: String, message: String },
    #[error("failed to resolve reference {reference:?}: failed to do request: {message}")]
    Unreachable { reference: String, message: String },
    #[error("failed to pull image {reference:?}: {message}")]
    Registry { reference: String, message: String },
    #[error("no match for platform in manifest {digest}: not found")]
    NoPlatform { digest: String },
    #[error("unexpected digest: expected {expected}, got {actual}")]
    Digest { expected: String, actual: String },
    #[error("invalid digest {0:?}")]
    InvalidDigest(String),
    #[error("decode {what}")]
    Decode { what: String, source: serde_json::Error },
    #[error("layer {layer}: {message}")]
    Layer { layer: String, message: String },
    #[error("archive {path:?}: {message}")]
    Archive { path: PathBuf, message: String },
    #[error("{operation} {path:?}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("a worker ended early")]
    Worker(#[source] tokio::task::JoinError),
}

pub type Result<T> = std::result::Result<T, ImageError>;

pub(crate) fn failed<E: Into<io::Error>>(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> ImageError {
    move |source| ImageError::Io { operation, path: path.to_owned(), source: source.into() }
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Decode { what: what.to_owned(), source })
}
