//! A pod whose sandbox was lost has a new one, and of the containers of the earlier one only those are kept that are still
//! remembered: what ran before, with its log, as the kubelet keeps one dead container of each.

use std::collections::BTreeSet;

use container::runtime::{RuntimeError, SandboxState};

use super::container_config::log_path;
use super::context::{Context, PodKey};
use super::setup::uid_of_sandbox;

/// Removes from the pod's other sandboxes than `present` all containers that are not in `keep`, and then those sandboxes
/// that hold nothing any more. What cannot be removed now will be with the pod.
pub async fn remove_superseded(context: &Context, key: &PodKey, present: &str, keep: &BTreeSet<String>) {
    if let Err(error) = remove(context, key, present, keep).await {
        tracing::debug!(%error, pod = %key.name, "remove what an earlier sandbox held");
    }
}

async fn remove(
    context: &Context,
    key: &PodKey,
    present: &str,
    keep: &BTreeSet<String>,
) -> Result<(), RuntimeError> {
    for sandbox in context.runtime.list_pod_sandboxes().await? {
        let id = &sandbox.config.id;
        let superseded = uid_of_sandbox(id) == Some(key.uid.as_str()) && id != present;
        if !superseded || sandbox.state == SandboxState::Ready {
            continue;
        }
        let (kept, surplus): (Vec<_>, Vec<_>) =
            context.runtime.list_containers(Some(id)).await?.into_iter().partition(|c| keep.contains(&c.id));
        for container in surplus {
            remove_run(context, key, &container.name, &container.id, container.attempt).await;
        }
        if kept.is_empty() {
            context.runtime.remove_pod_sandbox(id).await?;
        }
    }
    Ok(())
}

/// One run of a container, with its root and its log.
pub async fn remove_run(context: &Context, key: &PodKey, name: &str, id: &str, attempt: u32) {
    if let Err(error) = context.runtime.remove_container(id).await {
        tracing::debug!(%error, %id, "remove an old run");
    }
    if let Err(error) = context.images.remove_rootfs(id).await {
        tracing::debug!(%error, %id, "remove an old run's root");
    }
    let log = context.config.log_dir(&key.namespace, &key.name, &key.uid).join(log_path(name, attempt));
    crate::logs::rotate::remove_all(&log);
}
