//! Servers that extend this one: webhooks, converters and aggregated APIs, reached by URL or through a Service. HTTPS
//! only, to the name that was configured, without following where an answer points.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Server;
use crate::auth::certificates::Credential;
use crate::http::body::{Body, ReadError, boxed, full, read};

/// More is no answer to a review.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;
const SERVICE_PORT: u16 = 443;

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("exactly one of url or service is required")]
    NoPlace,
    #[error("{url:?} is not an https:// address: {detail}")]
    Url { url: String, detail: String },
    #[error("the CA bundle holds no valid certificate: {0}")]
    Authority(String),
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no service port {port} found for service {service:?}")]
    NoPort { service: String, port: u16 },
    #[error("no endpoints available for service {0:?}")]
    NoAddress(String),
    #[error("dial tcp {place}: {source}")]
    Dial { place: String, source: std::io::Error },
    #[error("tls: {0}")]
    Tls(std::io::Error),
    #[error("{0}")]
    Http(String),
    #[error("context deadline exceeded")]
    Timeout,
    #[error("the answer is larger than {ANSWER_LIMIT_BYTES} bytes")]
    TooLarge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

/// One server and how it proves who it is.
#[derive(Clone)]
pub struct Backend {
    place: Place,
    path: String,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    /// Shown with each request, where a kubeconfig says so.
    token: Option<HeaderValue>,
}

/// A Service as configurations name it.
#[derive(Clone, Debug, Default)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub port: Option<i32>,
    pub path: Option<String>,
}

/// With what this server shows itself, if it does.
pub type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Backend {
    /// `authority` is a PEM bundle; without one the machine's own authorities are trusted.
    pub fn new(
        url: Option<&str>,
        service: Option<ServiceReference>,
        authority: Option<&[u8]>,
        insecure: bool,
        certificate: Option<ClientCertificate>,
    ) -> Result<Self, BackendError> {
        let (place, path, host) = match (url, service) {
            (Some(url), None) => from_url(url)?,
            (None, Some(service)) => {
                let host = format!("{}.{}.svc", service.name, service.namespace);
                let port = service.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(SERVICE_PORT);
                let path = service.path.unwrap_or_default();
                let place = Place::Service { namespace: service.namespace, name: service.name, port };
                (place, path, host)
            }
            _ => return Err(BackendError::NoPlace),
        };
        let server_name = ServerName::try_from(host.clone())
            .map_err(|e| BackendError::Url { url: host, detail: e.to_string() })?;
        let tls = TlsConnector::from(Arc::new(tls_config(authority, insecure, certificate)?));
        Ok(Self { place, path, server_name, tls, token: None })
    }

    /// Where a kubeconfig says it is, with what that says to show there.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, String> {
        let fault = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| fault(&e))?;
        let config = api::yaml::parse_one(&text).map_err(|e| fault(&e))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let part = |of: &Value, name: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = of[format!("{name}-data")].as_str() {
                return STANDARD.decode(data).map(Some).map_err(|e| fault(&e));
            }
            match of[name].as_str() {
                Some(file) => std::fs::read(folder.join(file)).map(Some).map_err(|e| fault(&e)),
                None => Ok(None),
            }
        };
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let server = cluster["server"].as_str().ok_or_else(|| fault(&"it names no server"))?;
        let authority = part(cluster, "certificate-authority")?;
        let certificate = match (part(user, "client-certificate")?, part(user, "client-key")?) {
            (Some(certificate), Some(key)) => {
                let text = |bytes| String::from_utf8(bytes).map_err(|e| fault(&e));
                let credential = Credential { certificate: text(certificate)?, key: text(key)? };
                Some(credential.parse().map_err(|e| fault(&e))?)
            }
            _ => None,
        };
        let backend = Self::new(Some(server), None, authority.as_deref(), false, certificate);
        let mut backend = backend.map_err(|e| fault(&e))?;
        if let Some(token) = user["token"].as_str() {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| fault(&e))?;
            value.set_sensitive(true);
            backend.token = Some(value);
        }
        Ok(backend)
    }

    /// As it is written in messages about it.
    pub fn url(&self, query: &str) -> String {
        let host = match &self.place {
            Place::Url { host, port } => format!("{host}:{port}"),
            Place::Service { namespace, name, port } => format!("{name}.{namespace}.svc:{port}"),
        };
        format!("https://{host}{}{query}", self.path)
    }

    /// Sends a JSON object and reads one back.
    pub async fn post(
        &self,
        server: &Server,
        query: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        self.post_bytes(server, query, Bytes::from(body.to_string()), timeout).await
    }

    /// The same of what is JSON already.
    pub async fn post_bytes(
        &self,
        server: &Server,
        query: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), BackendError> {
        let work = async {
            let mut request = Request::builder()
                .method(Method::POST)
                .uri(format!("{}{query}", if self.path.is_empty() { "/" } else { &self.path }))
                .header(CONTENT_TYPE, "application/json")
                .body(full(body))
                .map_err(|e| BackendError::Http(e.to_string()))?;
            if let Some(token) = &self.token {
                request.headers_mut().insert(AUTHORIZATION, token.clone());
            }
            let answer = self.send(server, request).await?;
            let code = answer.status();
            match read(boxed(answer.into_body()), ANSWER_LIMIT_BYTES).await {
                Ok(bytes) => Ok((code, bytes)),
                Err(ReadError::TooLarge) => Err(BackendError::TooLarge),
                Err(ReadError::Broken(error)) => Err(BackendError::Http(error.to_string())),
            }
        };
        tokio::time::timeout(timeout, work).await.unwrap_or(Err(BackendError::Timeout))
    }

    /// Sends a request over a connection of its own, which may be upgraded.
    pub async fn send(
        &self,
        server: &Server,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BackendError> {
        let stream = self.connect(server).await?;
        let stream = self.tls.connect(self.server_name.clone(), stream).await.map_err(BackendError::Tls)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| BackendError::Http(e.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a backend ended");
            }
        });
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(&self.server_name.to_str())
                .map_err(|e| BackendError::Http(e.to_string()))?;
            request.headers_mut().insert(HOST, host);
        }
        sender.send_request(request).await.map_err(|e| BackendError::Http(e.to_string()))
    }

    async fn connect(&self, server: &Server) -> Result<TcpStream, BackendError> {
        let failed = |place: String| move |source| BackendError::Dial { place, source };
        match &self.place {
            Place::Url { host, port } => {
                let place = format!("{host}:{port}");
                TcpStream::connect((host.as_str(), *port)).await.map_err(failed(place))
            }
            Place::Service { namespace, name, port } => {
                let address = server.service_address(namespace, name, *port).await?;
                server.config.dial.dial(address).await.map_err(failed(address.to_string()))
            }
        }
    }
}

