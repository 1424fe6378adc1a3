//! Connections: HTTP/1.1 and HTTP/2, many at once but not without end. Every step of one has its time: the handshake, the
//! heads of requests, their bodies, the reading of answers, and the time between.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::body::boxed;
use super::framing;
use super::pace::{Traffic, paced};
use super::timely::Timely;
use super::unread;
use crate::ApiServer;
use crate::audit::Peer;

/// How many connections there may be, and how long each step of one may take.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// At once; those that nobody uses, or that are half open, make room for the next one, which waits in the kernel's queue until then.
    pub connections: usize,
    /// A handshake is a few packets.
    pub handshake: Duration,
    /// From a connection's beginning to its first request, and from the first byte of a request to the end of its head.
    pub head: Duration,
    /// How long a connection is kept that is not used any more, as in the original.
    pub idle: Duration,
    /// Where there is no room, so long a connection must have been idle, or its handshake have lasted, to make some.
    pub idle_min: Duration,
    /// A peer that takes no byte of what is sent for so long is not there any more.
    pub stall: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // A connection that idles holds some tens of kilobytes: a few hundred megabytes at worst.
            connections: 4096,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            idle_min: Duration::from_secs(1),
            stall: Duration::from_secs(30),
        }
    }
}

/// What is under way when a connection is to end may come to its end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Streams of a connection at once, as in the original; clients open another connection for more.
const STREAMS_MAX: u32 = 100;
/// What may come of a body before it is wanted, of one stream and of all of a connection.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What of an answer waits within a stream until the peer takes it.
const STREAM_BUFFER_BYTES: usize = 128 << 10;
/// What the head of a request may come to, for those who are in many groups: the original takes more.
const HEAD_BYTES: u32 = 256 << 10;
const HEADERS_MAX: usize = 2048;
/// HTTP/2 asks whether the peer is there, and ends the connection when it does not say so.
const PING_PERIOD: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(15);

type Stream = TlsStream<Timely<TcpStream, OwnedSemaphorePermit>>;

/// What the connections of a listener share.
struct Door {
    limits: ConnectionLimits,
    server: ApiServer,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
    /// Somebody waits for a place.
    crowded: Notify,
}

/// Serves until told to stop. Open requests are cut then: clients come back.
pub async fn serve(
    server: ApiServer,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    serve_within(ConnectionLimits::default(), server, listener, tls, stop).await;
}

/// The same within other limits.
pub async fn serve_within(
    limits: ConnectionLimits,
    server: ApiServer,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let acceptor = TlsAcceptor::from(tls);
    let door = Arc::new(Door { limits, server, acceptor, stop: stop.clone(), crowded: Notify::new() });
    loop {
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
        let place = tokio::select! {
            place = door.place(&places) => place,
            () = stop.cancelled() => return,
        };
        let Some(place) = place else { return };
        let door = Arc::clone(&door);
        tokio::spawn(async move {
            let stop = door.stop.clone();
            tokio::select! {
                () = connection(&door, stream, place) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Door {
    /// A place for a connection, once there is one.
    async fn place(&self, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Some(place);
        }
        tracing::debug!("all connections are taken");
        let mut waiting = pin!(Arc::clone(places).acquire_owned());
        loop {
            self.crowded.notify_waiters();
            // One that has just been used may be idle for long enough soon.
            match tokio::time::timeout(self.limits.idle_min, &mut waiting).await {
                Ok(place) => return place.ok(),
                Err(_) => continue,
            }
        }
    }

    /// Returns when there is no room and this has lasted for longer than a handshake takes.
    async fn in_the_way(&self) {
        tokio::time::sleep(self.limits.idle_min).await;
        self.crowded.notified().await;
    }

    /// Cuts answers that are not read; returns when the connection has been idle for too long.
    async fn look_after(&self, traffic: &Traffic) {
        let ConnectionLimits { head, idle: limit, idle_min, stall, .. } = self.limits;
        loop {
            let left = match traffic.idle() {
                // Nothing was ever asked: who connects does so to ask.
                Some((idle, 0)) => head.min(limit).saturating_sub(idle),
                Some((idle, _)) => limit.saturating_sub(idle),
                None => stall,
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(stall)) => traffic.cut_stalled(Instant::now(), stall),
                () = self.crowded.notified() => {
                    if traffic.idle().is_some_and(|(idle, _)| idle >= idle_min) {
                        return;
                    }
                }
            }
        }
    }
}

async fn connection(door: &Door, stream: TcpStream, place: OwnedSemaphorePermit) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let from = stream.peer_addr().ok().map(|address| Peer(address.ip()));
    let upgraded = Arc::new(AtomicBool::new(false));
    let stream = Timely::new(stream, door.limits.stall, Arc::clone(&upgraded), place);
    let handshake = tokio::time::timeout(door.limits.handshake, door.acceptor.accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = door.in_the_way() => return tracing::debug!("a TLS handshake made room"),
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    speak(door, stream, from, &upgraded).await;
}

async fn speak(door: &Door, stream: Stream, from: Option<Peer>, upgraded: &Arc<AtomicBool>) {
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = Arc::new(door.server.0.doorkeeper.meet(chain));
    // What was agreed on is what is spoken: nothing has to be waited for to tell which it is.
    let http2 = session.alpn_protocol() == Some(b"h2");
    let traffic = Arc::<Traffic>::default();
    let service = {
        let (server, traffic, upgraded) = (door.server.clone(), Arc::clone(&traffic), Arc::clone(upgraded));
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (server, peer, upgraded) = (server.clone(), Arc::clone(&peer), Arc::clone(&upgraded));
            let ticket = traffic.begin();
            async move {
                if let Some(refused) = framing::refused(&request) {
                    return Ok::<_, std::convert::Infallible>(paced(ticket, refused));
                }
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
                let method = request.method().clone();
                let answer = unread::bounded(&method, server.handle(request, who).await);
                if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    upgraded.store(true, Ordering::Relaxed);
                }
                Ok(paced(ticket, answer))
            }
        })
    };
    let builder = builder(http2, door.limits.head);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = door.look_after(&traffic) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(FAREWELL, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a connection did not end by itself"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder(http2: bool, head_limit: Duration) -> hyper_util::server::conn::auto::Builder<TokioExecutor> {
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_limit).max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(STREAM_BUFFER_BYTES)
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_LIMIT);
    match http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    }
}
