//! The way to nodes, and to what pods and services serve: HTTPS to the agent, HTTP or HTTPS to the others, with upgraded
//! connections passed through byte by byte. Pages from there have their links changed (`page.rs`).

mod html;
mod links;
mod page;
mod path;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use ::http::{Request, StatusCode};
use api::status::ApiError;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::auth::certificates::{Credential, PkiError};
use crate::backend;
use crate::http::body::{Body, boxed};
use crate::http::respond::Answer;
use crate::{Dial, Server};

pub use links::Links;
pub use page::through as links_changed;
pub use path::cleaned;

pub struct Nodes {
    tls: RwLock<TlsConnector>,
    /// For what pods and services serve: nobody knows who signs their certificates.
    anyone: TlsConnector,
    authority: String,
    dial: Arc<dyn Dial>,
}

impl Nodes {
    pub fn new(client: &Credential, authority: &str, dial: Arc<dyn Dial>) -> Result<Self, PkiError> {
        let tls = RwLock::new(Self::connector(client, authority)?);
        let config = backend::tls_config(None, true, None)
            .map_err(|e| PkiError::Invalid { path: "the way to services".into(), detail: e.to_string() })?;
        let anyone = TlsConnector::from(Arc::new(config));
        Ok(Self { tls, anyone, authority: authority.to_owned(), dial })
    }

    /// Connections from now on show another certificate.
    pub fn replace(&self, client: &Credential) -> Result<(), PkiError> {
        *self.tls.write() = Self::connector(client, &self.authority)?;
        Ok(())
    }

    fn connector(client: &Credential, authority: &str) -> Result<TlsConnector, PkiError> {
        let invalid =
            |detail: String| PkiError::Invalid { path: "the node client certificate".into(), detail };
        let mut roots = RootCertStore::empty();
        let authority =
            CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        roots.add(authority).map_err(|e| invalid(e.to_string()))?;
        let (chain, key) = client.parse()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| invalid(e.to_string()))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| invalid(e.to_string()))?;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Sends a request to an agent under another path and returns its answer; an upgrade is carried through.
    pub async fn forward(
        &self,
        address: SocketAddr,
        path: &str,
        request: Request<Body>,
    ) -> Result<Answer, ApiError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            ApiError::internal(format!("error dialing backend {address}: {what}: {error}"))
        };
        let stream = self.dial.dial(address).await.map_err(|e| failed("connect", &e))?;
        let name = ServerName::from(address.ip());
        let tls = self.tls.read().clone();
        let stream = tls.connect(name, stream).await.map_err(|e| failed("TLS", &e))?;
        let host = HeaderValue::from_str(&address.to_string()).map_err(|e| failed("address", &e))?;
        let mut request = request;
        // The agent must not see who the client is by its secrets, only that the server asks.
        request.headers_mut().remove(::http::header::AUTHORIZATION);
        exchange(stream, host, path, request).await.map_err(|error| match error {
            ExchangeError::Refused(error) => error,
            other => failed("request", &other),
        })
    }

    /// Sends a request to what a pod, a service or another port of a node serves.
    pub async fn forward_to(
        &self,
        (address, secure): (SocketAddr, bool),
        host: HeaderValue,
        path: &str,
        request: Request<Body>,
    ) -> Result<Answer, ApiError> {
        let dialed = self.dial.dial(address).await;
        let stream =
            dialed.map_err(|e| unreachable_service(&format!("dial tcp {address}: {}", dialing(&e))))?;
        let exchanged = match secure {
            false => exchange(stream, host, path, request).await,
            true => match self.anyone.connect(ServerName::from(address.ip()), stream).await {
                Ok(stream) => exchange(stream, host, path, request).await,
                Err(error) => Err(ExchangeError::Tls(error)),
            },
        };
        exchanged.map_err(|error| match error {
            ExchangeError::Refused(error) => error,
            ExchangeError::Tls(error) if !speaks_tls(&error) => {
                unreachable_service("http: server gave HTTP response to HTTPS client")
            }
            other => unreachable_service(&other.to_string()),
        })
    }
}

pub fn unreachable_service(why: &str) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}

/// Why nobody was reached, in the words that clients know.
fn dialing(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn speaks_tls(error: &io::Error) -> bool {
    let fault = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    !matches!(fault, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error("tls: {0}")]
    Tls(#[source] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// What the client asks for cannot be.
    #[error(transparent)]
    Refused(ApiError),
}

/// One request over a connection of its own, which an upgrade takes over.
async fn exchange<S>(
    stream: S,
    host: HeaderValue,
    path: &str,
    request: Request<Body>,
) -> Result<Answer, ExchangeError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let (mut parts, body) = request.into_parts();
    let client_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = parts.method;
    let refused = |_| ExchangeError::Refused(ApiError::bad_request("the path cannot be passed on"));
    *outgoing.uri_mut() = path.parse().map_err(refused)?;
    *outgoing.headers_mut() = parts.headers;
    outgoing.headers_mut().insert(HOST, host);
    let answer = sender.send_request(outgoing).await?;
    through(answer.map(boxed), client_upgrade).map_err(ExchangeError::Refused)
}

/// The answer of a server that a request was passed on to; where the protocol is switched, both sides are joined.
pub fn through(mut answer: Answer, client: Option<hyper::upgrade::OnUpgrade>) -> Result<Answer, ApiError> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut answer);
        let client = client.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
        tokio::spawn(splice(client, backend));
        let headers = answer.headers_mut();
        headers.entry(CONNECTION).or_insert(HeaderValue::from_static("Upgrade"));
        headers.entry(UPGRADE).or_insert(HeaderValue::from_static("websocket"));
        return Ok(answer.map(|_| crate::http::body::full(bytes::Bytes::new())));
    }
    // The framing is this connection's own.
    answer.headers_mut().remove(CONNECTION);
    answer.headers_mut().remove(TRANSFER_ENCODING);
    Ok(answer)
}

async fn splice(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade) {
    let (client, node) = match tokio::try_join!(client, node) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "an upgrade failed"),
    };
    let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
        tracing::debug!(%error, "an upgraded connection ended");
    }
}

impl Server {
    /// Where a node's agent listens.
    pub(crate) async fn node_address(&self, name: &str) -> Result<SocketAddr, ApiError> {
        let kinds = self.catalog.snapshot();
        let kind = kinds.find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
        let (_, node) = self
            .objects
            .get(kind, "", name)
            .await?
            .ok_or_else(|| ApiError::not_found(&kind.resource(), name))?;
        let addresses = node["status"]["addresses"].as_array();
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|a| a["type"] == "InternalIP")
            .and_then(|a| a["address"].as_str());
        let ip = internal
            .and_then(|a| a.parse().ok())
            .ok_or_else(|| ApiError::internal(format!("no preferred addresses found for node {name}")))?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(base::constants::ports::KUBELET);
        Ok(SocketAddr::new(ip, port))
    }
}
