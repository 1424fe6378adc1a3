//! Writes that are on their way to the store. Whoever prepares one says so, and whoever puts writes on disk may wait a
//! moment for it: one transaction of many costs hardly more than one of a single write.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Store;

/// How many writes are being prepared for one store.
#[derive(Clone, Default)]
pub(crate) struct Expected(Arc<AtomicUsize>);

impl Expected {
    pub(crate) fn announce(&self) -> Coming {
        self.0.fetch_add(1, Ordering::Relaxed);
        Coming(Arc::clone(&self.0))
    }

    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// One write that is being prepared. It is expected until this is dropped.
pub struct Coming(Arc<AtomicUsize>);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

tokio::task_local! {
    /// What the work of this task has announced and not handed in yet.
    static OWN: Cell<Option<Coming>>;
}

/// Does work that ends in a write to the store, unless it is refused before.
pub async fn preparing<F: Future>(store: &dyn Store, work: F) -> F::Output {
    match store.announce() {
        Some(coming) => OWN.scope(Cell::new(Some(coming)), work).await,
        None => work.await,
    }
}

/// The write that this task was preparing has been handed in.
pub(crate) fn arrived() {
    // Whoever writes without saying so before was never expected.
    drop(OWN.try_with(Cell::take).ok().flatten());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Embedded, EmbeddedOptions, Op};

    #[tokio::test]
    async fn a_write_is_expected_until_it_is_handed_in_or_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(&folder.path().join("store"), EmbeddedOptions::default()).expect("opens");
        let expected = || store.expected().any();
        let refused = preparing(&store, async { expected() }).await;
        assert!(refused, "announced while it is being prepared");
        assert!(!expected(), "and given up");
        let after = preparing(&store, async {
            store.txn(vec![Op::create("/a", "1")]).await.expect("written");
            expected()
        });
        assert!(!after.await, "once it is in it is not coming any more, whatever its author goes on to do");
        store.txn(vec![Op::create("/b", "1")]).await.expect("who never announced anything may write as well");
    }
}
