//! Service-account tokens: JWTs signed with ES256, bound to an audience, an expiry, an account and, when asked
//! for, a pod. Whether the account and the pod still exist is checked when a token is used.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::certificates::{PkiError, write_private};
use super::legacy_tokens::{self, LegacyClaims};

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("the token is not a JWT of this cluster")]
    Malformed,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another audience")]
    Audience,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub nbf: i64,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
}

/// What a token is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

/// The longest that a token may be good for.
pub const LIFETIME_MAX_SECONDS: i64 = 365 * 24 * 3600;
/// A key signs for this long; then there is a new one.
const KEY_SECONDS: i64 = 365 * 24 * 3600 / 5 * 4;

/// Signs with one key, and knows those that it has signed with before for as long as their tokens may be good.
pub struct Signer {
    path: PathBuf,
    keys: RwLock<Keys>,
}

struct Keys {
    key: EcdsaKeyPair,
    key_id: String,
    older: Vec<Older>,
}

/// The public half of a key that signs no longer.
#[derive(Clone, Serialize, Deserialize)]
struct Older {
    point: String,
    until: i64,
}

fn id_of(point: &[u8]) -> String {
    base::id::sha256_hex(point)[..16].to_owned()
}

impl Signer {
    /// Reads the key from a file, or makes it there. What it signed with before is beside it.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        if !path.exists() {
            Self::make(path)?;
        }
        let key = Self::read(path)?;
        let key_id = id_of(key.public_key().as_ref());
        let older = match std::fs::read(path.with_extension("old")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Self::invalid(path, &e))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(PkiError::File { path: path.to_owned(), source }),
        };
        Ok(Self { path: path.to_owned(), keys: RwLock::new(Keys { key, key_id, older }) })
    }

    fn invalid(path: &Path, detail: &dyn std::fmt::Display) -> PkiError {
        PkiError::Invalid { path: path.to_owned(), detail: detail.to_string() }
    }

    fn make(path: &Path) -> Result<(), PkiError> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        write_private(path, made.map_err(|e| Self::invalid(path, &e))?.as_ref())
    }

    fn read(path: &Path) -> Result<EcdsaKeyPair, PkiError> {
        let bytes = std::fs::read(path).map_err(|source| PkiError::File { path: path.to_owned(), source })?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes, &SystemRandom::new())
            .map_err(|e| Self::invalid(path, &e))
    }

    /// Signs with a new key from now on. Tokens of the old one stay good: its public half is on disk before the new key
    /// replaces it. It stays there for good, for tokens that lie in Secrets have no end.
    pub fn rotate(&self, now_seconds: i64) -> Result<(), PkiError> {
        let mut keys = self.keys.write();
        let mut older = keys.older.clone();
        let point = URL_SAFE_NO_PAD.encode(keys.key.public_key().as_ref());
        older.push(Older { point, until: now_seconds + LIFETIME_MAX_SECONDS });
        let bytes = serde_json::to_vec(&older).map_err(|e| Self::invalid(&self.path, &e))?;
        write_private(&self.path.with_extension("old"), &bytes)?;
        Self::make(&self.path)?;
        let key = Self::read(&self.path)?;
        *keys = Keys { key_id: id_of(key.public_key().as_ref()), key, older };
        Ok(())
    }

    /// Rotates when the key's file is old enough.
    pub fn rotate_when_due(&self, now_seconds: i64) -> Result<(), PkiError> {
        let file = std::fs::metadata(&self.path).and_then(|found| found.modified());
        let made = file.map_err(|source| PkiError::File { path: self.path.clone(), source })?;
        let made = made.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        match i64::try_from(made).is_ok_and(|made| now_seconds - made >= KEY_SECONDS) {
            true => self.rotate(now_seconds),
            false => Ok(()),
        }
    }

    pub fn sign(&self, claims: &impl Serialize) -> Result<String, TokenError> {
        let keys = self.keys.read();
        let header = json!({"alg": "ES256", "kid": keys.key_id, "typ": "JWT"}).to_string();
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature =
            keys.key.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| TokenError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What a token says that was signed with one of these keys.
    fn signed<T: DeserializeOwned>(&self, token: &str, points: &[Vec<u8>]) -> Result<T, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header: serde_json::Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        // The algorithm is ours to say, never the token's; it only names which of our keys it is by.
        if header["alg"] != "ES256" {
            return Err(TokenError::Malformed);
        }
        let point = points.iter().find(|point| header["kid"] == id_of(point)).ok_or(TokenError::Signature)?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        public.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
        serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)
    }

    /// Checks form, signature and issuer of a token that lies in a Secret: it has no end, and is for this server alone.
    pub(super) fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, TokenError> {
        let claims: LegacyClaims = self.signed(token, &self.points(i64::MIN))?;
        if claims.iss == legacy_tokens::ISSUER { Ok(claims) } else { Err(TokenError::Malformed) }
    }

    /// Checks form, signature, times and that one of `audiences` is among the token's.
    pub fn verify(&self, token: &str, audiences: &[&str], now_seconds: i64) -> Result<Claims, TokenError> {
        let claims: Claims = self.signed(token, &self.points(now_seconds))?;
        if claims.iss != ISSUER {
            return Err(TokenError::Malformed);
        }
        if now_seconds >= claims.exp || now_seconds < claims.nbf {
            return Err(TokenError::Expired);
        }
        match claims.aud.iter().any(|a| audiences.contains(&a.as_str())) {
            true => Ok(claims),
            false => Err(TokenError::Audience),
        }
    }

    /// The public keys by which a token may be signed, the present one first.
    fn points(&self, now_seconds: i64) -> Vec<Vec<u8>> {
        let keys = self.keys.read();
        let older = keys.older.iter().filter(|o| o.until > now_seconds);
        let older = older.filter_map(|o| URL_SAFE_NO_PAD.decode(&o.point).ok());
        std::iter::once(keys.key.public_key().as_ref().to_vec()).chain(older).collect()
    }

    /// The public keys as a JWK set, for those who verify tokens themselves.
    pub fn jwks(&self) -> serde_json::Value {
        let points = self.points(base::time::now().as_second());
        let key = |point: &Vec<u8>| {
            let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
            json!({
                "use": "sig", "kty": "EC", "kid": id_of(point), "crv": "P-256", "alg": "ES256",
                "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
            })
        };
        json!({"keys": points.iter().map(key).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            iss: ISSUER.into(),
            sub: "system:serviceaccount:a:b".into(),
            aud: vec!["api".into()],
            exp: 200,
            iat: 100,
            nbf: 100,
            jti: "x".into(),
            kubernetes: Bound::default(),
        }
    }

    #[test]
    fn only_what_was_signed_for_the_audience_and_the_time_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let signer = Signer::open(&path).expect("a key");
        let token = signer.sign(&claims()).expect("signs");
        assert_eq!(signer.verify(&token, &["api"], 150), Ok(claims()));
        assert_eq!(signer.verify(&token, &["other"], 150), Err(TokenError::Audience));
        assert_eq!(signer.verify(&token, &["api"], 200), Err(TokenError::Expired));
        assert_eq!(signer.verify(&token, &["api"], 99), Err(TokenError::Expired));
        let parts: Vec<&str> = token.split('.').collect();
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert_eq!(
            signer.verify(&format!("{unsigned}.{}.", parts[1]), &["api"], 150),
            Err(TokenError::Malformed)
        );
        let other =
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Claims { exp: 900, ..claims() }).expect("JSON"));
        let forged = format!("{}.{other}.{}", parts[0], parts[2]);
        assert_eq!(signer.verify(&forged, &["api"], 150), Err(TokenError::Signature));
        assert_eq!(Signer::open(&path).expect("reads").verify(&token, &["api"], 150), Ok(claims()));
    }

    #[test]
    fn tokens_outlive_the_key_they_were_signed_with() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let signer = Signer::open(&path).expect("a key");
        let before = signer.sign(&claims()).expect("signs");
        signer.rotate(100).expect("rotates");
        let after = signer.sign(&claims()).expect("signs");
        let again = Signer::open(&path).expect("reads");
        for signer in [&signer, &again] {
            assert_eq!(signer.verify(&before, &["api"], 150), Ok(claims()));
            assert_eq!(signer.verify(&after, &["api"], 150), Ok(claims()));
        }
        let (first, second) = (before.split('.').next(), after.split('.').next());
        assert_ne!(first, second, "another key signs");
        let late = 100 + LIFETIME_MAX_SECONDS;
        assert_eq!(
            again.verify(&before, &["api"], late),
            Err(TokenError::Signature),
            "the old key is forgotten"
        );
        assert_eq!(again.verify(&after, &["api"], late), Err(TokenError::Expired));
    }

    #[test]
    fn tokens_without_an_end_are_of_their_own_kind_and_outlive_every_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let signer = Signer::open(&path).expect("a key");
        let claims_of_secret = LegacyClaims::new("a", ("b", "u"), "s");
        let token = signer.sign(&claims_of_secret).expect("signs");
        for year in 1..4 {
            signer.rotate(year * LIFETIME_MAX_SECONDS).expect("rotates");
        }
        let again = Signer::open(&path).expect("reads");
        assert_eq!(again.verify_legacy(&token), Ok(claims_of_secret));
        assert!(again.verify(&token, &[ISSUER], 150).is_err(), "it is no other token");
        let bound = again.sign(&claims()).expect("signs");
        assert_eq!(again.verify_legacy(&bound), Err(TokenError::Malformed), "and no other is it");
        let forged = LegacyClaims::new("a", ("root", "u"), "s");
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&forged).expect("JSON"));
        let parts: Vec<&str> = token.split('.').collect();
        let forged = format!("{}.{body}.{}", parts[0], parts[2]);
        assert_eq!(again.verify_legacy(&forged), Err(TokenError::Signature));
    }
}
