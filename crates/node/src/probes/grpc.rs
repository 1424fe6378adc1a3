//! The standard gRPC health check: one request with one string, one answer with one enum.

use std::net::SocketAddr;
use std::time::Duration;

use grpc::{Channel, Fault, Peer};
use net::namespace::Namespace;
use prost::Message;

use super::ask::{Answer, plain};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// What a gRPC client takes unless it is told otherwise; the answer has two bytes.
const MESSAGE_LIMIT_BYTES: usize = 4 << 20;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub async fn check(node: &Namespace, address: SocketAddr, service: &str, limit: Duration) -> Answer {
    let stream = match node.connect_tcp(address).await {
        Ok(stream) => stream,
        Err(error) => {
            return Answer::Failure(format!(
                "timeout: failed to connect service \"{address}\" within 1s: {}",
                plain(&error)
            ));
        }
    };
    let peer = Peer {
        authority: address.to_string(),
        secure: false,
        pings: false,
        message_limit_bytes: MESSAGE_LIMIT_BYTES,
    };
    let asked = async {
        let channel = Channel::new(stream, peer).await?;
        let request = HealthCheckRequest { service: service.to_owned() };
        channel.unary(CHECK, &request, &[], limit).await
    };
    told(asked.await)
}

fn told(answer: Result<HealthCheckResponse, Fault>) -> Answer {
    Answer::Failure(match answer {
        Ok(HealthCheckResponse { status: 1 }) => return Answer::Success,
        Ok(HealthCheckResponse { status }) => {
            let name = match status {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            format!("service unhealthy (responded with \"{name}\")")
        }
        Err(Fault::Refused { code: grpc::codes::UNIMPLEMENTED, .. }) => {
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".into()
        }
        Err(Fault::Refused { code, .. }) => format!("error: health rpc probe failed with status {code}"),
        Err(Fault::NotSent(why) | Fault::Broken(why)) => format!("error: health rpc probe failed: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: Result<&[u8], Fault>, expected: &str) {
        let shown = match told(answer.map(|bytes| HealthCheckResponse::decode(bytes).expect("a message"))) {
            Answer::Success => String::new(),
            Answer::Failure(why) => why,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_who_serves_is_well() {
        let unhealthy = |name: &str| format!("service unhealthy (responded with \"{name}\")");
        check(Ok(&[8, 1]), "");
        check(Ok(&[8, 2]), &unhealthy("NOT_SERVING"));
        check(Ok(&[8, 3]), &unhealthy("SERVICE_UNKNOWN"));
        check(Ok(&[]), &unhealthy("UNKNOWN"));
        let refused = |code| Err(Fault::Refused { code, message: String::new() });
        check(
            refused(12),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)",
        );
        check(refused(5), "error: health rpc probe failed with status 5");
        check(Err(Fault::Broken("gone".into())), "error: health rpc probe failed: gone");
        assert_eq!(HealthCheckRequest { service: "ab".into() }.encode_to_vec(), [0x0a, 2, b'a', b'b']);
    }
}
