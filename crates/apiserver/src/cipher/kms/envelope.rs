//! What is stored of an object whose key somebody else keeps: a protobuf message of kube-apiserver's (`EncryptedObject`)
//! with the sealed object, and with what the key's holder needs to give the data key back. Pure: the data key is handed in.
//!
//! Since v1.29 the data key is a *seed*: HMAC-based key derivation (its second half alone, RFC 5869 section 2.3) makes of it
//! and 32 random bytes a key for AES-256-GCM that is used once; the random bytes stand before nonce and sealed bytes. Before,
//! it was the key itself. Both are read; seeds are written.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};

/// Of a seed, and of what is mixed into it.
pub const SEED_BYTES: usize = 32;
const INFO_BYTES: usize = 32;
const KEY_ID_LIMIT_BYTES: usize = 1024;
const SOURCE_LIMIT_BYTES: usize = 1024;
const ANNOTATIONS_LIMIT_BYTES: usize = 32 * 1024;

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    #[error("it is no EncryptedObject: {0}")]
    Message(String),
    #[error("unknown encryptedDEKSourceType: {0}")]
    SourceType(i32),
    #[error("encrypted data is empty")]
    NoData,
    #[error("failed to validate encrypted DEK source: encrypted DEK source is {0}")]
    Source(String),
    #[error("failed to validate key id: {0}")]
    KeyId(String),
    #[error("failed to validate annotations: {0}")]
    Annotations(String),
    #[error("invalid seed length {0} used for key generation")]
    Seed(usize),
    #[error("invalid key size {0}")]
    Key(usize),
}

/// As it is stored, by the field numbers that kube-apiserver publishes.
#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    encrypted_dek_source_type: i32,
}

/// How a data key comes of what the holder gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// It is the key.
    AesGcmKey,
    /// Each object's key is derived from it.
    Seed,
}

impl SourceType {
    fn number(self) -> i32 {
        match self {
            Self::AesGcmKey => 0,
            Self::Seed => 1,
        }
    }
}

/// A data key as its holder has sealed it, and what it wants to be told to open it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub key_id: String,
    pub sealed: Vec<u8>,
    pub annotations: BTreeMap<String, Vec<u8>>,
    pub source_type: SourceType,
}

impl Source {
    /// Whether it may be stored, and may have been.
    pub fn check(&self) -> Result<(), EnvelopeError> {
        match self.sealed.len() {
            0 => return Err(EnvelopeError::Source("empty".into())),
            length if length > SOURCE_LIMIT_BYTES => {
                let why = format!("{length} bytes, which exceeds the max size of {SOURCE_LIMIT_BYTES}");
                return Err(EnvelopeError::Source(why));
            }
            _ => {}
        }
        check_key_id(&self.key_id).map_err(EnvelopeError::KeyId)?;
        check_annotations(&self.annotations).map_err(EnvelopeError::Annotations)
    }

    /// What names its data key. Every part has its length before it, so that no two sources have the same.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        part(&self.source_type.number().to_be_bytes());
        part(&self.sealed);
        part(self.key_id.as_bytes());
        for (key, value) in &self.annotations {
            part(key.as_bytes());
            part(value);
        }
        let mut out = [0; 32];
        out.copy_from_slice(context.finish().as_ref());
        out
    }
}

pub fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("keyID is empty".into()),
        length if length > KEY_ID_LIMIT_BYTES => {
            Err(format!("keyID is {length} bytes, which exceeds the max size of {KEY_ID_LIMIT_BYTES}"))
        }
        _ => Ok(()),
    }
}

fn check_annotations(annotations: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    for key in annotations.keys() {
        check_domain(key).map_err(|why| format!("annotations: Invalid value: {key:?}: {why}"))?;
    }
    let total: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    match total > ANNOTATIONS_LIMIT_BYTES {
        true => Err(format!(
            "total size of annotations is {total}, which exceeds the max size of {ANNOTATIONS_LIMIT_BYTES}"
        )),
        false => Ok(()),
    }
}

/// A fully qualified domain name: two labels at least, and a dot at the end if it likes.
fn check_domain(name: &str) -> Result<(), &'static str> {
    use api::kinds::names;
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.contains('.') {
        _ if !names::is_subdomain(name) => Err("it is no domain name of RFC 1123"),
        false => Err("should be a domain with at least two segments separated by dots"),
        true if !name.split('.').all(names::is_label) => Err("a segment has no more than 63 characters"),
        true => Ok(()),
    }
}

