//! A certificate for `localhost` or other names, and the authority that signs it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

pub struct Certificate {
    /// The authority's own certificate, as PEM.
    pub authority: String,
    /// The certificate itself and its key, as PEM.
    pub certificate: String,
    pub key: String,
    config: Arc<rustls::ServerConfig>,
}

impl Certificate {
    /// For `localhost`.
    pub fn new() -> Self {
        Self::of(&["localhost"])
    }

    pub fn of(names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
            .expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signed");
        let key_pem = key.serialize_pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .expect("a certificate and its key");
        Self {
            authority: authority.pem(),
            certificate: certificate.pem(),
            key: key_pem,
            config: Arc::new(config),
        }
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}
