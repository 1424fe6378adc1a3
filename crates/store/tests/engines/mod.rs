//! The engines that the suites run on, each with a world of its own.

use std::sync::Arc;

use store::{Embedded, EmbeddedOptions, Etcd, EtcdAddress, EtcdOptions, Store};
use testkit::etcd;

#[derive(Clone, Copy, Debug)]
pub enum Engine {
    Embedded,
    Etcd,
}

/// A store and what it lies on.
pub struct World {
    // In the order in which they must go.
    store: Option<Arc<dyn Store>>,
    server: Option<etcd::Etcd>,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn new(engine: Engine) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = match engine {
            Engine::Embedded => None,
            Engine::Etcd => Some(etcd::Etcd::required(folder.path())),
        };
        let mut this = Self { store: None, server, folder };
        this.reopen().await;
        this
    }

    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().expect("it is open"))
    }

    /// Another program on the same data. Nobody may hold the store.
    pub async fn reopen(&mut self) {
        self.store = None;
        self.store = Some(match &self.server {
            None => {
                let path = self.folder.path().join("state.redb");
                Arc::new(Embedded::open(&path, EmbeddedOptions::default()).expect("opens"))
            }
            Some(server) => Arc::new(Etcd::open(options(server)).await.expect("opens")),
        });
    }
}

pub fn options(server: &etcd::Etcd) -> EtcdOptions {
    let address = EtcdAddress::parse(&format!("etcd://{}", server.address)).expect("an address");
    EtcdOptions { root: "/".into(), ..EtcdOptions::new(address) }
}