/// What was stored behind the prefix: the data key's source, and the sealed bytes.
pub fn read(stored: &[u8]) -> Result<(Source, Vec<u8>), EnvelopeError> {
    let object = EncryptedObject::decode(stored).map_err(|e| EnvelopeError::Message(e.to_string()))?;
    let source_type = match object.encrypted_dek_source_type {
        0 => SourceType::AesGcmKey,
        1 => SourceType::Seed,
        other => return Err(EnvelopeError::SourceType(other)),
    };
    if object.encrypted_data.is_empty() {
        return Err(EnvelopeError::NoData);
    }
    let EncryptedObject { key_id, encrypted_dek_source: sealed, annotations, .. } = object;
    let source = Source { key_id, sealed, annotations, source_type };
    source.check()?;
    Ok((source, object.encrypted_data))
}

/// What is to be stored, behind its prefix.
pub fn write(prefix: &[u8], source: &Source, data: Vec<u8>) -> Bytes {
    let object = EncryptedObject {
        encrypted_data: data,
        key_id: source.key_id.clone(),
        encrypted_dek_source: source.sealed.clone(),
        annotations: source.annotations.clone(),
        encrypted_dek_source_type: source.source_type.number(),
    };
    let mut out = Vec::with_capacity(prefix.len() + object.encoded_len());
    out.extend_from_slice(prefix);
    object.encode(&mut out).expect("a Vec grows");
    Bytes::from(out)
}

/// A data key in the open. Never shown.
pub enum Dek {
    Key(Box<LessSafeKey>),
    Seed(Box<Prk>),
}

impl Dek {
    pub fn new(source_type: SourceType, bytes: &[u8]) -> Result<Self, EnvelopeError> {
        match source_type {
            SourceType::Seed if bytes.len() < SEED_BYTES => Err(EnvelopeError::Seed(bytes.len())),
            SourceType::Seed => Ok(Self::Seed(Box::new(Prk::new_less_safe(HKDF_SHA256, bytes)))),
            SourceType::AesGcmKey => {
                let algorithm = if bytes.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let key = UnboundKey::new(algorithm, bytes).map_err(|_| EnvelopeError::Key(bytes.len()))?;
                Ok(Self::Key(Box::new(LessSafeKey::new(key))))
            }
        }
    }

    /// Seals an object, bound to its place. `None` with a bare key: how often that may be used nobody counts, so it only opens.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal_with(place, plain, &base::id::random_bytes(), base::id::random_bytes())
    }

    fn seal_with(
        &self,
        place: &str,
        plain: &[u8],
        info: &[u8; INFO_BYTES],
        nonce: [u8; NONCE_LEN],
    ) -> Option<Vec<u8>> {
        let Self::Seed(seed) = self else { return None };
        let key = derived(seed, info)?;
        let mut sealed = plain.to_vec();
        let (aad, once) = (Aad::from(place.as_bytes()), Nonce::assume_unique_for_key(nonce));
        key.seal_in_place_append_tag(once, aad, &mut sealed).ok()?;
        Some([info, &nonce[..], &sealed].concat())
    }

    /// The plain bytes; `None` if it was not this that has sealed them, or not for this place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Option<Bytes> {
        match self {
            Self::Key(key) => open(key, place, sealed),
            Self::Seed(seed) => {
                let (info, sealed) = sealed.split_at_checked(INFO_BYTES)?;
                open(&derived(seed, info)?, place, sealed)
            }
        }
    }
}

