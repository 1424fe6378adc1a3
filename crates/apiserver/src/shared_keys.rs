//! Servers on one store must hold the same keys, or one could not read what another has encrypted, nor believe the
//! tokens and certificates that it has signed. The keys themselves stay on the servers; the store holds their
//! fingerprints, and a server whose keys are others refuses to start.

use serde_json::{Value, json};
use store::{Op, Store, TxnResponse};

use crate::auth::certificates::PkiError;
use crate::objects::store_error;
use crate::{Config, StartError};

const KEY: &str = "/registry/.kedge/keys";

/// Compares, or puts down what later servers compare with.
pub async fn check(store: &dyn Store, config: &Config) -> Result<(), StartError> {
    let read = |name: &str| {
        let path = config.folder.join(name);
        std::fs::read(&path).map_err(|source| PkiError::File { path, source })
    };
    let keys = [
        ("encryption key", read("encryption.key")?),
        ("key of service accounts", read("service-account.key")?),
        ("certificate authority", config.authority.as_bytes().to_vec()),
    ];
    let own: Value =
        keys.iter().map(|(name, bytes)| ((*name).to_owned(), json!(fingerprint(bytes)))).collect();
    let fault = |error| StartError::Bootstrap(store_error(error));
    match store.txn(vec![Op::create(KEY, own.to_string())]).await.map_err(fault)? {
        TxnResponse::Committed { .. } => Ok(()),
        TxnResponse::Conflict { current, .. } => {
            let held = current.and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
            let held = held.unwrap_or_default();
            let other = keys.iter().find(|(name, _)| held[*name] != own[*name]);
            other.map_or(Ok(()), |(name, _)| Err(StartError::OtherKeys((*name).to_owned())))
        }
    }
}

fn fingerprint(bytes: &[u8]) -> String {
    // A salt of our own, so that it tells nothing to whoever knows the digest from elsewhere.
    base::id::sha256_hex(&[b"kedge-key-fingerprint:", bytes].concat())
}
