//! Encryption of what is stored: AES-256-GCM with a key made for the cluster, in the form that kube-apiserver's
//! `aesgcm` provider writes (prefix, nonce, sealed bytes; the store's key is authenticated with them).

use std::path::Path;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::auth::certificates::{PkiError, write_private};

const PREFIX: &[u8] = b"k8s:enc:aesgcm:v1:kedge:";
const KEY_LENGTH: usize = 32;

#[derive(Debug, thiserror::Error)]
#[error("what is stored under {key} cannot be decrypted: it was written with another key, or is damaged")]
pub struct CipherError {
    key: String,
}

pub struct Cipher(LessSafeKey);

impl Cipher {
    /// Reads the key from a file, or makes it there.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        if !path.exists() {
            write_private(path, &base::id::random_bytes::<KEY_LENGTH>())?;
        }
        let bytes = std::fs::read(path).map_err(|source| PkiError::File { path: path.to_owned(), source })?;
        let invalid = |_| PkiError::Invalid { path: path.to_owned(), detail: "a key has 32 bytes".into() };
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(invalid)?)))
    }

    pub fn seal(&self, key: &str, plain: &[u8]) -> Result<Bytes, CipherError> {
        let nonce: [u8; NONCE_LEN] = base::id::random_bytes();
        let mut out = Vec::with_capacity(PREFIX.len() + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(PREFIX);
        out.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let done = self.0.seal_in_place_append_tag(nonce, Aad::from(key.as_bytes()), &mut sealed);
        done.map_err(|_| CipherError { key: key.to_owned() })?;
        out.append(&mut sealed);
        Ok(Bytes::from(out))
    }

    /// The plain bytes; what was stored before encryption is returned as it is.
    pub fn open_sealed(&self, key: &str, stored: &Bytes) -> Result<Bytes, CipherError> {
        let Some(body) = stored.strip_prefix(PREFIX) else { return Ok(stored.clone()) };
        let fault = || CipherError { key: key.to_owned() };
        let (nonce, sealed) = body.split_at_checked(NONCE_LEN).ok_or_else(fault)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| fault())?;
        let mut sealed = sealed.to_vec();
        let plain =
            self.0.open_in_place(nonce, Aad::from(key.as_bytes()), &mut sealed).map_err(|_| fault())?;
        Ok(Bytes::copy_from_slice(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_only_under_their_key() {
        let path = std::env::temp_dir().join(format!("kedge-t-cipher-{}", base::id::name_suffix(8)));
        let cipher = Cipher::open(&path).expect("a key");
        let sealed = cipher.seal("/registry/secrets/a/b", b"hidden").expect("seals");
        assert!(!sealed.windows(6).any(|w| w == b"hidden"));
        let again = Cipher::open(&path).expect("the same key");
        assert_eq!(again.open_sealed("/registry/secrets/a/b", &sealed).expect("opens"), "hidden");
        assert!(again.open_sealed("/registry/secrets/a/c", &sealed).is_err(), "moved to another place");
        std::fs::remove_file(path).expect("removes");
    }
}