fn derived(seed: &Prk, info: &[u8]) -> Option<LessSafeKey> {
    let info = [info];
    let expanded = seed.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

fn open(key: &LessSafeKey, place: &str, sealed: &[u8]) -> Option<Bytes> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut sealed = sealed.to_vec();
    let length = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(Bytes::from(sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &[u8] = b"k8s:enc:kms:v2:mine:";
    const PLACE: &str = "/registry/secrets/default/a";

    /// What kube-apiserver v1.36.2 had in its etcd, and the seed that it had its plugin seal.
    const SEALED_BY_THE_ORIGINAL: &str = "azhzOmVuYzprbXM6djI6bWluZToKjgK6OdRIxDXul9csTY0hoY/rGQ8/ZlfcGY6WtUmqEr8PeSrgHxHjOI2dQHLFLZZRFEyjkWgcclzKo8omaAhAQ7yo8V/9lUFnj6dpu1w8iFvPhCJHtXLTnHNx4qQLorU1opnkxcxvVxiBziS2FEE0N0jE81dpQUyrBuvDB0+LpzDFeiVicmpatCvyqNQj1gWz/hVR5gqHYAbSg5i2u1KoLOrnusGFOGCWfaYTgS28WExkH10LwRr0dGjijdE7SOfYtz/HBf6lrhXTk45s7osLe04xTo4IrcFWtkDqHb+iRXwI4wrUnfuONwPNBUA/CDHUulicKjUSSdZjOgGUK8wOuF6oObJeGAZ28jFH8wSLmm4SBWtleS0xGidzZWFsZWQ67JgI5jrI2Cc2Pv+cuQUy9oCr0tFNoTZsvQRFEIp94oUiGAoTdmVyc2lvbi5leGFtcGxlLmNvbRIBMSgB";
    const SEED_OF_THE_ORIGINAL: &str = "b6c252bc6092827d6c64a5c6e35f68acdaf1888b17fb6c36e75e1f4ad027b8df";

    fn hex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
    }

    fn source() -> Source {
        Source {
            key_id: "key-1".into(),
            sealed: vec![1, 2, 3],
            annotations: BTreeMap::from([("version.example.com".into(), b"1".to_vec())]),
            source_type: SourceType::Seed,
        }
    }

    #[test]
    fn what_the_original_has_sealed_is_opened_and_bound_to_its_place() {
        use base64::Engine;
        let stored = base64::engine::general_purpose::STANDARD.decode(SEALED_BY_THE_ORIGINAL);
        let stored = stored.expect("base64");
        let (source, data) = read(stored.strip_prefix(PREFIX).expect("the prefix")).expect("an object");
        assert_eq!((source.key_id.as_str(), source.source_type), ("key-1", SourceType::Seed));
        let seed = hex(SEED_OF_THE_ORIGINAL);
        let expected: Vec<u8> = seed.iter().map(|byte| byte ^ 0x5a).collect();
        assert_eq!(source.sealed, [b"sealed:", &expected[..]].concat());
        assert_eq!(source.annotations, BTreeMap::from([("version.example.com".into(), b"1".to_vec())]));
        let dek = Dek::new(source.source_type, &seed).expect("a seed");
        let plain = dek.open(PLACE, &data).expect("opens");
        let object: serde_json::Value =
            serde_json::from_slice(&api::stored::ours(&plain).expect("an object")).expect("JSON");
        assert_eq!(object["data"]["k"], "aGlkZGVuLXdvcmRz");
        assert!(dek.open("/registry/secrets/default/b", &data).is_none(), "moved to another place");
        assert_eq!(write(PREFIX, &source, data), stored, "written again it is the same, byte for byte");
    }

    /// The very bytes of a seal, so that the form cannot change unseen: they are those of another implementation of HKDF and
    /// of AES-GCM, for the same seed, random bytes and nonce.
    #[test]
    fn the_form_of_a_seal() {
        let dek = Dek::new(SourceType::Seed, &[7; 32]).expect("a seed");
        let sealed = dek.seal_with("/p", b"plain", &[1; 32], [2; 12]).expect("seals");
        assert_eq!((&sealed[..32], &sealed[32..44]), (&[1; 32][..], &[2; 12][..]));
        assert_eq!(sealed[44..], hex("cd25b50ecf1afe857dae2191fa7d300f19475802ff"));
        assert_eq!(dek.open("/p", &sealed).as_deref(), Some(&b"plain"[..]));
    }

    #[test]
    fn keys_of_before_seeds_open_and_do_not_seal() {
        for length in [16, 32] {
            let key = vec![9; length];
            let algorithm = if length == 16 { &AES_128_GCM } else { &AES_256_GCM };
            let unbound = UnboundKey::new(algorithm, &key).expect("a key");
            let mut sealed = b"plain".to_vec();
            let nonce = Nonce::assume_unique_for_key([3; NONCE_LEN]);
            LessSafeKey::new(unbound)
                .seal_in_place_append_tag(nonce, Aad::from(PLACE.as_bytes()), &mut sealed)
                .expect("seals");
            let data = [&[3; NONCE_LEN][..], &sealed].concat();
            let dek = Dek::new(SourceType::AesGcmKey, &key).expect("a key");
            assert_eq!(dek.open(PLACE, &data).as_deref(), Some(&b"plain"[..]));
            assert!(dek.seal(PLACE, b"plain").is_none());
        }
        assert!(matches!(Dek::new(SourceType::AesGcmKey, &[1; 31]), Err(EnvelopeError::Key(31))));
        assert!(matches!(Dek::new(SourceType::Seed, &[1; 31]), Err(EnvelopeError::Seed(31))));
        let old = Source { source_type: SourceType::AesGcmKey, ..source() };
        let (back, _) = read(&write(b"", &old, vec![1])).expect("an object");
        assert_eq!(back, old);
    }

    #[test]
    fn what_is_cut_short_or_changed_is_refused_and_nothing_panics() {
        let dek = Dek::new(SourceType::Seed, &[7; 32]).expect("a seed");
        let sealed = dek.seal(PLACE, b"plain").expect("seals");
        let stored = write(b"", &source(), sealed);
        let opened = |stored: &[u8]| read(stored).ok().and_then(|(_, data)| dek.open(PLACE, &data));
        assert_eq!(opened(&stored).as_deref(), Some(&b"plain"[..]));
        for end in 0..stored.len() {
            // Fields at the end may go without harm to what is sealed, but not without the key being another's.
            let cut = read(&stored[..end]);
            assert!(cut.is_err() || cut.is_ok_and(|(cut, _)| cut.digest() != source().digest()), "{end}");
        }
    }

    fn refused(change: impl FnOnce(&mut Source), expected: &str) {
        let mut source = source();
        change(&mut source);
        let told = source.check().err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(told, expected);
        let read = read(&write(b"", &source, vec![1])).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(read, expected, "and when it is read");
    }

    #[test]
    fn what_a_plugin_may_say_is_bounded() {
        let (key_id, dek) = (
            "failed to validate key id: keyID is",
            "failed to validate encrypted DEK source: encrypted DEK source is",
        );
        refused(|s| s.key_id.clear(), &format!("{key_id} empty"));
        refused(
            |s| s.key_id = "k".repeat(1025),
            &format!("{key_id} 1025 bytes, which exceeds the max size of 1024"),
        );
        refused(|s| s.key_id = "k".repeat(1024), "");
        refused(|s| s.sealed.clear(), &format!("{dek} empty"));
        refused(
            |s| s.sealed = vec![1; 1025],
            &format!("{dek} 1025 bytes, which exceeds the max size of 1024"),
        );
        refused(|s| s.sealed = vec![1; 1024], "");
        let of = |key: &str, length: usize| {
            let key = key.to_owned();
            move |s: &mut Source| s.annotations = BTreeMap::from([(key, vec![1; length])])
        };
        refused(of("a.b", 32 * 1024 - 3), "");
        refused(
            of("a.b", 32 * 1024 - 2),
            "failed to validate annotations: total size of annotations is 32769, which exceeds the max size of 32768",
        );
        refused(of("a.b.", 1), "");
        let invalid = |key: &str, why: &str| {
            refused(
                of(key, 1),
                &format!("failed to validate annotations: annotations: Invalid value: {key:?}: {why}"),
            );
        };
        invalid("a", "should be a domain with at least two segments separated by dots");
        invalid("A.b", "it is no domain name of RFC 1123");
        invalid("", "it is no domain name of RFC 1123");
        invalid(&format!("{}.b", "a".repeat(64)), "a segment has no more than 63 characters");
        let unknown =
            EncryptedObject { encrypted_data: vec![1], encrypted_dek_source_type: 2, ..Default::default() };
        assert_eq!(read(&unknown.encode_to_vec()), Err(EnvelopeError::SourceType(2)));
        assert_eq!(read(&write(b"", &source(), Vec::new())), Err(EnvelopeError::NoData));
    }

    #[test]
    fn no_two_sources_share_a_name() {
        let names = [
            source(),
            Source { source_type: SourceType::AesGcmKey, ..source() },
            Source { sealed: vec![1, 2], key_id: "\u{3}key-1".into(), ..source() },
            Source { annotations: BTreeMap::new(), ..source() },
            Source {
                annotations: BTreeMap::from([("version.example.co".into(), b"m1".to_vec())]),
                ..source()
            },
        ];
        let digests: std::collections::BTreeSet<[u8; 32]> = names.iter().map(Source::digest).collect();
        assert_eq!(digests.len(), names.len());
    }
}
