//! A certificate for `localhost` or other names, and the authority that signs it; requests for certificates of others, and whether
//! what they sign holds.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

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

/// What was signed, as PEM, from how it stands in an object of the API.
pub fn decoded(field: &str) -> String {
    String::from_utf8(STANDARD.decode(field).expect("base64")).expect("PEM")
}

/// A request for a certificate, as PEM.
pub struct Request {
    pub request: String,
    /// Which only who asks has.
    pub key: String,
}

impl Request {
    /// By whom, and what it is to serve.
    pub fn of(common_name: &str, organization: &str, names: &[&str]) -> Self {
        let names = names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("a key");
        let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        Self { request, key: key.serialize_pem() }
    }

    /// As it stands in an object of the API.
    pub fn encoded(&self) -> String {
        STANDARD.encode(&self.request)
    }

    /// Whether who trusts the authority speaks with a server of this name that shows the certificate that was signed.
    pub async fn serves(&self, authority: &str, certificate: &str, name: &str) -> Result<(), String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("added");
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, near);
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(far);
        let (connected, _) = tokio::join!(connecting, accepting);
        connected.map(drop).map_err(|e| e.to_string())
    }
}
