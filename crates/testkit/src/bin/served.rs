//! A program to be probed: HTTPS on port 8443 and gRPC's health service on port 9090. It is healthy until there is a file
//! `/tmp/off`. `served ask PATH` asks the API instead, as any program in a pod does.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::api::Api;
use testkit::certificate::Certificate;
use tokio::net::TcpListener;

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
/// The service that the health service knows beside the whole server.
const SERVICE: &[u8] = b"shop";
/// gRPC's code for a service it does not know.
const NOT_FOUND: &str = "5";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ask", path] => ask(path).await,
        _ => drop(tokio::join!(https(), grpc())),
    }
}

/// Prints the status and the body of the answer.
async fn ask(path: &str) {
    let answer = Api::in_pod().connect().await.send("GET", path, "").await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    println!("{status} {}", String::from_utf8_lossy(&body));
}

fn is_off() -> bool {
    std::path::Path::new("/tmp/off").exists()
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await.expect("the port is free")
}

async fn https() {
    let acceptor = Certificate::new().acceptor();
    let listener = listen(8443).await;
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let service = service_fn(|_: Request<Incoming>| async {
            let mut answer = Response::new(Full::new(Bytes::from_static(b"over TLS\n")));
            if is_off() {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, hyper::Error>(answer)
        });
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn grpc() {
    let listener = listen(9090).await;
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        let connection = http2::Builder::new(TokioExecutor::new());
        tokio::spawn(async move {
            drop(connection.serve_connection(TokioIo::new(stream), service_fn(check)).await);
        });
    }
}

/// One message of `grpc.health.v1.Health/Check`: five bytes of frame, then field 1 of the request is the service.
async fn check(
    request: Request<Incoming>,
) -> Result<Response<StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, hyper::Error>>>>, hyper::Error>
{
    let body = request.into_body().collect().await?.to_bytes();
    let service = body.get(7..).unwrap_or_default();
    let known = service.is_empty() || service == SERVICE;
    let status = if is_off() { NOT_SERVING } else { SERVING };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if known { "0" } else { NOT_FOUND }));
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
    let frames = known.then(|| Ok(Frame::data(message))).into_iter().chain([Ok(Frame::trailers(trailers))]);
    let mut answer = Response::new(StreamBody::new(futures::stream::iter(frames)));
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(answer)
}
