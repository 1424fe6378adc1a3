//! A server that extends the API, as webhooks, converters and aggregated APIs are: HTTPS on loopback, JSON in and out,
//! and a record of what it was asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::certificate::Certificate;

/// What it answers: nothing ever, for a hook that hangs.
pub type Handler = dyn Fn(&Parts, &Value) -> Option<(u16, Value)> + Send + Sync;

pub struct Extension {
    pub port: u16,
    /// What signs its certificate, as PEM.
    pub authority: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Extension {
    /// Serves under the given names until the runtime ends.
    pub async fn start(
        names: &[&str],
        handler: impl Fn(&Parts, &Value) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let certificate = Certificate::of(names);
        let acceptor = certificate.acceptor();
        let listener =
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, handler): (_, Arc<Handler>) = (Arc::clone(&asked), Arc::new(handler));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, record) =
                    (acceptor.clone(), Arc::clone(&handler), Arc::clone(&record));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service =
                        service_fn(move |request| answer(request, Arc::clone(&handler), Arc::clone(&record)));
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { port, authority: certificate.authority, asked }
    }

    /// Path and body of each request so far.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().expect("not poisoned").clone()
    }

    pub fn forget(&self) {
        self.asked.lock().expect("not poisoned").clear();
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
    record: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    record.lock().expect("not poisoned").push((path, body.clone()));
    let Some((code, value)) = handler(&parts, &body) else { return std::future::pending().await };
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = StatusCode::from_u16(code).expect("a code");
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(answer)
}
