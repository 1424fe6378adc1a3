//! The namespaces that every cluster has. Only three of them can never be deleted; that of the nodes' leases can, and is
//! there again at once: without it no node could say that it lives.

use std::sync::Weak;
use std::time::Duration;

use api::status::ApiError;
use futures::future::try_join_all;
use store::StoreError;

use super::{apply, object};
use crate::objects::store_error;
use crate::{ApiServer, Server};

const PREFIX: &str = "/registry/namespaces/";
const RETRY: Duration = Duration::from_secs(1);

/// Never deleted.
pub(crate) const KEPT: [&str; 3] = ["default", "kube-system", "kube-public"];
const LEASES: &str = "kube-node-lease";

pub(super) async fn make(server: &ApiServer) -> Result<(), ApiError> {
    let all = KEPT.into_iter().chain([LEASES]);
    try_join_all(all.map(|name| apply(server, "/api/v1/namespaces", object("v1", "Namespace", name))))
        .await?;
    Ok(())
}

/// Sees to it that they are there, for as long as the server is. They were made at this revision.
pub(crate) fn keep(server: &ApiServer, made_at: u64) {
    let server = std::sync::Arc::downgrade(&server.0);
    tokio::spawn(async move {
        let mut from = Some(made_at);
        while let Some(error) = follow(&server, from.take()).await {
            tracing::warn!(%error, "cannot keep the namespaces of every cluster");
            tokio::time::sleep(RETRY).await;
        }
    });
}

/// Until the watch ends, with why. Nothing when the server is gone. Without a revision they are made first.
async fn follow(server: &Weak<Server>, from: Option<u64>) -> Option<ApiError> {
    let from = match from {
        Some(revision) => revision,
        None => {
            let server = ApiServer(server.upgrade()?);
            let revision = server.0.objects.store.revision();
            if let Err(error) = make(&server).await {
                return Some(error);
            }
            revision
        }
    };
    let mut watch = match server.upgrade()?.objects.store.watch(PREFIX, from) {
        Ok(watch) => watch,
        Err(error) => return Some(store_error(error)),
    };
    loop {
        let events = match watch.next().await {
            Ok(events) => events,
            Err(StoreError::Closed) => return None,
            Err(error) => return Some(store_error(error)),
        };
        let is_gone = |event: &std::sync::Arc<store::Event>| {
            event.deleted && event.entry.key.strip_prefix(PREFIX) == Some(LEASES)
        };
        if events.iter().any(is_gone)
            && let Err(error) = make(&ApiServer(server.upgrade()?)).await
        {
            return Some(error);
        }
    }
}
