//! The standard gRPC health check, spoken by hand: one request with one string, one answer with one enum.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use net::namespace::Namespace;

use super::ask::{Answer, plain};

const SERVING: u8 = 1;
const UNIMPLEMENTED: &str = "12";

pub async fn check(node: &Namespace, address: SocketAddr, service: &str) -> Answer {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Answer::Failure(format!("error: health rpc probe failed: {}", plain(error)))
    };
    let stream = match node.connect_tcp(address).await {
        Ok(stream) => stream,
        Err(error) => {
            return Answer::Failure(format!(
                "timeout: failed to connect service \"{address}\" within 1s: {}",
                plain(&error)
            ));
        }
    };
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return failed(&error),
    };
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame(service))));
    let answer = match request {
        Ok(request) => match sender.send_request(request).await {
            Ok(response) => read(response).await,
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    };
    driver.abort();
    answer
}

/// A length-prefixed `HealthCheckRequest { service: 1 }`.
fn frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        // Names are limited far below 128 bytes by the API; longer ones would need a longer varint.
        let length = u8::try_from(service.len().min(127)).unwrap_or(127);
        message.extend([0x0a, length]);
        message.extend(&service.as_bytes()[..usize::from(length)]);
    }
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    framed.extend(message);
    framed
}

async fn read(response: http::Response<hyper::body::Incoming>) -> Answer {
    let early = response.headers().get("grpc-status").cloned();
    let collected = match response.into_body().collect().await {
        Ok(collected) => collected,
        Err(error) => return Answer::Failure(format!("error: health rpc probe failed: {}", plain(&error))),
    };
    let status = collected.trailers().and_then(|t| t.get("grpc-status")).cloned().or(early);
    let status = status.as_ref().and_then(|s| s.to_str().ok()).unwrap_or("0").to_owned();
    if status == UNIMPLEMENTED {
        return Answer::Failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into(),
        );
    }
    if status != "0" {
        return Answer::Failure(format!("error: health rpc probe failed with status {status}"));
    }
    let body = collected.to_bytes();
    match body.get(5..) {
        Some([0x08, SERVING, ..]) => Answer::Success,
        Some([0x08, other, ..]) => {
            let name = match other {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Answer::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        _ => Answer::Failure("service unhealthy (responded with \"UNKNOWN\")".into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_request_is_framed() {
        assert_eq!(super::frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(super::frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }
}
