//! Images from a registry. Manifests are taken as the bytes they are: encoded again they would have another digest.

use std::io::Write;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::{Client, secrets};

use crate::content::digest_of;
use crate::error::{ImageError, Result, decode};
use crate::manifest::{Descriptor, Index, Manifest, media_type};
use crate::reference::Reference;
use crate::store::{ImageRecord, ImageStore};

/// Layers at a time.
const DOWNLOADS_MAX: usize = 3;
/// Without a port it is no registry, but what builders call images that have none: whatever listens there is not asked.
const BUILT_HERE: &str = "localhost";
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    Bearer(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// Of the layer.
    pub digest: String,
    pub phase: PullPhase,
    pub done_bytes: u64,
    pub total_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPhase {
    Downloading,
    /// It was here before.
    AlreadyHere,
    Downloaded,
    /// All layers are being unpacked.
    Unpacking,
}

type Progress = Arc<dyn Fn(PullProgress) + Send + Sync>;

impl ImageStore {
    /// Gets an image, whole and unpacked. What is here already is not transferred again.
    pub async fn pull(
        &self,
        reference: &str,
        auth: &RegistryAuth,
        progress: impl Fn(PullProgress) + Send + Sync + 'static,
    ) -> Result<ImageRecord> {
        let reference: Reference = reference.parse()?;
        if reference.registry == BUILT_HERE {
            return Err(ImageError::NotBuilt { reference: reference.to_string() });
        }
        let adding = self.add().await?;
        let puller = Puller::new(self, reference, auth, Arc::new(progress))?;
        let (top, manifest_digest) = puller.manifests().await?;
        puller.blobs(&manifest_digest).await?;
        let mut names = vec![puller.reference.with_digest(&top).to_string()];
        if puller.reference.digest.is_none() {
            names.push(puller.reference.to_string());
        }
        puller.report(&manifest_digest, PullPhase::Unpacking, 0, 0);
        let store = self.clone();
        let unpack = tokio::task::spawn_blocking(move || store.complete(&manifest_digest, names));
        let record = unpack.await.map_err(ImageError::Worker)?;
        drop(adding);
        record
    }
}

struct Puller<'a> {
    store: &'a ImageStore,
    reference: Reference,
    client: Client,
    auth: secrets::RegistryAuth,
    progress: Progress,
}

