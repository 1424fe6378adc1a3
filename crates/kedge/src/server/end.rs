//! Asking containers to end before they are killed, where the server is gone: their shims live, and answer to whoever has
//! the data directory. What they do not answer to is killed afterwards in any case.

use std::collections::BTreeMap;
use std::time::Duration;

use base::constants::annotations::POD_GRACE_PERIOD;
use base::layout::Layout;
use container::own::OwnRuntime;
use container::runtime::{ContainerState, Runtime};
use futures::future::{BoxFuture, join_all};
use tokio::sync::watch;

/// Each container has as long as its pod says, but no longer than `limit`.
pub fn containers(
    layout: Layout,
    limit: Duration,
    left: watch::Sender<usize>,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        if !layout.containers().is_dir() {
            return Ok(());
        }
        let runtime = OwnRuntime::new(layout.containers(), "/proc/self/exe", layout.cgroup_prefix()).await?;
        let sandboxes = runtime.list_pod_sandboxes().await?;
        let graces: BTreeMap<String, Duration> = sandboxes
            .into_iter()
            .map(|sandbox| {
                let grace = grace(sandbox.config.annotations.get(POD_GRACE_PERIOD), limit);
                (sandbox.config.id, grace)
            })
            .collect();
        let all = runtime.list_containers(None).await?;
        let running: Vec<_> = all.into_iter().filter(|c| c.state == ContainerState::Running).collect();
        left.send_replace(running.len());
        let ends = running.iter().map(async |container| {
            let grace = graces.get(&container.sandbox_id).copied().unwrap_or(limit);
            let ended = runtime.stop_container(&container.id, grace).await;
            left.send_modify(|left| *left -= 1);
            ended
        });
        Ok(join_all(ends).await.into_iter().collect::<Result<(), _>>()?)
    })
}

/// Sandboxes of before do not say it.
fn grace(said: Option<&String>, limit: Duration) -> Duration {
    let seconds = said.and_then(|text| text.parse::<i64>().ok()).map(|s| u64::try_from(s).unwrap_or(0));
    seconds.map_or(limit, |seconds| Duration::from_secs(seconds).min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_own_time_within_the_limit() {
        let limit = Duration::from_secs(10);
        let of = |said: Option<&str>| grace(said.map(str::to_owned).as_ref(), limit).as_secs();
        let all = [Some("3"), Some("0"), Some("30"), Some("-1"), Some("x"), None].map(of);
        assert_eq!(all, [3, 0, 10, 0, 10, 10]);
    }
}
