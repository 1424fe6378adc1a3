//! Connections: TLS with optional client certificates, HTTP/1.1 and HTTP/2, many at once but not without end.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::boxed;
use crate::ApiServer;
use crate::auth::Identity;
use crate::auth::certificates::{Credential, PkiError, identity};

/// Connections at once; the next one waits in the kernel's queue.
const CONNECTION_LIMIT: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for, but does not insist on, a client certificate of the cluster's authority: a token may come instead.
pub fn tls_config(serving: &Credential, authority: &str) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    config(serving, authority, false)
}

/// Lets in only who has a certificate of `authority`; HTTP/1.1, which upgrades need.
pub fn node_tls(serving: &Credential, authority: &str) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    config(serving, authority, true)
}

fn config(
    serving: &Credential,
    authority: &str,
    insist: bool,
) -> Result<Arc<rustls::ServerConfig>, PkiError> {
    let invalid = |detail: String| PkiError::Invalid { path: "the serving certificate".into(), detail };
    let mut roots = RootCertStore::empty();
    let authority =
        CertificateDer::from_pem_slice(authority.as_bytes()).map_err(|e| invalid(e.to_string()))?;
    roots.add(authority).map_err(|e| invalid(e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = if insist { verifier } else { verifier.allow_unauthenticated() };
    let verifier = verifier.build().map_err(|e| invalid(e.to_string()))?;
    let (chain, key) = serving.parse()?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| invalid(e.to_string()))?;
    config.alpn_protocols =
        if insist { vec![b"http/1.1".to_vec()] } else { vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
    Ok(Arc::new(config))
}

/// Serves until told to stop. Open requests are cut then: clients come back.
pub async fn serve(
    server: ApiServer,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: those come back when connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (server, acceptor, stop) = (server.clone(), acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(server, acceptor, stream) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn connection(server: ApiServer, acceptor: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let who: Option<Identity> = certificate.and_then(identity);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, who) = (server.clone(), who.clone());
        async move {
            let (mut parts, body) = request.into_parts();
            // A plain upgrade needs the connection itself; it is kept with the request.
            let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
            let mut request = http::Request::from_parts(parts, boxed(body));
            if let Some(upgrade) = upgrade {
                request.extensions_mut().insert(upgrade);
            }
            Ok::<_, std::convert::Infallible>(server.handle(request, who).await)
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Duration::from_secs(30));
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended");
    }
}
