//! What every client of the API in this process shares: one cache for each kind, the one driver that runs all
//! reconcilers, and the recorder of events. It is built on `kube::Client` alone, so that the same controllers run
//! against our server in this process and against any cluster.

mod cache;
mod driver;
pub mod election;
mod events;
mod queue;
mod slim;

pub use cache::{Cache, Caches, Change, Object};
pub use driver::{Controller, Next, Outcome, Reconciler, Woken, waker};
pub use events::{Level, Recorder};
pub use kube;

use std::fmt;

/// Names an object of a known kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for kinds that are not namespaced.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of<T: kube::Resource>(object: &T) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Whether an error of the API says that the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether it says that somebody else was faster.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
