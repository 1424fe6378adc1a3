//! Repositories behind `http://` and `https://`: mirrored on this machine, then read like any other.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use gix::protocol::transport::client::blocking_io::http::{Options, reqwest as backend};
use gix::remote::Direction;
use gix::remote::fetch::RefMap;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::{SourceError, names_below, open};

/// How to show oneself to a remote repository, and whom to trust: the keys of the Secret that `spec.secretRef` names.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<String>,
    pub bearer_token: Option<String>,
    /// Authorities that are trusted instead of the machine's, as PEM.
    pub authorities: Option<Vec<u8>>,
    /// A client's certificate and its key, as PEM.
    pub identity: Option<Vec<u8>>,
}

/// Every branch and tag, under its own name.
const REFSPECS: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

/// Brings the mirror up to date. Blocks; `cancel` ends it early.
pub fn fetch(
    url: &str,
    mirror: &Path,
    login: Option<&Login>,
    cancel: &AtomicBool,
) -> Result<gix::Repository, SourceError> {
    let failed =
        |error: &dyn std::error::Error| SourceError::Fetch { url: url.to_owned(), detail: chain(error) };
    let mut address = gix::url::parse(gix::bstr::BStr::new(url)).map_err(|e| failed(&e))?;
    if let Some(login) = login {
        address.set_user(login.username.clone());
        address.set_password(login.password.clone());
    }
    if !mirror.join("HEAD").exists() {
        if let Some(parent) = mirror.parent() {
            std::fs::create_dir_all(parent).map_err(|e| failed(&e))?;
        }
        gix::init_bare(mirror).map_err(|e| failed(&e))?;
    }
    let repository = open(mirror)?;
    {
        let remote = repository.remote_at(address).map_err(|e| failed(&e))?;
        let remote = remote.with_refspecs(REFSPECS, Direction::Fetch).map_err(|e| failed(&e))?;
        let mut connection = remote.connect(Direction::Fetch).map_err(|e| failed(&e))?;
        if let Some(login) = login {
            let client = client(login).map_err(|e| failed(&e))?;
            connection.set_transport_options(Box::new(options(client)));
        }
        let prepared =
            connection.prepare_fetch(gix::progress::Discard, Default::default()).map_err(|e| failed(&e))?;
        let outcome = prepared.receive(gix::progress::Discard, cancel).map_err(|e| failed(&e))?;
        forget_deleted(&repository, &outcome.ref_map).map_err(|e| failed(&*e))?;
    }
    open(mirror)
}

/// An error and what caused it: the cause is what says that a certificate is not trusted.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// What the HTTP client is to be built with.
struct Client {
    headers: HeaderMap,
    authorities: Vec<reqwest::Certificate>,
    identity: Option<reqwest::Identity>,
}

#[derive(Debug, thiserror::Error)]
enum LoginError {
    #[error("the Secret's bearerToken is not a header's value")]
    Token,
    #[error("the Secret's {key} holds no certificate in PEM form: {source}")]
    Pem { key: &'static str, source: reqwest::Error },
    #[error("the Secret's ca.crt holds no certificate in PEM form")]
    NoAuthority,
}

fn client(login: &Login) -> Result<Client, LoginError> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &login.bearer_token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| LoginError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let authorities = match &login.authorities {
        Some(pem) => reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|source| LoginError::Pem { key: "ca.crt", source })?,
        None => Vec::new(),
    };
    if login.authorities.is_some() && authorities.is_empty() {
        return Err(LoginError::NoAuthority);
    }
    let identity = login.identity.as_deref().map(reqwest::Identity::from_pem).transpose();
    let identity = identity.map_err(|source| LoginError::Pem { key: "tls.crt and tls.key", source })?;
    Ok(Client { headers, authorities, identity })
}

fn options(client: Client) -> Options {
    let configure = move |mut builder: reqwest::blocking::ClientBuilder| {
        builder = builder.default_headers(client.headers.clone());
        if !client.authorities.is_empty() {
            builder = builder.tls_certs_only(client.authorities.clone());
        }
        if let Some(identity) = &client.identity {
            builder = builder.identity(identity.clone());
        }
        Ok(builder)
    };
    let backend = backend::Options { configure_client: Some(Box::new(configure)), configure_request: None };
    Options { backend: Some(Arc::new(Mutex::new(backend))), ..Options::default() }
}

/// A branch or tag that is gone there must not be deployed from here.
fn forget_deleted(
    repository: &gix::Repository,
    map: &RefMap,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let there: std::collections::BTreeSet<String> =
        map.remote_refs.iter().map(|r| r.unpack().0.to_string()).collect();
    for prefix in ["refs/heads/", "refs/tags/"] {
        for name in names_below(repository, prefix) {
            let name = format!("{prefix}{name}");
            if !there.contains(&name) {
                repository.find_reference(name.as_str())?.delete()?;
            }
        }
    }
    Ok(())
}
