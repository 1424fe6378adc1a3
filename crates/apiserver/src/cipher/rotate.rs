//! A new key for the cluster, and everything that the old one has sealed sealed anew. Whatever stops it, and whenever:
//! the keys of everything that is stored are in the file, the new one before anything is sealed with it, the old one
//! until nothing is; and a server that finds two begins again where the other was stopped.

use std::sync::Arc;

use store::{Change, Expect, Op, RangeRequest, Store, StoreError, TxnResponse};

use super::{Cipher, ENCRYPTED, KEY_LENGTH, Keyring, Rule, providers, read_keys};
use crate::auth::certificates::{PkiError, write_private};

/// Below it is all that is encrypted with the cluster's own key.
const ROOT: &str = "/registry/secrets/";
/// Entries that are looked at together.
const PAGE: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("the keys are those of --encryption-provider-config; change them there")]
    Configured,
    #[error(
        "other servers on the same store have the same key; use --encryption-provider-config with all of them"
    )]
    Shared,
    #[error("the key file: {0}")]
    Key(#[from] PkiError),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cipher(#[from] super::CipherError),
}

/// What a rotation came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// Entries that were sealed anew.
    pub entries: usize,
    /// Keys that are gone.
    pub keys: usize,
}

impl Cipher {
    /// All steps, one after the other.
    pub async fn rotate(&self, store: &dyn Store) -> Result<Rotated, RotateError> {
        if self.configured.is_some() {
            return Err(RotateError::Configured);
        }
        if store.is_shared() {
            return Err(RotateError::Shared);
        }
        self.begin().await?;
        self.finish(store).await
    }

    /// Whether a rotation was stopped before its end.
    pub fn is_unfinished(&self) -> Result<bool, PkiError> {
        Ok(self.configured.is_none() && read_keys(&self.key_file)?.len() > 1)
    }

    /// The new key is on disk, and from now on the one that seals.
    pub(super) async fn begin(&self) -> Result<(), RotateError> {
        let mut keys = vec![base::id::random_bytes::<KEY_LENGTH>()];
        keys.extend(read_keys(&self.key_file)?);
        write_private(&self.key_file, keys.as_flattened())?;
        // Whoever has sealed with the old key writes that before anything is looked at.
        let _writers = self.writing.write().await;
        self.hold(providers(&keys), &keys);
        Ok(())
    }

    fn hold(&self, own: Vec<Arc<super::Provider>>, keys: &[[u8; KEY_LENGTH]]) {
        let rules = vec![Rule::of_secrets(providers(keys))];
        *self.ring.write() = Arc::new(Keyring { rules, own });
    }

    /// Seals anew what other keys have sealed, and lets go of those.
    pub async fn finish(&self, store: &dyn Store) -> Result<Rotated, RotateError> {
        let mut entries = 0;
        loop {
            let found = self.reseal(store, usize::MAX).await?;
            entries += found;
            if found == 0 {
                break;
            }
        }
        // What was is sealed with the old key as well: who asks for it from now on has to begin again.
        store.compact(store.revision()).await?;
        let keys = self.retire()?;
        Ok(Rotated { entries, keys })
    }

    /// Seals anew at most so many entries, and says how many it were.
    pub(super) async fn reseal(&self, store: &dyn Store, most: usize) -> Result<usize, RotateError> {
        let newest = self.ring().own.first().cloned();
        let (mut done, mut after) = (0, None);
        loop {
            let request =
                RangeRequest { prefix: ROOT.into(), after: after.clone(), limit: PAGE, ..Default::default() };
            let page = store.range(request).await?.entries;
            let Some(last) = page.last() else { return Ok(done) };
            after = Some(last.key.to_string());
            for entry in &page {
                if done == most {
                    return Ok(done);
                }
                let Some(newest) = &newest else { return Ok(done) };
                let fresh = newest.is_fresh(&entry.key, &entry.value);
                if fresh || !entry.value.starts_with(ENCRYPTED) {
                    continue;
                }
                let plain = self.open_sealed(&entry.key, &entry.value)?;
                let sealed = newest.seal(&entry.key, &plain);
                let value = sealed
                    .map_err(|source| super::CipherError::Seal { key: entry.key.to_string(), source })?;
                let change = Change::Put { value, lease: entry.lease };
                let op = Op { key: entry.key.to_string(), expect: Expect::At(entry.mod_revision), change };
                // Who was faster has sealed with the new key, or deleted it; the next pass sees to the rest.
                if let TxnResponse::Committed { .. } = store.txn(vec![op]).await? {
                    done += 1;
                }
            }
        }
    }

    /// Only the newest key stays in the file; says how many went.
    pub(super) fn retire(&self) -> Result<usize, RotateError> {
        let keys = read_keys(&self.key_file)?;
        let (newest, rest) = keys.split_at(1);
        write_private(&self.key_file, newest.as_flattened())?;
        // In memory they stay: somebody may still be reading what was.
        self.hold(self.ring().own.clone(), newest);
        Ok(rest.len())
    }
}
