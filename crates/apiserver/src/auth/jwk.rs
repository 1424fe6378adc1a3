//! Keys of others, as JWK sets publish them, and the signatures they make. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;

/// A JWT taken apart; nothing of it has been verified.
pub struct Jwt<'a> {
    pub algorithm: String,
    pub key_id: String,
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

impl<'a> Jwt<'a> {
    pub fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).ok()?;
        let text = |field: &str| header[field].as_str().unwrap_or_default().to_owned();
        // What must be understood and is not known is refused.
        if !claims.is_object() || header.get("crit").is_some() {
            return None;
        }
        let (algorithm, key_id) = (text("alg"), text("kid"));
        Some(Self { algorithm, key_id, claims, signed, signature: decode(signature)? })
    }

    /// Whether a key made the signature. The key says which algorithms it is for, the token chooses among them.
    pub fn is_signed_by(&self, key: &Value) -> bool {
        let named = key["kid"].as_str().unwrap_or_default();
        let for_other = key["alg"].as_str().is_some_and(|alg| alg != self.algorithm)
            || key["use"].as_str().is_some_and(|usage| usage != "sig")
            || !self.key_id.is_empty() && !named.is_empty() && named != self.key_id;
        if for_other {
            return false;
        }
        let part = |field: &str| key[field].as_str().and_then(decode);
        match key["kty"].as_str().unwrap_or_default() {
            "RSA" => self.by_rsa(part("n"), part("e")),
            "EC" => self.by_curve(key["crv"].as_str().unwrap_or_default(), part("x"), part("y")),
            "OKP" if self.algorithm == "EdDSA" && key["crv"] == "Ed25519" => part("x").is_some_and(|x| {
                UnparsedPublicKey::new(&signature::ED25519, x)
                    .verify(self.signed.as_bytes(), &self.signature)
                    .is_ok()
            }),
            _ => false,
        }
    }

    fn by_rsa(&self, n: Option<Vec<u8>>, e: Option<Vec<u8>>) -> bool {
        let parameters: &RsaParameters = match self.algorithm.as_str() {
            "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
            "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
            "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
            "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
            "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
            "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        let (Some(n), Some(e)) = (n, e) else { return false };
        RsaPublicKeyComponents { n, e }.verify(parameters, self.signed.as_bytes(), &self.signature).is_ok()
    }

    fn by_curve(&self, curve: &str, x: Option<Vec<u8>>, y: Option<Vec<u8>>) -> bool {
        let algorithm: &dyn signature::VerificationAlgorithm = match (self.algorithm.as_str(), curve) {
            ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
            ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return false,
        };
        let (Some(x), Some(y)) = (x, y) else { return false };
        let point = [&[4u8][..], &x, &y].concat();
        UnparsedPublicKey::new(algorithm, point).verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    /// Whether its time is now. One without an end is never good.
    pub fn is_timely(&self, now_seconds: i64) -> bool {
        let at = |field: &str| self.claims[field].as_f64();
        // A clock may be a little ahead of ours.
        let begun = |at: f64| at <= (now_seconds + LEEWAY_SECONDS) as f64;
        at("exp").is_some_and(|end| (now_seconds as f64) < end) && at("nbf").is_none_or(begun)
    }
}

const LEEWAY_SECONDS: i64 = 10;
