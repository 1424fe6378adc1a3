//! TLS: what the server shows, which may be replaced while it runs, and what it holds of who connects.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use crate::auth::Identity;
use crate::auth::certificates::{Credential, PkiError, identity, validity};
use crate::auth::request_header::RequestHeader;

fn invalid(error: &dyn std::fmt::Display) -> PkiError {
    PkiError::Invalid { path: "the serving certificate".into(), detail: error.to_string() }
}

/// The certificate that is shown. Connections that begin after it is replaced see the new one.
#[derive(Debug)]
pub struct Serving(RwLock<Arc<CertifiedKey>>);

impl Serving {
    pub fn new(credential: &Credential) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self(RwLock::new(certified(credential)?))))
    }

    pub fn replace(&self, credential: &Credential) -> Result<(), PkiError> {
        *self.0.write() = certified(credential)?;
        Ok(())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

fn certified(credential: &Credential) -> Result<Arc<CertifiedKey>, PkiError> {
    let (chain, key) = credential.parse()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| invalid(&e))?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn verifier(bundles: &[&str], insist: bool) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let mut roots = RootCertStore::empty();
    for bundle in bundles {
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.map_err(|e| invalid(&e))?).map_err(|e| invalid(&e))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if insist { verifier } else { verifier.allow_unauthenticated() };
    verifier.build().map_err(|e| invalid(&e))
}

/// Lets in only who has a certificate of `authority`; HTTP/1.1, which upgrades need.
pub fn node_tls(serving: Arc<Serving>, authority: &str) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    config(serving, verifier(&[authority], true)?, &[b"http/1.1"])
}

fn config(
    serving: Arc<Serving>,
    verifier: Arc<dyn ClientCertVerifier>,
    protocols: &[&[u8]],
) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(serving);
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Who may connect with a certificate, and as what: a user, or a proxy that says in headers for whom it speaks. Each has
/// an authority of its own, and what one signs is nothing to the other.
pub struct Doorkeeper {
    users: Arc<dyn ClientCertVerifier>,
    proxies: Option<(Arc<dyn ClientCertVerifier>, RequestHeader)>,
    either: Arc<dyn ClientCertVerifier>,
}

/// What a connection's certificate proves, for as long as it is good.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    user: Option<Identity>,
    proxy: Option<RequestHeader>,
    not_after: i64,
}

impl Doorkeeper {
    pub fn new(users: &str, proxies: Option<&RequestHeader>) -> Result<Self, PkiError> {
        let mut bundles = vec![users];
        bundles.extend(proxies.map(|p| p.authority.as_str()));
        let either = verifier(&bundles, false)?;
        let proxies = match proxies {
            Some(header) => Some((verifier(&[&header.authority], false)?, header.clone())),
            None => None,
        };
        Ok(Self { users: verifier(&[users], false)?, proxies, either })
    }

    /// Asks for, but does not insist on, a client certificate: a token may come instead.
    pub fn tls(&self, serving: Arc<Serving>) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        config(serving, Arc::clone(&self.either), &[b"h2", b"http/1.1"])
    }

    pub fn meet(&self, chain: &[CertificateDer<'_>]) -> Peer {
        let Some((own, rest)) = chain.split_first() else { return Peer::default() };
        let now = UnixTime::now();
        let signed = |by: &Arc<dyn ClientCertVerifier>| by.verify_client_cert(own, rest, now).is_ok();
        let found = identity(own);
        let name = found.as_ref().map(|who| who.username.clone()).unwrap_or_default();
        let proxy = self.proxies.as_ref().filter(|(by, header)| signed(by) && header.trusts(&name));
        Peer {
            user: found.filter(|_| signed(&self.users)),
            proxy: proxy.map(|(_, header)| header.clone()),
            not_after: validity(own).map_or(0, |(_, not_after)| not_after),
        }
    }
}

impl Peer {
    /// Whom a request over this connection is from. A connection may outlive the certificate it began with.
    pub fn identity(&self, headers: &http::HeaderMap, now_seconds: i64) -> Option<Identity> {
        if now_seconds > self.not_after {
            return None;
        }
        let spoken_for = self.proxy.as_ref().and_then(|header| header.identity(headers));
        spoken_for.or_else(|| self.user.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::certificates::{Authority, Usage};

    fn authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(folder.path()).expect("made");
        (folder, authority)
    }

    #[test]
    fn a_certificate_is_worth_what_its_authority_is_for_and_for_as_long_as_it_is_good() {
        let ((_a, users), (_b, proxies), (_c, strangers)) = (authority(), authority(), authority());
        let header = RequestHeader {
            authority: proxies.certificate.clone(),
            allowed_names: vec!["front".into()],
            ..RequestHeader::default()
        };
        let door = Doorkeeper::new(&users.certificate, Some(&header)).expect("a door");
        let mut claims = http::HeaderMap::new();
        claims.insert("x-remote-user", http::HeaderValue::from_static("jane"));
        claims.insert("x-remote-group", http::HeaderValue::from_static("system:masters"));
        let now = base::time::now().as_second();
        let who = |by: &Authority, name: &str, at: i64| {
            let credential = by.issue_for(name, Usage::Client { group: "g".into() }, 1000).expect("issues");
            let (chain, _) = credential.parse().expect("parses");
            door.meet(&chain).identity(&claims, at).map(|who| who.username)
        };
        assert_eq!(who(&users, "root", now).as_deref(), Some("root"), "headers of a user count for nothing");
        assert_eq!(who(&users, "front", now).as_deref(), Some("front"), "also under a proxy's name");
        assert_eq!(who(&proxies, "front", now).as_deref(), Some("jane"));
        assert_eq!(who(&proxies, "other", now), None, "not a proxy that is allowed to");
        assert_eq!(who(&strangers, "root", now), None);
        assert_eq!(who(&users, "root", now + 2000), None, "it has expired meanwhile");
        assert!(door.meet(&[]).identity(&claims, now).is_none());
    }
}
