//! What an answer of so many bytes takes at least: a server that has them ready and does nothing else, the same client, TLS
//! and loopback. How many times faster than another a server can be is bounded by it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use testkit::api::Api;
use testkit::certificate::Certificate;
use tokio::net::TcpListener;

use crate::percentile;

const TIMES: usize = 5;

/// The median of a few.
pub async fn alone(length_bytes: usize) -> Duration {
    let certificate = Certificate::new();
    // In a thread of its own, as another process would be.
    let (address, server) = begin(&certificate, Bytes::from(vec![b'x'; length_bytes]));
    let api = Api::of(&address.to_string(), &certificate.authority, "none");
    let mut connection = api.connect().await;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let bytes = connection.done("GET", "/", "").await;
        times.push(started.elapsed().as_secs_f64());
        assert_eq!(bytes.len(), length_bytes);
    }
    // Its one connection ends, and it with it.
    drop(connection);
    server.join().expect("it ends");
    Duration::from_secs_f64(percentile(&mut times, 0.5))
}

fn begin(certificate: &Certificate, body: Bytes) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a listener");
    let acceptor = certificate.acceptor();
    let work = async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        let (stream, _) = listener.accept().await.expect("somebody connects");
        let stream = acceptor.accept(stream).await.expect("a session");
        let answer = service_fn(|_| {
            let body = body.clone();
            async move { Ok::<_, Infallible>(http::Response::new(Full::new(body))) }
        });
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        drop(serving.await);
    };
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work);
    };
    (address, std::thread::spawn(run))
}
