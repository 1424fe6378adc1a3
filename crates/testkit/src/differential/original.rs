//! The original, reached over TLS with a token, as three environment variables of the test name it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Door, Stream};

/// No answer takes longer.
const LIMIT: Duration = Duration::from_secs(5);

pub struct Original {
    address: String,
    token: String,
    tls: TlsConnector,
}

impl Original {
    /// `url` as `https://address:port`, and the certificate of who vouches for it.
    pub fn new(url: &str, token: &str, authority: &Path) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(authority).map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = url.trim_start_matches("https://").trim_end_matches('/').to_owned();
        Ok(Self { address, token: token.to_owned(), tls: TlsConnector::from(Arc::new(tls)) })
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Stream>, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let stream = TcpStream::connect(&self.address).await.map_err(|e| text(&e))?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host).to_owned();
        let name = ServerName::try_from(host).map_err(|e| text(&e))?;
        let stream = self.tls.connect(name, stream).await.map_err(|e| text(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        tokio::spawn(connection);
        let (mut head, body) = request.into_parts();
        let bearer =
            format!("Bearer {}", self.token).parse().map_err(|_| "a token that no header can hold")?;
        head.headers.insert("authorization", bearer);
        head.headers.insert("host", http::HeaderValue::from_static("localhost"));
        let request = Request::from_parts(head, Full::new(body));
        let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
        let (head, body) = answer.into_parts();
        let pieces = futures::stream::unfold((body, sender), |(mut body, sender)| async move {
            let frame = match tokio::time::timeout(LIMIT, body.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some((Err("nothing comes".to_owned()), (body, sender))),
            };
            let piece = frame.map(|f| f.into_data().unwrap_or_default()).map_err(|e| e.to_string());
            Some((piece, (body, sender)))
        });
        Ok(Response::from_parts(head, Box::pin(pieces)))
    }
}

impl Door for Original {
    fn ask(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Stream>, String>> {
        Box::pin(self.send(request))
    }
}
