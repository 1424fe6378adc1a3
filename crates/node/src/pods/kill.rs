//! Ending one container: its preStop hook, then the stop signal, then SIGKILL, all within one grace period.

use std::net::IpAddr;
use std::time::Duration;

use container::runtime::RuntimeError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::context::Context;
use super::hooks::run_hook;

/// However short the grace period, the stop signal is given this much.
const GRACE_MIN: Duration = Duration::from_secs(1);

/// Returns when no process of the container is left.
pub async fn kill(
    context: &Context,
    pod: &Pod,
    container: Option<&Container>,
    container_id: &str,
    pod_ip: Option<IpAddr>,
    by: Timestamp,
) -> Result<(), RuntimeError> {
    let grace = Duration::try_from(by.duration_since(Timestamp::now())).unwrap_or_default().max(GRACE_MIN);
    let begun = Instant::now();
    let hook = container.and_then(|c| c.lifecycle.as_ref()).and_then(|l| l.pre_stop.as_ref());
    if let (Some(container), Some(hook), Some(ip)) = (container, hook, pod_ip)
        && let Err(error) = run_hook(context, container, container_id, ip, hook, grace).await
    {
        let message = format!("PreStopHook failed: {error}");
        context.events.container_event(pod, &container.name, "Warning", "FailedPreStopHook", &message);
    }
    let rest = grace.saturating_sub(begun.elapsed()).max(GRACE_MIN);
    match context.runtime.stop_container(container_id, rest).await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
