//! What is made from stored objects and made anew after they have been written: the roles, the hooks, the policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::status::ApiError;
use parking_lot::RwLock;

/// A value and which writes it knows of.
pub struct Reloaded<T> {
    value: RwLock<Arc<T>>,
    /// How many writes there were, and how many the value has seen.
    written: AtomicU64,
    held: AtomicU64,
    loading: tokio::sync::Mutex<()>,
}

impl<T: Default> Default for Reloaded<T> {
    fn default() -> Self {
        // One write more than it has seen, so that the first use loads it.
        let (written, held) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { value: RwLock::default(), written, held, loading: tokio::sync::Mutex::default() }
    }
}

impl<T> Reloaded<T> {
    /// To be called after each write of what the value is made from.
    pub fn outdate(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// The value as it was made last, whatever was written since.
    pub fn last(&self) -> Arc<T> {
        Arc::clone(&self.value.read())
    }

    /// The value as the last write has left it.
    pub async fn get<F>(&self, load: impl FnOnce() -> F) -> Result<Arc<T>, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        if self.held.load(Ordering::Acquire) != self.written.load(Ordering::Acquire) {
            // Whoever comes while it is being loaded waits for it, rather than being judged by what was.
            let _loading = self.loading.lock().await;
            let written = self.written.load(Ordering::Acquire);
            if self.held.load(Ordering::Acquire) != written {
                *self.value.write() = Arc::new(load().await?);
                self.held.store(written, Ordering::Release);
            }
        }
        Ok(Arc::clone(&self.value.read()))
    }
}
