//! Encryption of what is stored, in the forms that kube-apiserver stores. Without a configuration Secrets are encrypted
//! with a key that is made for the cluster (`aesgcm`, named `kedge`); with one (`--encryption-provider-config`) it says
//! what is encrypted and how, and what the cluster's own key has sealed can still be read. Keys that a plugin keeps
//! (`kms/`) have to be asked for, which takes time: [`Cipher::unlock`] does that before anything is opened.

pub(crate) mod config;
pub mod kms;
mod metrics;
mod provider;
mod reload;
mod rotate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::kinds::Kind;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::auth::certificates::{PkiError, write_private};
use config::Rule;
use kms::KmsError;
use metrics::{Family, Metrics, NO_CALL, Way, resource_of};
use provider::{ENCRYPTED, Provider, Scheme, Unable};
use reload::Configured;
pub use rotate::{RotateError, Rotated};

const OWN: &str = "kedge";
const KEY_LENGTH: usize = 32;
/// What the server is told of encryption. The parts are named as kube-apiserver's options name them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--encryption-provider-config`
    pub configuration_file: Option<PathBuf>,
    /// `--encryption-provider-config-automatic-reload`
    pub reload: bool,
    /// How often holders of keys are asked; no option, as with kube-apiserver.
    pub kms: kms::Times,
}

#[derive(Debug, thiserror::Error)]
pub enum CipherError {
    #[error("what is stored under {key} cannot be decrypted: it was written with another key, or is damaged")]
    Open { key: String },
    #[error("unable to transform key {key:?}: {source}")]
    Locked { key: String, source: KmsError },
    #[error("what is to be stored under {key} cannot be encrypted: {source}")]
    Seal { key: String, source: Unable },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Key(#[from] PkiError),
    #[error("{path}: {detail}")]
    Configuration { path: String, detail: String },
}

/// The keys of one moment.
struct Keyring {
    rules: Vec<Rule>,
    /// The cluster's own keys, the newest first; and those that the file does not have any more, for who still looks at
    /// what was.
    own: Vec<Arc<Provider>>,
}

pub struct Cipher {
    key_file: PathBuf,
    ring: Arc<RwLock<Arc<Keyring>>>,
    configured: Option<Arc<Configured>>,
    metrics: Arc<Metrics>,
    /// Held by whoever writes what they have sealed; a rotation waits for them before it looks at what is stored.
    pub(crate) writing: tokio::sync::RwLock<()>,
}

impl Cipher {
    /// Reads the key from a file, or makes it there.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, OpenError> {
        if !path.exists() {
            write_private(path, &base::id::random_bytes::<KEY_LENGTH>())?;
        }
        let own = providers(&read_keys(path)?);
        let metrics = Arc::<Metrics>::default();
        let (rules, configured) = match &settings.configuration_file {
            None => (vec![Rule::of_secrets(own.clone())], None),
            Some(file) => {
                let configured = Configured::new(file, settings, &metrics);
                (configured.read()?, Some(Arc::new(configured)))
            }
        };
        let ring = Arc::new(RwLock::new(Arc::new(Keyring { rules, own })));
        ring.read().kms().for_each(|kms| kms.report_to(&metrics));
        Ok(Self { key_file: path.to_owned(), ring, configured, metrics, writing: Default::default() })
    }

    fn ring(&self) -> Arc<Keyring> {
        if let Some(configured) = self.configured.as_ref().filter(|c| c.reload) {
            configured.look(&self.ring);
        }
        Arc::clone(&self.ring.read())
    }

    /// Asks those who keep keys, and goes on asking how they are. One that does not answer stops nothing here.
    pub async fn start(&self) {
        for kms in self.ring().kms() {
            kms.start().await;
        }
    }

