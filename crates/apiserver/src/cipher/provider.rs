//! One key and what is done with it, each in the form in which kube-apiserver stores it: a prefix that names provider
//! and key, then what that provider writes. Which bytes are authenticated with it, if any, is part of the form.

use std::sync::Arc;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use bytes::Bytes;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce as BoxNonce, XSalsa20Poly1305};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::kms::{Kms, KmsError};

/// What is encrypted begins so.
pub const ENCRYPTED: &[u8] = b"k8s:enc:";
const BLOCK: usize = 16;
const BOX_NONCE: usize = 24;
const BOX_TAG: usize = 16;

/// How a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    AesGcm,
    AesCbc,
    Secretbox,
}

impl Scheme {
    pub fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "aesgcm",
            Self::AesCbc => "aescbc",
            Self::Secretbox => "secretbox",
        }
    }

    /// The lengths that a key of it may have, in bytes.
    pub fn lengths(self) -> &'static [usize] {
        match self {
            Self::AesGcm => &[16, 32],
            Self::AesCbc => &[16, 24, 32],
            Self::Secretbox => &[32],
        }
    }
}

enum Key {
    Gcm(Box<LessSafeKey>),
    Cbc(Vec<u8>),
    Box(Box<XSalsa20Poly1305>),
    /// Somebody else has the key.
    Kms(Arc<Kms>),
    /// Nothing is done.
    Identity,
}

/// Why something cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum Unable {
    #[error("the key does not seal")]
    Key,
    #[error(transparent)]
    Kms(#[from] KmsError),
}

pub struct Provider {
    prefix: Vec<u8>,
    key: Key,
}

impl Provider {
    pub fn identity() -> Self {
        Self { prefix: Vec::new(), key: Key::Identity }
    }

    pub fn of_kms(kms: Arc<Kms>) -> Self {
        Self { prefix: Vec::new(), key: Key::Kms(kms) }
    }

    pub fn kms(&self) -> Option<&Arc<Kms>> {
        match &self.key {
            Key::Kms(kms) => Some(kms),
            _ => None,
        }
    }

    /// So begins what it has sealed.
    pub fn prefix(&self) -> String {
        match &self.key {
            Key::Kms(kms) => kms.prefix(),
            _ => String::from_utf8_lossy(&self.prefix).into_owned(),
        }
    }

    /// `None` when the key has a length that the scheme does not know.
    pub fn new(scheme: Scheme, name: &str, key: &[u8]) -> Option<Self> {
        if !scheme.lengths().contains(&key.len()) {
            return None;
        }
        let prefix = format!("k8s:enc:{}:v1:{name}:", scheme.name()).into_bytes();
        let key = match scheme {
            Scheme::AesGcm => {
                let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                Key::Gcm(Box::new(LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?)))
            }
            Scheme::AesCbc => Key::Cbc(key.to_vec()),
            Scheme::Secretbox => Key::Box(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)),
        };
        Some(Self { prefix, key })
    }

    pub fn is_identity(&self) -> bool {
        matches!(self.key, Key::Identity)
    }

    /// `place` is the key in the store.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Bytes, Unable> {
        match &self.key {
            Key::Kms(kms) => Ok(kms.seal(place, plain)?),
            _ => self.seal_here(place, plain).ok_or(Unable::Key),
        }
    }

    fn seal_here(&self, place: &str, plain: &[u8]) -> Option<Bytes> {
        let mut out = Vec::with_capacity(self.prefix.len() + plain.len() + 64);
        out.extend_from_slice(&self.prefix);
        match &self.key {
            Key::Identity => out.extend_from_slice(plain),
            Key::Kms(_) => return None,
            Key::Gcm(key) => {
                let nonce: [u8; NONCE_LEN] = base::id::random_bytes();
                out.extend_from_slice(&nonce);
                let mut sealed = plain.to_vec();
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, Aad::from(place.as_bytes()), &mut sealed).ok()?;
                out.append(&mut sealed);
            }
            Key::Cbc(key) => {
                let iv: [u8; BLOCK] = base::id::random_bytes();
                out.extend_from_slice(&iv);
                out.append(&mut cbc_seal(key, &iv, plain)?);
            }
            Key::Box(key) => {
                let nonce: [u8; BOX_NONCE] = base::id::random_bytes();
                out.extend_from_slice(&nonce);
                out.append(&mut key.encrypt(BoxNonce::from_slice(&nonce), plain).ok()?);
            }
        }
        Some(Bytes::from(out))
    }

    /// The plain bytes, if this key has sealed them. Only who asks somebody else for keys knows for certain that it has, and
    /// may be unable all the same.
    pub fn open(&self, place: &str, stored: &[u8]) -> Result<Option<Bytes>, KmsError> {
        match &self.key {
            Key::Kms(kms) if kms.has_sealed(stored) => kms.open(place, stored).map(Some),
            _ => Ok(self.open_here(place, stored)),
        }
    }

    /// Whether it would be stored so if it was stored now.
    pub fn is_fresh(&self, place: &str, stored: &[u8]) -> bool {
        match &self.key {
            Key::Kms(kms) => kms.is_fresh(stored),
            Key::Identity => !stored.starts_with(ENCRYPTED),
            _ => self.open_here(place, stored).is_some(),
        }
    }

    fn open_here(&self, place: &str, stored: &[u8]) -> Option<Bytes> {
        let body = stored.strip_prefix(self.prefix.as_slice())?;
        match &self.key {
            Key::Identity => (!stored.starts_with(ENCRYPTED)).then(|| Bytes::copy_from_slice(stored)),
            Key::Kms(_) => None,
            Key::Gcm(key) => {
                let (nonce, sealed) = body.split_at_checked(NONCE_LEN)?;
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut sealed = sealed.to_vec();
                let length = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed).ok()?.len();
                sealed.truncate(length);
                Some(Bytes::from(sealed))
            }
            Key::Cbc(key) => {
                let (iv, sealed) = body.split_at_checked(BLOCK)?;
                cbc_open(key, iv, sealed).map(Bytes::from)
            }
            Key::Box(key) => {
                let (nonce, sealed) = body.split_at_checked(BOX_NONCE)?;
                if sealed.len() < BOX_TAG {
                    return None;
                }
                key.decrypt(BoxNonce::from_slice(nonce), sealed).ok().map(Bytes::from)
            }
        }
    }
}

fn cbc_seal(key: &[u8], iv: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    Some(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(plain),
    })
}

fn cbc_open(key: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    match key.len() {
        16 => {
            cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed)
        }
        24 => {
            cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed)
        }
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
    }
    .ok()
}
