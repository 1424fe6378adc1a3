//! gRPC over the HTTP/2 that is here anyway, for whoever has a connected stream (TCP, TLS, a Unix socket): one message
//! each way, or a stream of answers. Small enough to be ours; what a general client would add (balancing, retries) must be
//! decided by what a request means, and that is known to who asks: the store asks etcd, the API server the holders of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

const PREFIX_BYTES: usize = 5;
/// A peer that is silent for both is gone, whatever TCP thinks.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// So long a connection that takes no requests may take to say why it ended.
const END_LIMIT: Duration = Duration::from_millis(500);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// gRPC's codes, as far as they are told apart.
pub mod codes {
    pub const DEADLINE_EXCEEDED: u32 = 4;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const UNAVAILABLE: u32 = 14;
    pub const UNAUTHENTICATED: u32 = 16;
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing has reached the server.
    #[error("{0}")]
    NotSent(String),
    /// The request was on its way when the connection broke or time ran out: it may have been done.
    #[error("{0}")]
    Broken(String),
    /// The server's own refusal.
    #[error("{message} (code {code})")]
    Refused { code: u32, message: String },
}

/// Whom a connection goes to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the requests call it, and messages about it.
    pub authority: String,
    pub secure: bool,
    /// Whether it is asked all the time if it is there. Servers take that ill which were not told to expect it.
    pub pings: bool,
    /// A longer answer ends the connection.
    pub message_limit_bytes: usize,
}

/// Headers that go with a request.
pub type Metadata<'a> = &'a [(&'static str, &'a str)];

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// A connection; clones share it.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    peer: Arc<Peer>,
    id: u64,
    /// Why the connection ended, once it has.
    ended: Shared<BoxFuture<'static, Option<String>>>,
}

impl Channel {
    /// Shakes hands over a stream that is connected.
    pub async fn new<S>(stream: S, peer: Peer) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Arc::new(peer);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(peer.pings.then_some(PING_INTERVAL))
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Fault::NotSent(format!("cannot speak HTTP/2 with {}: {e}", peer.authority)))?;
        let told = Arc::clone(&peer);
        let ended = tokio::spawn(async move {
            let error = chain(&connection.await.err()?);
            tracing::debug!(error, peer = told.authority, "a gRPC connection ended");
            Some(error)
        });
        let ended = ended.map(|why| why.ok().flatten()).boxed().shared();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self { sender, peer, id: NEXT.fetch_add(1, Ordering::Relaxed), ended })
    }

    /// Whether it is the very same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }

    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One message for one message.
    pub async fn unary<A: Message, B: Message + Default>(
        &self,
        path: &str,
        message: &A,
        metadata: Metadata<'_>,
        limit: Duration,
    ) -> Result<B, Fault> {
        let body = Full::new(framed(message)).boxed_unsync();
        let asked = async {
            let mut answer = self.send(path, body, metadata, Some(limit)).await?;
            let answer = answer.message().await?;
            answer.ok_or_else(|| Fault::Broken(format!("{path}: an answer without a message")))
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::Broken(format!("{} did not answer {path} in time", self.peer.authority))),
        }
    }

    /// One message for a stream of them. The request stays open, as a watch's must.
    pub async fn stream(
        &self,
        path: &str,
        message: &impl Message,
        metadata: Metadata<'_>,
    ) -> Result<Answers, Fault> {
        use futures::StreamExt;
        let first = futures::stream::once(std::future::ready(Ok(Frame::data(framed(message)))));
        let body = StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync();
        self.send(path, body, metadata, None).await
    }

    async fn send(
        &self,
        path: &str,
        body: Body,
        metadata: Metadata<'_>,
        limit: Option<Duration>,
    ) -> Result<Answers, Fault> {
        let Peer { authority, secure, message_limit_bytes, .. } = &*self.peer;
        let scheme = if *secure { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(limit) = limit {
            request = request.header("grpc-timeout", format!("{}m", limit.as_millis().min(99_999_999)));
        }
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|e| Fault::NotSent(e.to_string()))?;
        let mut sender = self.sender.clone();
        let answer = match sender.ready().await {
            Ok(()) => sender.send_request(request).await,
            Err(error) => return Err(self.unsent(&error).await),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_canceled() => return Err(self.unsent(&error).await),
            Err(error) => return Err(Fault::Broken(format!("{authority}: {}", chain(&error)))),
        };
        if !answer.status().is_success() {
            return Err(Fault::Broken(format!("{authority} answered {}", answer.status())));
        }
        // An answer without a body has its status in the head.
        status(answer.headers())?;
        Ok(Answers { body: answer.into_body(), held: BytesMut::new(), limit_bytes: *message_limit_bytes })
    }
}

impl Channel {
    /// That a request was not sent says nothing of why: the connection knows, such as that the peer wants a certificate.
    async fn unsent(&self, error: &hyper::Error) -> Fault {
        let why = tokio::time::timeout(END_LIMIT, self.ended.clone()).await.ok().flatten();
        Fault::NotSent(format!("{}: {}", self.peer.authority, why.unwrap_or_else(|| chain(error))))
    }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    // Requests are bounded far below the limit of the field.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode(&mut out).expect("a BytesMut grows");
    out.freeze()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(": {inner}");
        source = inner.source();
    }
    text
}

/// What the headers or trailers say of how it went; none say nothing.
fn status(headers: &HeaderMap) -> Result<(), Fault> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    match text("grpc-status").map(|code| code.parse().unwrap_or(2)) {
        None | Some(0) => Ok(()),
        Some(code) => {
            Err(Fault::Refused { code, message: unescaped(text("grpc-message").unwrap_or_default()) })
        }
    }
}

/// `grpc-message` is percent-encoded.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The messages of an answer.
pub struct Answers {
    body: Incoming,
    held: BytesMut,
    limit_bytes: usize,
}

impl Answers {
    /// The next one; `None` at a good end.
    pub async fn message<B: Message + Default>(&mut self) -> Result<Option<B>, Fault> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let frame = match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => frame.map_err(|e| Fault::Broken(chain(&e)))?,
            };
            match frame.into_data() {
                Ok(data) => self.held.extend_from_slice(&data),
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        status(&trailers)?;
                    }
                }
            }
        }
    }

    fn take<B: Message + Default>(&mut self) -> Result<Option<B>, Fault> {
        let Some(head) = self.held.get(..PREFIX_BYTES) else { return Ok(None) };
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || length > self.limit_bytes {
            return Err(Fault::Broken(format!(
                "a message of {length} bytes, or compressed without being asked"
            )));
        }
        if self.held.len() < PREFIX_BYTES + length {
            self.held.reserve(PREFIX_BYTES + length - self.held.len());
            return Ok(None);
        }
        self.held.advance(PREFIX_BYTES);
        let message = self.held.split_to(length).freeze();
        B::decode(message).map(Some).map_err(|e| Fault::Broken(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_refusals_are_unescaped() {
        assert_eq!(unescaped("a%20b%3A 100%"), "a b: 100%");
        assert_eq!(unescaped("%zz"), "%zz");
        let mut headers = HeaderMap::new();
        assert!(status(&headers).is_ok());
        headers.insert("grpc-status", "14".parse().expect("a value"));
        headers.insert("grpc-message", "no%20leader".parse().expect("a value"));
        assert!(
            matches!(status(&headers), Err(Fault::Refused { code: 14, message }) if message == "no leader")
        );
    }
}
