//! Encryption of what is stored, in the forms that kube-apiserver stores. Without a configuration Secrets are encrypted
//! with a key that is made for the cluster (`aesgcm`, named `kedge`); with one (`--encryption-provider-config`) it says
//! what is encrypted and how, and what the cluster's own key has sealed can still be read.

mod config;
mod provider;
mod rotate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::kinds::Kind;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::auth::certificates::{PkiError, write_private};
use config::Rule;
use provider::{ENCRYPTED, Provider, Scheme};
pub use rotate::{RotateError, Rotated};

const OWN: &str = "kedge";
const KEY_LENGTH: usize = 32;
/// How often a configuration that may change is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the server is told of encryption. The parts are named as kube-apiserver's options name them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--encryption-provider-config`
    pub configuration_file: Option<PathBuf>,
    /// `--encryption-provider-config-automatic-reload`
    pub reload: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("what is stored under {key} cannot be decrypted: it was written with another key, or is damaged")]
pub struct CipherError {
    key: String,
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

struct Configured {
    path: PathBuf,
    reload: bool,
    looked: Mutex<(Instant, Option<SystemTime>)>,
}

pub struct Cipher {
    key_file: PathBuf,
    ring: RwLock<Arc<Keyring>>,
    configured: Option<Configured>,
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
        let (rules, configured) = match &settings.configuration_file {
            None => (vec![Rule::of_secrets(own.clone())], None),
            Some(file) => {
                let modified = modified(file);
                let looked = Mutex::new((Instant::now(), modified));
                let configured = Configured { path: file.clone(), reload: settings.reload, looked };
                (read_rules(file)?, Some(configured))
            }
        };
        let ring = RwLock::new(Arc::new(Keyring { rules, own }));
        Ok(Self { key_file: path.to_owned(), ring, configured, writing: Default::default() })
    }

    fn ring(&self) -> Arc<Keyring> {
        if let Some(configured) = self.configured.as_ref().filter(|c| c.reload) {
            self.look(configured);
        }
        Arc::clone(&self.ring.read())
    }

    /// Takes a configuration that has changed. One that cannot be read changes nothing.
    fn look(&self, configured: &Configured) {
        let mut looked = configured.looked.lock();
        if looked.0.elapsed() < LOOK_EVERY {
            return;
        }
        let now = modified(&configured.path);
        looked.0 = Instant::now();
        if now == looked.1 {
            return;
        }
        looked.1 = now;
        match read_rules(&configured.path) {
            Ok(rules) => {
                let own = self.ring.read().own.clone();
                *self.ring.write() = Arc::new(Keyring { rules, own });
                tracing::info!(path = %configured.path.display(), "encryption is configured anew");
            }
            Err(error) => tracing::error!(%error, "encryption stays as it was configured"),
        }
    }

    pub fn seals(&self, kind: &Kind) -> bool {
        self.ring().writer(kind).is_some_and(|provider| !provider.is_identity())
    }

    /// What is stored of an object of a kind.
    pub fn seal(&self, kind: &Kind, key: &str, plain: Bytes) -> Result<Bytes, CipherError> {
        match self.ring().writer(kind).filter(|provider| !provider.is_identity()) {
            None => Ok(plain),
            Some(provider) => provider.seal(key, &plain).ok_or_else(|| CipherError { key: key.to_owned() }),
        }
    }

    /// Whether it would be stored otherwise if it was stored now.
    pub fn is_stale(&self, kind: &Kind, key: &str, stored: &[u8]) -> bool {
        match self.ring().writer(kind).filter(|provider| !provider.is_identity()) {
            None => stored.starts_with(ENCRYPTED),
            Some(provider) => provider.open(key, stored).is_none(),
        }
    }

    /// Whether it was sealed under a name that only a configuration has: whoever has that can look at it.
    pub fn is_configured_elsewhere(&self, stored: &[u8]) -> bool {
        let own = format!("k8s:enc:{}:v1:{OWN}:", Scheme::AesGcm.name());
        self.configured.is_none() && stored.starts_with(ENCRYPTED) && !stored.starts_with(own.as_bytes())
    }

    /// The plain bytes; what was stored before encryption is returned as it is.
    pub fn open_sealed(&self, key: &str, stored: &Bytes) -> Result<Bytes, CipherError> {
        if !is_sealed(stored) {
            return Ok(stored.clone());
        }
        let ring = self.ring();
        let all = ring.rules.iter().flat_map(|rule| &rule.providers).chain(&ring.own);
        let opened = all.filter(|provider| !provider.is_identity()).find_map(|p| p.open(key, stored));
        opened.ok_or_else(|| CipherError { key: key.to_owned() })
    }
}

/// Whether what is stored can only be read with a key.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.starts_with(ENCRYPTED)
}

impl Keyring {
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

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn read_rules(path: &Path) -> Result<Vec<Rule>, OpenError> {
    let fault = |detail: String| OpenError::Configuration { path: path.display().to_string(), detail };
    let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
    config::parse(&text).map_err(|e| fault(e.to_string()))
}

#[cfg(test)]
mod tests;
