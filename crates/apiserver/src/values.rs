//! Whether what a store holds can be read, without a server: for checks of stores and backups.

use std::path::{Path, PathBuf};

use api::meta;
use store::Entry;

use crate::cipher::{self, Cipher, CipherError, OpenError, Settings};

/// What the servers keep for themselves; no objects.
const INTERNAL: &str = "/registry/.kedge";

pub struct Values {
    /// `None`: the key is not here, so what is encrypted cannot be looked at.
    cipher: Option<Cipher>,
    key_file: PathBuf,
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is encrypted, and its key is not here")]
    NoKey,
    #[error(transparent)]
    NotOpened(#[from] CipherError),
    #[error("{0}")]
    Damaged(String),
}

impl Values {
    /// With the key of a data directory's folder of keys, if it has one.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let key_file = folder.join("encryption.key");
        let cipher = key_file.exists().then(|| Cipher::open(&key_file, &Settings::default())).transpose()?;
        Ok(Self { cipher, key_file })
    }

    /// Where the key is looked for.
    pub fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// What is wrong with an entry.
    pub fn check(&self, entry: &Entry) -> Result<(), Unreadable> {
        // The checksum of what a configuration's keys have sealed holds; what is in it only who has that could tell.
        if entry.key.starts_with(INTERNAL) || cipher::is_sealed_elsewhere(&entry.value) {
            return Ok(());
        }
        let damaged = |why: String| Err(Unreadable::Damaged(why));
        let plain = match &self.cipher {
            Some(cipher) => cipher.open_sealed(&entry.key, &entry.value)?,
            None if cipher::is_sealed(&entry.value) => return Err(Unreadable::NoKey),
            None => entry.value.clone(),
        };
        let ours = match api::stored::ours(&plain) {
            Ok(ours) => ours,
            // What other servers keep for themselves is no object of ours, and no damage.
            Err(api::stored::StoredError::Protobuf(api::proto::ProtoError::UnknownKind { .. })) => {
                return Ok(());
            }
            Err(error) => return damaged(error.to_string()),
        };
        let object = match meta::from_stored(&ours, entry.mod_revision) {
            Ok(object) => object,
            Err(error) => return damaged(error.to_string()),
        };
        match object["kind"].is_string() && object["apiVersion"].is_string() {
            true => Ok(()),
            false => damaged("it says neither its kind nor its version".into()),
        }
    }
}
