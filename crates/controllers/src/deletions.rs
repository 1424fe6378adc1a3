//! Who wants to know that anything has gone. The garbage collector follows every kind already; others need not follow
//! them all once more.

use std::sync::Arc;

use parking_lot::RwLock;

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Tells of each object that is gone, by its namespace.
#[derive(Clone, Default)]
pub struct Deletions(Arc<RwLock<Vec<Listener>>>);

impl Deletions {
    pub fn listen(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        self.0.write().push(Box::new(listener));
    }

    pub fn tell(&self, namespace: &str) {
        self.0.read().iter().for_each(|listener| listener(namespace));
    }
}
