//! Ports of the host carried to an address inside a namespace: bytes in user space, so that nothing of the host's
//! network is changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::namespace::{Namespace, NamespaceError};

/// Connections one published port may carry at a time; further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 1024;

/// The set of published ports. Dropping it closes all of them.
pub struct PublishedPorts {
    namespace: Namespace,
    ports: Mutex<BTreeMap<SocketAddr, Published>>,
}

struct Published {
    target: watch::Sender<SocketAddr>,
    local: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Published {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PublishedPorts {
    /// Targets are dialled inside `namespace`.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, ports: Mutex::new(BTreeMap::new()) }
    }

    /// Listens on `host` and carries each connection to `target`. A port that is published already only changes its
    /// target; connections under way keep theirs. Returns the address bound (for port 0).
    pub async fn add(&self, host: SocketAddr, target: SocketAddr) -> Result<SocketAddr, NamespaceError> {
        if let Some(published) = self.ports.lock().get(&host) {
            published.target.send_replace(target);
            return Ok(published.local);
        }
        let failed = |source| NamespaceError::Socket { address: host, source };
        let listener = TcpListener::bind(host).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let (sender, receiver) = watch::channel(target);
        let task = tokio::spawn(accept(listener, self.namespace.clone(), receiver));
        let key = if host.port() == 0 { local } else { host };
        self.ports.lock().insert(key, Published { target: sender, local, task });
        Ok(local)
    }

    /// Stops listening; its connections are closed. One that is not published is what was wanted.
    pub fn remove(&self, host: SocketAddr) {
        self.ports.lock().remove(&host);
    }

    /// What is published now: host address and target.
    pub fn list(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.ports.lock().iter().map(|(host, published)| (*host, *published.target.borrow())).collect()
    }
}

async fn accept(listener: TcpListener, namespace: Namespace, target: watch::Receiver<SocketAddr>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog: neither ends the port.
                tracing::warn!(%error, "accept on a published port");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let (namespace, target) = (namespace.clone(), *target.borrow());
        connections.spawn(async move {
            if let Err(error) = carry(stream, &namespace, target).await {
                tracing::debug!(%error, %target, "published connection");
            }
            drop(slot);
        });
    }
}

async fn carry(
    mut stream: TcpStream,
    namespace: &Namespace,
    target: SocketAddr,
) -> Result<(), NamespaceError> {
    let failed = |source| NamespaceError::Socket { address: target, source };
    stream.set_nodelay(true).map_err(failed)?;
    let mut inner = namespace.connect_tcp(target).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut inner).await.map_err(failed)?;
    Ok(())
}
