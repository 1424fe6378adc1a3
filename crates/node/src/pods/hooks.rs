//! Lifecycle hooks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use container::runtime::RuntimeError;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::context::Context;
use crate::probes::{HookError, http_hook};

#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("command '{command}' exited with {code}: {output}")]
    Exit { command: String, code: i32, output: String },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Http(#[from] HookError),
    #[error("{0}")]
    Tcp(String),
}

/// Runs a hook to its end, for at most `limit`.
pub async fn run_hook(
    context: &Context,
    container: &Container,
    container_id: &str,
    pod_ip: IpAddr,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), LifecycleError> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result = context.runtime.exec_sync(container_id, command.clone(), limit).await?;
        if result.exit_code != 0 {
            let output = [&result.stdout[..], &result.stderr].concat();
            return Err(LifecycleError::Exit {
                command: command.join(" "),
                code: result.exit_code,
                output: String::from_utf8_lossy(&output).into_owned(),
            });
        }
    } else if let Some(action) = &hook.http_get {
        http_hook(&context.config.namespace, action, container, pod_ip, limit).await?;
    } else if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
    } else if let Some(action) = &hook.tcp_socket {
        let port = crate::probes::port_of(&action.port, container).map_err(HookError::from)?;
        let address = SocketAddr::new(pod_ip, port);
        let dialled = tokio::time::timeout(limit, context.config.namespace.connect_tcp(address)).await;
        dialled
            .map_err(|_| LifecycleError::Tcp(format!("dial tcp {address}: i/o timeout")))?
            .map_err(|error| LifecycleError::Tcp(error.to_string()))?;
    }
    Ok(())
}
