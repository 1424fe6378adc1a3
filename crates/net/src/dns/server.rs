//! The two socket loops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{Answer, answer, encode, reply_to};
use super::records::Records;
use super::upstream::Upstream;
use crate::ipam::Range;
use crate::namespace::{Namespace, NamespaceError};

/// Questions waiting for an upstream at a time; beyond that the asker is told to try again.
const FORWARDED_MAX: usize = 512;
const TCP_CONNECTIONS_MAX: usize = 256;
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const UDP_SIZE_DEFAULT: usize = 512;
const UDP_SIZE_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("DNS socket: {0}")]
    Socket(#[source] io::Error),
}

#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Served over UDP and TCP, inside the namespace.
    pub address: SocketAddr,
    /// Reverse names of these ranges are answered here and never asked upstream.
    pub reverse_ranges: Vec<Range>,
    pub upstream: Upstream,
}

/// Replaces the snapshot; cheap to clone.
#[derive(Clone)]
pub struct Publisher(Arc<RwLock<Arc<Records>>>);

impl Publisher {
    pub fn publish(&self, records: Records) {
        *self.0.write() = Arc::new(records);
    }

    fn current(&self) -> Arc<Records> {
        self.0.read().clone()
    }
}

/// A running server; dropping it stops it.
pub struct DnsServer {
    publisher: Publisher,
    local: SocketAddr,
    _loops: JoinSet<()>,
}

struct Shared {
    publisher: Publisher,
    config: DnsConfig,
    forwarded: Arc<Semaphore>,
    turn: AtomicUsize,
}

impl DnsServer {
    /// Binds inside `namespace` and serves `records`.
    pub async fn start(namespace: &Namespace, config: DnsConfig, records: Records) -> Result<Self, DnsError> {
        let udp = namespace.bind_udp(config.address).await?;
        let local = udp.local_addr().map_err(DnsError::Socket)?;
        let tcp = namespace.listen_tcp(local).await?;
        let publisher = Publisher(Arc::new(RwLock::new(Arc::new(records))));
        let shared = Arc::new(Shared {
            publisher: publisher.clone(),
            config,
            forwarded: Arc::new(Semaphore::new(FORWARDED_MAX)),
            turn: AtomicUsize::new(0),
        });
        let mut loops = JoinSet::new();
        loops.spawn(serve_udp(Arc::new(udp), shared.clone()));
        loops.spawn(serve_tcp(tcp, shared));
        Ok(Self { publisher, local, _loops: loops })
    }

    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    pub fn local_address(&self) -> SocketAddr {
        self.local
    }
}

impl Shared {
    /// Answers from the snapshot at once; `Err` holds what has to wait for somebody else.
    fn try_answer(&self, packet: &[u8]) -> Option<(Message, Answer)> {
        let query = Message::from_vec(packet).ok()?;
        if query.metadata.message_type != hickory_proto::op::MessageType::Query {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let answer = answer(&self.publisher.current(), &self.config.reverse_ranges, &query, turn);
        Some((query, answer))
    }

    /// Finishes what upstream has to finish.
    async fn finish(
        &self,
        query: Message,
        answer: Answer,
        packet: &[u8],
        limit: usize,
        tcp: bool,
    ) -> Option<Vec<u8>> {
        match answer {
            Answer::Reply(reply) => encode(&reply, limit),
            Answer::Forward => match self.config.upstream.ask(packet, tcp).await {
                Ok(bytes) if bytes.len() <= limit => Some(bytes),
                Ok(bytes) => Message::from_vec(&bytes).ok()?.truncate().to_vec().ok(),
                Err(error) => {
                    tracing::debug!(%error, "forwarded question");
                    let none = self.config.upstream.servers.is_empty();
                    let code = if none { ResponseCode::Refused } else { ResponseCode::ServFail };
                    failure(&query, code)
                }
            },
            Answer::Complete { mut reply, target } => {
                let kind = query.queries.first()?.query_type();
                if let Some(answer) = self.config.upstream.resolve(&target, kind).await {
                    reply.add_answers(answer.answers);
                }
                encode(&reply, limit)
            }
        }
    }
}

fn failure(query: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    let mut reply = reply_to(query);
    reply.metadata.response_code = code;
    reply.to_vec().ok()
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; UDP_SIZE_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // An earlier reply was refused by its asker; the socket itself is fine.
                tracing::debug!(%error, "DNS datagram");
                continue;
            }
        };
        let packet = &buffer[..length];
        let Some((query, answer)) = shared.try_answer(packet) else { continue };
        let limit = query.edns.as_ref().map_or(UDP_SIZE_DEFAULT, |e| usize::from(e.max_payload()));
        let limit = limit.clamp(UDP_SIZE_DEFAULT, UDP_SIZE_MAX);
        if let Answer::Reply(reply) = &answer {
            send(&socket, encode(reply, limit), from).await;
            continue;
        }
        let Ok(slot) = shared.forwarded.clone().try_acquire_owned() else {
            send(&socket, failure(&query, ResponseCode::ServFail), from).await;
            continue;
        };
        let (socket, shared, packet) = (socket.clone(), shared.clone(), packet.to_vec());
        tokio::spawn(async move {
            send(&socket, shared.finish(query, answer, &packet, limit, false).await, from).await;
            drop(slot);
        });
    }
}

async fn send(socket: &UdpSocket, bytes: Option<Vec<u8>>, to: SocketAddr) {
    let Some(bytes) = bytes else { return };
    if let Err(error) = socket.send_to(&bytes, to).await {
        tracing::debug!(%error, %to, "DNS reply");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    if let Err(error) = serve_stream(stream, &shared).await {
                        tracing::debug!(%error, "DNS connection");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a DNS connection");
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let Ok(length) = timeout(TCP_IDLE_TIMEOUT, stream.read_u16()).await else { return Ok(()) };
        let length = match length {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let mut packet = vec![0; usize::from(length)];
        timeout(TCP_IDLE_TIMEOUT, stream.read_exact(&mut packet)).await??;
        let Some((query, answer)) = shared.try_answer(&packet) else { return Ok(()) };
        let reply = shared.finish(query, answer, &packet, usize::from(u16::MAX), true).await;
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).unwrap_or(u16::MAX);
        // One write: a length by itself would wait for the asker's delayed acknowledgement.
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).await?;
    }
}