impl<'a> Puller<'a> {
    fn new(
        store: &'a ImageStore,
        reference: Reference,
        auth: &RegistryAuth,
        progress: Progress,
    ) -> Result<Self> {
        // The client leaves the choice to the program. Somebody else having made it first is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain_http_hosts(&reference.registry)),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("kedge/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| ImageError::Registry {
            reference: reference.to_string(),
            message: error.to_string(),
        })?;
        let auth = match auth {
            RegistryAuth::Anonymous => secrets::RegistryAuth::Anonymous,
            RegistryAuth::Basic { username, password } => {
                secrets::RegistryAuth::Basic(username.clone(), password.clone())
            }
            RegistryAuth::Bearer(token) => secrets::RegistryAuth::Bearer(token.clone()),
        };
        Ok(Self { store, reference, client, auth, progress })
    }

    fn report(&self, digest: &str, phase: PullPhase, done_bytes: u64, total_bytes: u64) {
        (self.progress)(PullProgress { digest: digest.to_owned(), phase, done_bytes, total_bytes });
    }

    fn remote(&self, digest: Option<&str>) -> oci_client::Reference {
        let Reference { registry, repository, tag, digest: own } = self.reference.clone();
        match (digest.map(str::to_owned).or(own), tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest),
            (None, Some(tag)) => oci_client::Reference::with_tag(registry, repository, tag),
            (None, None) => oci_client::Reference::with_tag(registry, repository, "latest".into()),
        }
    }

    /// The digest the reference stands for, and that of the manifest for this machine.
    async fn manifests(&self) -> Result<(String, String)> {
        let (bytes, top) = self.manifest(None).await?;
        let kind: Kind = serde_json::from_slice(&bytes).map_err(|error| ImageError::Registry {
            reference: self.reference.to_string(),
            message: format!("what {} sent is not a manifest: {error}", self.reference.registry),
        })?;
        if !kind.is_index() {
            return Ok((top.clone(), top));
        }
        let index: Index = decode("image index", &bytes)?;
        let found =
            index.for_this_platform().ok_or_else(|| ImageError::NoPlatform { digest: top.clone() })?;
        let (_, digest) = self.manifest(Some(&found.digest)).await?;
        Ok((top, digest))
    }

    async fn manifest(&self, digest: Option<&str>) -> Result<(Vec<u8>, String)> {
        let expected = digest.or(self.reference.digest.as_deref());
        if let Some(expected) = expected.filter(|expected| self.store.content().contains(expected)) {
            return Ok((self.store.content().read(expected)?, expected.to_owned()));
        }
        let remote = self.remote(digest);
        let pulled = self.client.pull_manifest_raw(&remote, &self.auth, &media_type::MANIFESTS).await;
        let (bytes, _) = pulled.map_err(|error| self.explain(error))?;
        let actual = digest_of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Err(ImageError::Digest { expected: expected.to_owned(), actual });
        }
        self.store.content().add(&bytes)?;
        Ok((bytes.to_vec(), actual))
    }

    async fn blobs(&self, manifest_digest: &str) -> Result<()> {
        let manifest: Manifest = decode("manifest", &self.store.content().read(manifest_digest)?)?;
        let wanted = [&manifest.config].into_iter().chain(&manifest.layers);
        let downloads = futures::stream::iter(wanted.map(|descriptor| self.blob(descriptor)));
        downloads.buffer_unordered(DOWNLOADS_MAX).try_collect::<Vec<()>>().await.map(drop)
    }

    async fn blob(&self, descriptor: &Descriptor) -> Result<()> {
        let Descriptor { digest, size, .. } = descriptor;
        if self.store.content().contains(digest) {
            self.report(digest, PullPhase::AlreadyHere, *size, *size);
            return Ok(());
        }
        let wanted = OciDescriptor { digest: digest.clone(), size: *size as i64, ..OciDescriptor::default() };
        let pulled = self.client.pull_blob_stream(&self.remote(None), &wanted).await;
        let mut stream = pulled.map_err(|error| self.explain(error))?.stream;
        let mut writer = self.store.content().writer()?;
        let mut done = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| match error.to_string() {
                message if message.to_lowercase().contains("digest") => {
                    ImageError::Digest { expected: digest.clone(), actual: message }
                }
                message => ImageError::Registry { reference: self.reference.to_string(), message },
            })?;
            done += chunk.len() as u64;
            if done > *size {
                let message = format!("blob {digest} is larger than the {size} bytes it was said to have");
                return Err(ImageError::Registry { reference: self.reference.to_string(), message });
            }
            writer.write_all(&chunk).map_err(|source| ImageError::Io {
                operation: "write blob",
                path: self.store.root().to_owned(),
                source,
            })?;
            self.report(digest, PullPhase::Downloading, done, *size);
        }
        writer.commit(Some(digest))?;
        self.report(digest, PullPhase::Downloaded, done, *size);
        Ok(())
    }

    fn explain(&self, error: OciDistributionError) -> ImageError {
        let reference = self.reference.to_string();
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => ImageError::NotFound { reference },
            OciDistributionError::ServerError { code: 404, .. } => ImageError::NotFound { reference },
            OciDistributionError::UnauthorizedError { url } => {
                ImageError::Unauthorized { reference, message: format!("not authorized for {url}") }
            }
            OciDistributionError::AuthenticationFailure(message) => {
                ImageError::Unauthorized { reference, message }
            }
            OciDistributionError::ServerError { code: code @ (401 | 403), message, .. } => {
                ImageError::Unauthorized { reference, message: format!("{code} {message}") }
            }
            OciDistributionError::RegistryError { ref envelope, .. } => {
                let message = error.to_string();
                let has =
                    |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                    ImageError::NotFound { reference }
                } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                    ImageError::Unauthorized { reference, message }
                } else {
                    ImageError::Registry { reference, message }
                }
            }
            OciDistributionError::RequestError(error) => {
                let message = chain(&error);
                if error.is_connect() || error.is_timeout() || error.is_request() {
                    ImageError::Unreachable { reference, message }
                } else {
                    ImageError::Registry { reference, message }
                }
            }
            OciDistributionError::DigestError(error) => {
                ImageError::Digest { expected: reference, actual: error.to_string() }
            }
            other => ImageError::Registry { reference, message: other.to_string() },
        }
    }
}

/// Tells a list from a manifest, whatever it calls itself.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Option<Vec<serde::de::IgnoredAny>>,
}

impl Kind {
    fn is_index(&self) -> bool {
        [media_type::OCI_INDEX, media_type::DOCKER_LIST].contains(&self.media_type.as_str())
            || (self.media_type.is_empty() && self.manifests.is_some())
    }
}

/// This machine's own registries speak plain HTTP.
fn plain_http_hosts(registry: &str) -> Vec<String> {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let own = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    if own { vec![registry.to_owned()] } else { Vec::new() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
