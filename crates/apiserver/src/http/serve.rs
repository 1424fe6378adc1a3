//! Connections: HTTP/1.1 and HTTP/2, many at once but not without end.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::boxed;
use crate::ApiServer;
use crate::audit::Peer;

/// Connections at once; the next one waits in the kernel's queue.
const CONNECTION_LIMIT: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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
    let from = stream.peer_addr().ok().map(|address| Peer(address.ip()));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(server.0.doorkeeper.meet(chain));
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, peer) = (server.clone(), Arc::clone(&peer));
        async move {
            let (mut parts, body) = request.into_parts();
            // A plain upgrade needs the connection itself; it is kept with the request.
            let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
            let mut request = http::Request::from_parts(parts, boxed(body));
            if let Some(upgrade) = upgrade {
                request.extensions_mut().insert(upgrade);
            }
            if let Some(from) = from {
                request.extensions_mut().insert(from);
            }
            let who = peer.identity(request.headers(), base::time::now().as_second());
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
