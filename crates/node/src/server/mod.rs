//! What the API server asks of a node: logs, exec, attach, port-forward, statistics. The paths are the kubelet's.

mod exec;
mod logs;
mod port_forward;
mod query;
pub(crate) mod spdy;
mod upgrade;
pub(crate) mod websocket;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::pods::Context;
use crate::stats;

use query::Query;

/// Connections at a time; a follower of a log or an exec session holds one each.
const CONNECTIONS_MAX: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, std::io::Error>;
type Reply = Response<Body>;

/// A refusal with the words the caller is shown.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }
}

/// Serves for as long as it is polled.
pub async fn run(context: Arc<Context>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (context, acceptor) = (context.clone(), acceptor.clone());
                connections.spawn(async move {
                    serve(context, acceptor, stream).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: those come back when connections end.
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(context: Arc<Context>, acceptor: TlsAcceptor, stream: TcpStream) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let service = hyper::service::service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(answer(context, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection of the API server");
    }
}

async fn answer(context: Arc<Context>, request: Request<Incoming>) -> Reply {
    route(context, request).await.unwrap_or_else(|refusal| text(refusal.status, refusal.message))
}

async fn route(context: Arc<Context>, request: Request<Incoming>) -> Result<Reply, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').skip(1).map(query::decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    match parts[..] {
        ["healthz"] => Ok(text(StatusCode::OK, "ok")),
        ["pods" | "runningpods"] => Ok(pods(&context)),
        ["stats", "summary"] => Ok(json_reply(&stats::summary(&context).await)),
        ["containerLogs", namespace, pod, container] => {
            read_only(&request)?;
            logs::serve(&context, namespace, pod, container, &query).await
        }
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
            exec::exec(&context, (namespace, pod, container), &query, request).await
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
            exec::attach(&context, (namespace, pod, container), &query, request).await
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            port_forward::serve(&context, namespace, pod, &query, request)
        }
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

fn read_only(request: &Request<Incoming>) -> Result<(), Refusal> {
    if request.method() == Method::GET {
        return Ok(());
    }
    Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, message: "method not allowed".to_owned() })
}

fn pods(context: &Context) -> Reply {
    let items: Vec<_> = context.directory.list().into_iter().map(|entry| (*entry.pod).clone()).collect();
    json_reply(&json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items}))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn text(status: StatusCode, message: impl Into<String>) -> Reply {
    let mut reply = Response::new(full(message.into()));
    *reply.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    reply
}

fn json_reply(value: &serde_json::Value) -> Reply {
    let mut reply = Response::new(full(value.to_string()));
    let kind = http::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    reply
}

/// A reply whose body comes as it is read.
fn streamed(stream: BoxStream<'static, std::io::Result<Bytes>>) -> Reply {
    let frames = stream.map_ok(Frame::data).boxed();
    let mut reply =
        Response::new(BodyExt::boxed(StreamBody::new(SyncStream(parking_lot::Mutex::new(frames)))));
    let plain = http::HeaderValue::from_static("text/plain");
    reply.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    reply
}

/// A boxed body must be `Sync`, a boxed stream is not; nobody else ever polls it.
struct SyncStream(parking_lot::Mutex<BoxStream<'static, std::io::Result<Frame<Bytes>>>>);

impl futures::Stream for SyncStream {
    type Item = std::io::Result<Frame<Bytes>>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().poll_next_unpin(cx)
    }
}
