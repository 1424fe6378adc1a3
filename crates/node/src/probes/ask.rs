//! Asking once, in whichever way the probe says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use container::runtime::{Runtime, RuntimeError};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use net::namespace::Namespace;
use tokio::time::timeout;

use super::{grpc, http};

/// What an event quotes of a command's output at most.
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// An answer and what an event says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Success,
    Failure(String),
}

/// The question could not be put at all; such a round does not count.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("couldn't find port: {0}")]
    Port(String),
    #[error("missing probe handler for container")]
    NoHandler,
}

/// Where a container can be reached.
pub struct Place {
    pub runtime: Arc<dyn Runtime>,
    pub node: Namespace,
    pub container_id: String,
    pub container: Container,
    pub pod_ip: IpAddr,
}

pub async fn ask(place: &Place, probe: &Probe, limit: Duration) -> Result<Answer, AskError> {
    if let Some(exec) = &probe.exec {
        return ask_exec(place, exec.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(action) = &probe.http_get {
        let port = port_of(&action.port, &place.container)?;
        let request = http::Request::from_action(action, place.pod_ip, port);
        return Ok(match timeout(limit, http::get(&place.node, &request)).await {
            Ok(Ok(status)) if (200..400).contains(&status.code) => Answer::Success,
            Ok(Ok(status)) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", status.code)),
            Ok(Err(error)) => Answer::Failure(format!("Get \"{}\": {error}", request.url())),
            Err(_) => Answer::Failure(format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                request.url()
            )),
        });
    }
    if let Some(action) = &probe.tcp_socket {
        let port = port_of(&action.port, &place.container)?;
        let ip = action.host.as_deref().and_then(|host| host.parse().ok()).unwrap_or(place.pod_ip);
        let address = SocketAddr::new(ip, port);
        return Ok(match timeout(limit, place.node.connect_tcp(address)).await {
            Ok(Ok(_)) => Answer::Success,
            Ok(Err(error)) => Answer::Failure(format!("dial tcp {address}: {}", plain(&error))),
            Err(_) => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
        });
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| AskError::Port(action.port.to_string()))?;
        let address = SocketAddr::new(place.pod_ip, port);
        let service = action.service.as_deref().unwrap_or_default();
        return Ok(match timeout(limit, grpc::check(&place.node, address, service, limit)).await {
            Ok(answer) => answer,
            Err(_) => {
                Answer::Failure(format!("timeout: health rpc did not complete within {}s", limit.as_secs()))
            }
        });
    }
    Err(AskError::NoHandler)
}

async fn ask_exec(place: &Place, command: Vec<String>, limit: Duration) -> Result<Answer, AskError> {
    match place.runtime.exec_sync(&place.container_id, command.clone(), limit).await {
        Ok(result) if result.exit_code == 0 => Ok(Answer::Success),
        Ok(result) => {
            let output = [&result.stdout[..], &result.stderr].concat();
            let shown = &output[..output.len().min(OUTPUT_BYTES_MAX)];
            Ok(Answer::Failure(String::from_utf8_lossy(shown).into_owned()))
        }
        Err(RuntimeError::Timeout { .. }) => {
            let shown = format!("command timed out: {command:?} timed out after {}s", limit.as_secs());
            Ok(Answer::Failure(shown))
        }
        Err(RuntimeError::Exec { message, .. }) => Ok(Answer::Failure(message)),
        Err(error) => Err(error.into()),
    }
}

/// A number, or the name of one of the container's ports.
pub fn port_of(port: &IntOrString, container: &Container) -> Result<u16, AskError> {
    let unknown = || AskError::Port(format!("{port:?}"));
    match port {
        IntOrString::Int(number) => u16::try_from(*number).map_err(|_| unknown()),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            let number = named.map(|p| p.container_port).or_else(|| name.parse().ok());
            number.and_then(|n| u16::try_from(n).ok()).ok_or_else(unknown)
        }
    }
}

/// The innermost cause in Go's short spelling, which users grep for.
pub fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
        Some(111) => "connect: connection refused".into(),
        Some(113) => "connect: no route to host".into(),
        Some(101) => "connect: network is unreachable".into(),
        Some(104) => "read: connection reset by peer".into(),
        _ => cause.to_string(),
    }
}
