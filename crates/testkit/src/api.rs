//! HTTP connections as a client keeps them: to the API over TLS with the administrator's certificate, to an etcd plain.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the API is and how to show who one is, from a kubeconfig.
#[derive(Clone)]
pub struct Api {
    address: String,
    /// What its certificate is expected to name.
    name: ServerName<'static>,
    tls: TlsConnector,
    /// The same for HTTP/2.
    tls_http2: TlsConnector,
    /// Shown instead of a client certificate.
    token: Option<String>,
}

fn field(config: &str, name: &str) -> String {
    let line = config.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("the kubeconfig has no {name}")).to_owned()
}

impl Api {
    pub fn read(kubeconfig: &Path) -> Self {
        let config = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let pem = |name: &str| STANDARD.decode(field(&config, name)).expect("base64");
        let address = field(&config, "server").trim_start_matches("https://").to_owned();
        let shown = (&*pem("client-certificate-data"), &*pem("client-key-data"));
        Self::showing(&address, &pem("certificate-authority-data"), shown)
    }

    /// By the server's address, what signs its certificate, and the certificate and the key of who asks.
    pub fn showing(address: &str, authority: &[u8], (certificate, key): (&[u8], &[u8])) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority).expect("a certificate")).expect("added");
        let chain = vec![CertificateDer::from_pem_slice(certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a client certificate");
        let (tls, tls_http2) = connectors(tls);
        Self { address: address.to_owned(), name: localhost(), tls, tls_http2, token: None }
    }

    /// Another server of the API, by its address, what signs its certificate, and a token.
    pub fn of(address: &str, authority: &str, token: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
        roots.add(authority).expect("added");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (tls, tls_http2) = connectors(tls);
        let token = Some(token.to_owned());
        Self { address: address.to_owned(), name: localhost(), tls, tls_http2, token }
    }

    /// The server of a kubeconfig, asked with a token alone.
    pub fn by_token(kubeconfig: &Path, token: &str) -> Self {
        let config = std::fs::read_to_string(kubeconfig).expect("a kubeconfig");
        let authority = STANDARD.decode(field(&config, "certificate-authority-data")).expect("base64");
        let address = field(&config, "server").trim_start_matches("https://").to_owned();
        Self::of(&address, &String::from_utf8(authority).expect("PEM"), token)
    }

    /// As a program in a pod finds it: by the service's name, with what is mounted into every container.
    pub fn in_pod() -> Self {
        let mounted = |file: &str| {
            let path = Path::new("/var/run/secrets/kubernetes.io/serviceaccount").join(file);
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let name = ServerName::try_from("kubernetes.default.svc").expect("a name");
        Self { name, ..Self::of("kubernetes.default.svc:443", &mounted("ca.crt"), &mounted("token")) }
    }

    pub async fn connect(&self) -> Connection {
        self.try_connect().await.expect("connects")
    }

    /// To a server that may not be there yet.
    pub async fn try_connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Connection { sender, token: self.token.clone() })
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

fn connectors(http1: rustls::ClientConfig) -> (TlsConnector, TlsConnector) {
    let mut http2 = http1.clone();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    (TlsConnector::from(Arc::new(http1)), TlsConnector::from(Arc::new(http2)))
}

impl Api {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection of many requests at once.
    pub async fn connect_http2(&self) -> std::io::Result<Streams> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls_http2.connect(self.name.clone(), stream).await?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Streams { sender, token: self.token.clone() })
    }
}

/// An HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Streams {
    sender: http2::SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Streams {
    /// Sends a request; an error is the connection's.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(format!("https://localhost{path}"));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.send_request(request.body(Full::new(body.into())).expect("a request")).await
    }
}

/// One line of a stream, such as an event of a watch.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the stream's end.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                return Some(self.rest.drain(..=end).collect());
            }
            let frame = self.body.frame().await?.ok()?;
            self.rest.extend_from_slice(frame.data_ref().map(|d| &d[..]).unwrap_or_default());
        }
    }
}

pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Connection {
    pub async fn send(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        self.send_with(method, path, &[("content-type", "application/json")], body).await
    }

    pub async fn send_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.sender.ready().await.expect("an open connection");
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender
            .send_request(request.body(Full::new(body.into())).expect("a request"))
            .await
            .expect("an answer")
    }

    /// Asks for a stream.
    pub async fn lines(&mut self, path: &str) -> Lines {
        Lines { body: self.send("GET", path, "").await.into_body(), rest: Vec::new() }
    }

    /// Sends and reads the whole answer, which must be a success.
    pub async fn done(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Bytes {
        self.done_with(method, path, &[("content-type", "application/json")], body).await
    }

    pub async fn done_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Bytes {
        let (code, bytes) = self.answer_with(method, path, headers, body).await;
        let is_success = (200..300).contains(&code);
        assert!(is_success, "{method} {path}: {code}: {}", String::from_utf8_lossy(&bytes));
        bytes
    }

    /// Code and whole body of the answer.
    pub async fn answer_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, Bytes) {
        let answer = self.send_with(method, path, headers, body).await;
        let code = answer.status().as_u16();
        (code, answer.into_body().collect().await.expect("a body").to_bytes())
    }
}

/// gRPC without more than it takes: one message there, one back.
pub struct Grpc {
    sender: http2::SendRequest<Full<Bytes>>,
}

impl Grpc {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { sender }
    }

    pub async fn call(&mut self, path: &str, message: &[u8]) {
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
        body.extend_from_slice(message);
        let request = Request::post(format!("http://etcd{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        self.sender.ready().await.expect("an open connection");
        let answer = self
            .sender
            .send_request(request.body(Full::new(Bytes::from(body))).expect("a request"))
            .await
            .expect("an answer");
        let collected = answer.into_body().collect().await.expect("a body");
        let status = collected.trailers().and_then(|t| t.get("grpc-status")).and_then(|s| s.to_str().ok());
        assert_eq!(status, Some("0"), "{path}");
    }
}
