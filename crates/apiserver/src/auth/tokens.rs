//! Service-account tokens: JWTs signed with ES256, bound to an audience, an expiry, an account and, when asked
//! for, a pod. Whether the account and the pod still exist is checked when a token is used.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::certificates::{PkiError, write_private};

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
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Reference {
    pub name: String,
    pub uid: String,
}

pub struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
}

impl Signer {
    /// Reads the key from a file, or makes it there.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        let random = SystemRandom::new();
        let invalid = |detail: String| PkiError::Invalid { path: path.to_owned(), detail };
        if !path.exists() {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            write_private(path, made.map_err(|e| invalid(e.to_string()))?.as_ref())?;
        }
        let bytes = std::fs::read(path).map_err(|source| PkiError::File { path: path.to_owned(), source })?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes, &random);
        let key = key.map_err(|e| invalid(e.to_string()))?;
        let key_id = base::id::sha256_hex(key.public_key().as_ref())[..16].to_owned();
        Ok(Self { key, key_id })
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let header = json!({"alg": "ES256", "kid": self.key_id, "typ": "JWT"}).to_string();
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature =
            self.key.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| TokenError::Signature)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Checks form, signature, times and that one of `audiences` is among the token's.
    pub fn verify(&self, token: &str, audiences: &[&str], now_seconds: i64) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header: serde_json::Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        // The algorithm is ours to say, never the token's.
        if header["alg"] != "ES256" {
            return Err(TokenError::Malformed);
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| TokenError::Signature)?;
        let claims: Claims = serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)?;
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

    /// The public key as a JWK set, for those who verify tokens themselves.
    pub fn jwks(&self) -> serde_json::Value {
        let point = self.key.public_key().as_ref();
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]})
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
        let path = std::env::temp_dir().join(format!("kedge-t-key-{}", base::id::name_suffix(8)));
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
        std::fs::remove_file(path).expect("removes");
    }
}
