//! How a server comes to have what every cluster has, and to follow what others write. That takes reading and writing, and
//! where everything is encrypted whoever keeps the keys has to be there for it. A server does not end because it came first:
//! it answers what it can, is not ready, says why, and goes on once they are there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use api::status::ApiError;

use crate::{ApiServer, Server, StartError, bootstrap, claims};

/// How often it is tried again.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn begin(server: &ApiServer) -> Result<(), StartError> {
    match server.settle().await {
        Err(error) if matches!(server.0.objects.cipher().health().await, Some(Err(_))) => {
            tracing::warn!(%error, "what every cluster has waits for those who keep keys");
            server.0.note_settled(Err(error.message));
            tokio::spawn(later(Arc::downgrade(&server.0)));
            Ok(())
        }
        done => done.map_err(StartError::Bootstrap),
    }
}

/// Settles once those who keep keys are well, for as long as the server is there.
async fn later(server: Weak<Server>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(server) = server.upgrade().map(ApiServer) else { return };
        if matches!(server.0.objects.cipher().health().await, Some(Err(_))) {
            continue;
        }
        match server.settle().await {
            Ok(()) => return tracing::info!("the cluster has what every cluster has"),
            Err(error) => {
                tracing::warn!(%error, "what every cluster has could not be made");
                server.0.note_settled(Err(error.message));
            }
        }
    }
}

impl Server {
    fn note_settled(&self, result: Result<(), String>) {
        drop(self.settled.send_replace(result));
    }
}

impl ApiServer {
    /// Reads what there is, makes what every cluster has, and goes on to follow what others write.
    async fn settle(&self) -> Result<(), ApiError> {
        let after = self.0.objects.store.revision();
        self.0.reload_catalog().await?;
        self.0.load_addresses().await?;
        claims::settle(self).await?;
        bootstrap::run(self).await?;
        self.name_definitions(None).await;
        self.follow_others(after);
        bootstrap::namespaces::keep(self, after);
        self.follow_services();
        self.follow_nodes();
        self.note_legacy_uses();
        self.follow_fairness();
        self.0.note_settled(Ok(()));
        Ok(())
    }

    /// Waits until the cluster has what every cluster has: until then nobody's work can begin.
    pub async fn settled(&self) {
        let mut settled = self.0.settled.subscribe();
        // Whom it is waited for holds the other end.
        drop(settled.wait_for(Result::is_ok).await);
    }
}
