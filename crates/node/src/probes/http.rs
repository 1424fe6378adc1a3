//! An HTTP question: dialled inside the node's namespace, certificates not looked at, redirects counted as success.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use net::namespace::{Namespace, NamespaceError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::ask::{plain, port_of};

const BODY_BYTES_MAX: usize = 10 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("dial tcp {address}: {}", plain(source))]
    Dial {
        address: SocketAddr,
        #[source]
        source: NamespaceError,
    },
    #[error("{0}")]
    Tls(#[source] std::io::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("{}", plain(.0))]
    Exchange(#[from] hyper::Error),
}

pub struct Request {
    tls: bool,
    address: SocketAddr,
    host: String,
    path: String,
    headers: Vec<(String, String)>,
}

pub struct Status {
    pub code: u16,
}

impl Request {
    pub fn from_action(action: &HTTPGetAction, pod_ip: IpAddr, port: u16) -> Self {
        let host = action.host.as_deref().filter(|host| !host.is_empty());
        let ip = host.and_then(|host| host.parse().ok()).unwrap_or(pod_ip);
        let path = action.path.as_deref().unwrap_or("/");
        let headers = action.http_headers.iter().flatten();
        Self {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            address: SocketAddr::new(ip, port),
            host: host.map_or_else(|| ip.to_string(), str::to_owned),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        }
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}{}", self.host, self.address.port(), self.path)
    }
}

pub async fn get(node: &Namespace, request: &Request) -> Result<Status, HttpError> {
    let address = request.address;
    let stream = node.connect_tcp(address).await.map_err(|source| HttpError::Dial { address, source })?;
    if !request.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(unverified()).connect(name, stream).await.map_err(HttpError::Tls)?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: &Request) -> Result<Status, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut builder = http::Request::get(&request.path);
    let named = |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !named("host") {
        builder = builder.header(http::header::HOST, format!("{}:{}", request.host, request.address.port()));
    }
    if !named("user-agent") {
        let agent = format!("kube-probe/1.{}", base::constants::KUBERNETES_MINOR);
        builder = builder.header(http::header::USER_AGENT, agent);
    }
    if !named("accept") {
        builder = builder.header(http::header::ACCEPT, "*/*");
    }
    builder = builder.header(http::header::CONNECTION, "close");
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let response = sender.send_request(builder.body(Empty::<Bytes>::new())?).await;
    let response = match response {
        Ok(response) => response,
        Err(error) => {
            driver.abort();
            return Err(error.into());
        }
    };
    let code = response.status().as_u16();
    // A little of the body is read so that a server that writes its answer slowly is not cut off in the middle.
    let mut body = response.into_body();
    let mut seen = 0;
    while seen < BODY_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else { break };
        seen += frame.data_ref().map_or(0, Bytes::len);
    }
    driver.abort();
    Ok(Status { code })
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error(transparent)]
    Ask(#[from] super::ask::AskError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// A lifecycle hook over HTTP: any answer will do.
pub async fn http_hook(
    node: &Namespace,
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: IpAddr,
    limit: Duration,
) -> Result<(), HookError> {
    let port = port_of(&action.port, container)?;
    let request = Request::from_action(action, pod_ip, port);
    match tokio::time::timeout(limit, get(node, &request)).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(_) => Err(HookError::Timeout(limit)),
    }
}

/// A probe asks whether somebody answers, not who: the kubelet does not verify either.
fn unverified() -> Arc<ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<ClientConfig>> = std::sync::OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("the provider supports the default versions");
            let verifier = Arc::new(Anybody);
            Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
        })
        .clone()
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
