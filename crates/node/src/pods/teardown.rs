//! Taking a pod's surroundings away, wholly or (when the pod is over but still known) in part. All of it is idempotent.

use std::path::PathBuf;

use container::runtime::RuntimeError;
use net::namespace::NamespaceError;

use super::context::{Context, PodKey};
use super::setup::uid_of_sandbox;
use crate::images::ImageError;
use crate::volumes::{VolumeError, release_all};

#[derive(Debug, thiserror::Error)]
pub enum TeardownError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("network: {0}")]
    Network(#[from] NamespaceError),
    #[error(transparent)]
    Volumes(#[from] VolumeError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("remove {}: {source}", path.display())]
    Remove {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the work of taking a pod down was cut short")]
    Cut,
}

/// The pod is over: its network goes, its containers' records and logs stay.
pub async fn stop_sandbox(context: &Context, key: &PodKey, sandbox_id: &str) -> Result<(), TeardownError> {
    ignore_missing(context.runtime.stop_pod_sandbox(sandbox_id).await)?;
    release_network(context, key).await
}

/// The address is the caller's to give back, once, when all of it has succeeded.
async fn release_network(context: &Context, key: &PodKey) -> Result<(), TeardownError> {
    let path = context.config.netns_path(&key.uid);
    Ok(net::attachment::detach(&context.config.namespace, &key.uid, &path).await?)
}

fn ignore_missing(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// Everything of the pod on this node goes.
pub async fn tear_down(context: &Context, key: &PodKey) -> Result<(), TeardownError> {
    let _slot = context.heavy.acquire().await.map_err(|_| TeardownError::Cut)?;
    for sandbox in context.runtime.list_pod_sandboxes().await? {
        let id = &sandbox.config.id;
        if uid_of_sandbox(id) != Some(key.uid.as_str()) {
            continue;
        }
        let containers = context.runtime.list_containers(Some(id)).await?;
        for container in containers {
            ignore_missing(context.runtime.remove_container(&container.id).await)?;
            context.images.remove_rootfs(&container.id).await?;
        }
        ignore_missing(context.runtime.remove_pod_sandbox(id).await)?;
    }
    release_network(context, key).await?;
    let config = &context.config;
    let pod_dir = config.pod_dir(&key.uid);
    let log_dir = config.log_dir(&key.namespace, &key.name, &key.uid);
    let removed = tokio::task::spawn_blocking(move || {
        release_all(&pod_dir)?;
        match std::fs::remove_dir_all(&log_dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(TeardownError::Remove { path: log_dir, source })
            }
            _ => Ok(()),
        }
    });
    removed.await.map_err(|_| TeardownError::Cut)?
}
