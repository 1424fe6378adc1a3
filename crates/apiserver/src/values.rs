//! Whether what a store holds can be read, without a server: for checks of stores and backups.

use std::path::Path;

use api::meta;
use store::Entry;

use crate::cipher::{Cipher, OpenError, Settings};

/// What the servers keep for themselves; no objects.
const INTERNAL: &str = "/registry/.kedge";

pub struct Values {
    /// `None`: the key is not here, so what is encrypted cannot be looked at.
    cipher: Option<Cipher>,
}

impl Values {
    /// With the key of a data directory's folder of keys, if it has one.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("encryption.key");
        let cipher = path.exists().then(|| Cipher::open(&path, &Settings::default())).transpose()?;
        Ok(Self { cipher })
    }

    /// What is wrong with an entry.
    pub fn check(&self, entry: &Entry) -> Result<(), String> {
        if entry.key.starts_with(INTERNAL) {
            return Ok(());
        }
        let plain = match &self.cipher {
            // Its checksum holds; what is in it only the server's configuration could tell.
            Some(cipher) if cipher.is_configured_elsewhere(&entry.value) => return Ok(()),
            Some(cipher) => cipher.open_sealed(&entry.key, &entry.value).map_err(|e| e.to_string())?,
            None if entry.value.starts_with(b"k8s:enc:") => {
                return Err("it is encrypted, and the key is not here: `pki/encryption.key`".into());
            }
            _ => entry.value.clone(),
        };
        let ours = match api::stored::ours(&plain) {
            Ok(ours) => ours,
            // What other servers keep for themselves is no object of ours, and no damage.
            Err(api::stored::StoredError::Protobuf(api::proto::ProtoError::UnknownKind { .. })) => {
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let object = meta::from_stored(&ours, entry.mod_revision).map_err(|e| e.to_string())?;
        match object["kind"].is_string() && object["apiVersion"].is_string() {
            true => Ok(()),
            false => Err("it says neither its kind nor its version".into()),
        }
    }
}