fn from_url(url: &str) -> Result<(Place, String, String), BackendError> {
    let wrong = |detail: &str| BackendError::Url { url: url.to_owned(), detail: detail.to_owned() };
    let parsed: Uri = url.parse().map_err(|e: ::http::uri::InvalidUri| wrong(&e.to_string()))?;
    if parsed.scheme_str() != Some("https") {
        return Err(wrong("the scheme must be https"));
    }
    let host = parsed.host().ok_or_else(|| wrong("it has no host"))?.to_owned();
    let port = parsed.port_u16().unwrap_or(SERVICE_PORT);
    let path = parsed.path_and_query().map(|p| p.path().trim_end_matches('/').to_owned()).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((Place::Url { host: bare.clone(), port }, path, bare))
}

/// How such servers are spoken to; `insecure` takes whatever certificate they show.
pub(crate) fn tls_config(
    authority: Option<&[u8]>,
    insecure: bool,
    certificate: Option<ClientCertificate>,
) -> Result<rustls::ClientConfig, BackendError> {
    let fault = |e: &dyn std::fmt::Display| BackendError::Authority(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(anyone::Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(authority)?)
    };
    match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|e| fault(&e)),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn roots(authority: Option<&[u8]>) -> Result<RootCertStore, BackendError> {
    let fault = |e: &dyn std::fmt::Display| BackendError::Authority(e.to_string());
    let mut roots = RootCertStore::empty();
    match authority.filter(|a| !a.is_empty()) {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
            }
            if roots.is_empty() {
                return Err(fault(&"there is no certificate in PEM form"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    Ok(roots)
}

/// An APIService may ask that its server's certificate is not looked at.
mod anyone {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub struct Anyone(pub Arc<CryptoProvider>);

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _certificate: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

impl Server {
    /// Where a Service answers inside the cluster.
    pub(crate) fn service_address<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<SocketAddr, BackendError>> {
        Box::pin(async move {
            let kinds = self.catalog.snapshot();
            let none = || BackendError::NoService(name.to_owned());
            let kind = kinds.find("", "v1", "services").ok_or_else(none)?;
            let found = self.objects.get(kind, namespace, name).await;
            let (_, service) = found.map_err(|e| BackendError::Http(e.to_string()))?.ok_or_else(none)?;
            let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !ports.iter().any(|p| p["port"] == port) {
                return Err(BackendError::NoPort { service: name.to_owned(), port });
            }
            let address = service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
            let address = address.ok_or_else(|| BackendError::NoAddress(name.to_owned()))?;
            Ok(SocketAddr::new(address, port))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: &str) {
        let shown = match Backend::new(Some(url), None, None, false, None) {
            Ok(backend) => backend.url("?timeout=1s"),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_https_addresses_are_taken() {
        check("https://hook.example/validate", "https://hook.example:443/validate?timeout=1s");
        check("https://127.0.0.1:8443", "https://127.0.0.1:8443?timeout=1s");
        check(
            "http://hook.example",
            "\"http://hook.example\" is not an https:// address: the scheme must be https",
        );
        let service =
            ServiceReference { namespace: "a".into(), name: "b".into(), port: None, path: Some("/c".into()) };
        let backend = Backend::new(None, Some(service), None, false, None).expect("a service");
        assert_eq!(backend.url(""), "https://b.a.svc:443/c");
        assert!(matches!(Backend::new(None, None, None, false, None), Err(BackendError::NoPlace)));
        let bundle = Backend::new(Some("https://a"), None, Some(b"nonsense"), false, None);
        assert!(matches!(bundle, Err(BackendError::Authority(_))));
    }
}