    /// How those are who keep keys, as the check `kms-providers` says it; `None` where there is no such check.
    pub async fn health(&self) -> Option<Result<(), String>> {
        let ring = self.ring();
        if !self.has_health() {
            return None;
        }
        let mut faults = Vec::new();
        for (index, kms) in ring.kms().enumerate() {
            faults.extend(kms.check().await.err().map(|error| format!("kms-provider-{index}: {error}")));
        }
        Some(match faults.as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        })
    }

    pub fn has_health(&self) -> bool {
        self.reloads() || self.ring().kms().next().is_some()
    }

    /// How long nothing can be opened by at least one of those who keep keys.
    pub fn locked_for(&self) -> std::time::Duration {
        self.ring().kms().map(|kms| kms.opens_nothing_for()).max().unwrap_or_default()
    }

    /// Whether the configuration is read again when it changes.
    pub fn reloads(&self) -> bool {
        self.configured.as_ref().is_some_and(|configured| configured.reload)
    }

    pub fn seals(&self, kind: &Kind) -> bool {
        self.ring().writer(kind).is_some_and(|provider| !provider.is_identity())
    }

    /// What is stored of an object of a kind.
    pub fn seal(&self, kind: &Kind, key: &str, plain: Bytes) -> Result<Bytes, CipherError> {
        match self.ring().writer(kind).filter(|provider| !provider.is_identity()) {
            None => Ok(plain),
            Some(provider) => {
                let began = Instant::now();
                let sealed = provider.seal(key, &plain);
                let status = if sealed.is_ok() { "OK" } else { NO_CALL };
                self.transformed(Way::ToStorage, key, &provider.prefix(), (began, status));
                sealed.map_err(|source| CipherError::Seal { key: key.to_owned(), source })
            }
        }
    }

    /// One more transformation, and what came of it.
    fn transformed(&self, way: Way, key: &str, prefix: &str, (began, status): (Instant, &str)) {
        let (way, resource) = (("transformation_type", way.name()), resource_of(key));
        let prefix = ("transformer_prefix", prefix);
        let labels = [("resource", resource.as_str()), way, prefix, ("status", status)];
        self.metrics.count(Family::Operations, &labels);
        if status == "OK" {
            self.metrics.observe(Family::Durations, &[way, prefix], began.elapsed());
        }
    }

    pub fn write_metrics(&self, out: &mut String) -> std::fmt::Result {
        self.metrics.write(out)
    }

    /// Whether it would be stored otherwise if it was stored now.
    pub fn is_stale(&self, kind: &Kind, key: &str, stored: &[u8]) -> bool {
        match self.ring().writer(kind) {
            None => stored.starts_with(ENCRYPTED),
            Some(provider) => !provider.is_fresh(key, stored),
        }
    }

    /// The plain bytes; what was stored before encryption is returned as it is.
    pub fn open_sealed(&self, key: &str, stored: &Bytes) -> Result<Bytes, CipherError> {
        if !is_sealed(stored) {
            return Ok(stored.clone());
        }
        let (ring, began) = (self.ring(), Instant::now());
        for provider in ring.providers().chain(&ring.own).filter(|provider| !provider.is_identity()) {
            match provider.open(key, stored) {
                Ok(None) => {}
                Ok(Some(plain)) => {
                    self.transformed(Way::FromStorage, key, &provider.prefix(), (began, "OK"));
                    return Ok(plain);
                }
                Err(source) => {
                    self.transformed(Way::FromStorage, key, &provider.prefix(), (began, source.code()));
                    return Err(CipherError::Locked { key: key.to_owned(), source });
                }
            }
        }
        self.transformed(Way::FromStorage, key, "unknown", (began, NO_CALL));
        Err(CipherError::Open { key: key.to_owned() })
    }

    /// Sees to it that what is stored can be opened without waiting for anybody, which whoever keeps its key may have to be
    /// asked for.
    pub async fn unlock(&self, key: &str, stored: &[u8]) -> Result<(), CipherError> {
        if !may_be_locked(stored) {
            return Ok(());
        }
        let ring = self.ring();
        match ring.kms().find(|kms| kms.has_sealed(stored)) {
            None => Ok(()),
            Some(kms) => {
                let began = Instant::now();
                kms.unlock(stored).await.map_err(|source| {
                    self.transformed(Way::FromStorage, key, &kms.prefix(), (began, source.code()));
                    CipherError::Locked { key: key.to_owned(), source }
                })
            }
        }
    }
}

/// Whether somebody may have to be asked before it can be opened.
pub fn may_be_locked(stored: &[u8]) -> bool {
    stored.starts_with(kms::STORED)
}

/// Whether what is stored can only be read with a key.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(ENCRYPTED)
}

/// Whether it was sealed under a name that only a configuration has: whoever has that can look at it.
pub fn is_sealed_elsewhere(stored: &[u8]) -> bool {
    let own = format!("k8s:enc:{}:v1:{OWN}:", Scheme::AesGcm.name());
    is_sealed(stored) && !stored.starts_with(own.as_bytes())
}

impl Keyring {
    fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.rules.iter().flat_map(|rule| &rule.providers)
    }

    fn kms(&self) -> impl Iterator<Item = &Arc<kms::Kms>> {
        self.providers().filter_map(|provider| provider.kms())
    }

    fn writer(&self, kind: &Kind) -> Option<&Arc<Provider>> {
        self.rules.iter().find(|rule| rule.is_about(kind))?.providers.first()
    }
}

/// The cluster's own keys, the newest first.
fn read_keys(path: &Path) -> Result<Vec<[u8; KEY_LENGTH]>, PkiError> {
    let bytes = std::fs::read(path).map_err(|source| PkiError::File { path: path.to_owned(), source })?;
    let (keys, rest) = bytes.as_chunks::<KEY_LENGTH>();
    if keys.is_empty() || !rest.is_empty() {
        let detail = format!("a key has {KEY_LENGTH} bytes");
        return Err(PkiError::Invalid { path: path.to_owned(), detail });
    }
    Ok(keys.to_vec())
}

fn providers(keys: &[[u8; KEY_LENGTH]]) -> Vec<Arc<Provider>> {
    keys.iter().filter_map(|key| Provider::new(Scheme::AesGcm, OWN, key)).map(Arc::new).collect()
}

#[cfg(test)]
mod tests;
