//! What a controller has done and its cache has not shown yet. Until the cache has caught up, acting again on what
//! it shows would create or delete twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Cache, Object};
use parking_lot::Mutex;

use crate::meta;

/// After this an expectation is given up: the object may have come and gone between two lists.
const EXPIRY: Duration = Duration::from_secs(60);

/// By uid of the owner. Creations are counted, since their names are not known before; deletions are known by uid.
#[derive(Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<String, Expected>>,
}

struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Fulfils expectations by what `cache` shows. Call it before the controller itself watches the cache, so that
    /// a fulfilled expectation is known when the controller is woken.
    pub fn follow<T: Object>(cache: &Arc<Cache<T>>) -> Arc<Self> {
        let expectations = Arc::new(Self::default());
        let seen = Arc::clone(&expectations);
        cache.listen(move |change| {
            let meta = change.object().meta();
            let Some(owner) = meta::controller_of(meta) else { return };
            if change.old.is_none() {
                seen.created(&owner.uid);
            }
            if change.new.is_none() || meta::is_deleting(meta) {
                seen.deleted(&owner.uid, meta::uid(meta));
            }
        });
        expectations
    }

    pub fn expect(&self, owner: &str, creations: usize, deletions: impl IntoIterator<Item = String>) {
        let expected =
            Expected { creations, deletions: deletions.into_iter().collect(), since: Instant::now() };
        let mut by_owner = self.by_owner.lock();
        // What belonged to owners that are gone must not pile up.
        by_owner.retain(|_, e| e.since.elapsed() < EXPIRY);
        by_owner.insert(owner.to_owned(), expected);
    }

    /// One creation has been seen, or will never be.
    pub fn created(&self, owner: &str) {
        self.update(owner, |expected| expected.creations = expected.creations.saturating_sub(1));
    }

    /// One deletion has been seen, or will never be.
    pub fn deleted(&self, owner: &str, uid: &str) {
        self.update(owner, |expected| {
            expected.deletions.remove(uid);
        });
    }

    fn update(&self, owner: &str, change: impl FnOnce(&mut Expected)) {
        let mut by_owner = self.by_owner.lock();
        if let Some(expected) = by_owner.get_mut(owner) {
            change(expected);
            if expected.creations == 0 && expected.deletions.is_empty() {
                by_owner.remove(owner);
            }
        }
    }

    /// What is seen when one looks at the cache, and whether that is all we did: if not, how long until we stop waiting
    /// for it. It is asked before anybody looks: what comes in meanwhile must not pass for what was looked at.
    pub fn before<T>(&self, owner: &str, look: impl FnOnce() -> T) -> (Option<Duration>, T) {
        let pending = self.pending(owner);
        (pending, look())
    }

    /// Whether the cache shows all we did. If not, how long until we stop waiting for it. Whoever goes on to look at the
    /// cache has to ask before: see [`Expectations::before`].
    pub fn pending(&self, owner: &str) -> Option<Duration> {
        let mut by_owner = self.by_owner.lock();
        let left = EXPIRY.saturating_sub(by_owner.get(owner)?.since.elapsed());
        if left.is_zero() {
            by_owner.remove(owner);
            return None;
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_waits_for_all_it_did() {
        let expectations = Expectations::default();
        assert!(expectations.pending("a").is_none());
        expectations.expect("a", 2, ["x".to_owned()]);
        expectations.created("a");
        expectations.deleted("a", "x");
        expectations.deleted("a", "y");
        assert!(expectations.pending("a").is_some());
        expectations.created("a");
        assert!(expectations.pending("a").is_none());
        expectations.created("a");
    }

    #[test]
    fn what_comes_while_one_looks_was_not_looked_at() {
        let expectations = Expectations::default();
        expectations.expect("a", 1, []);
        let (pending, seen) = expectations.before("a", || {
            let seen = "nothing yet";
            expectations.created("a");
            seen
        });
        assert!(pending.is_some(), "{seen} was seen, and taken for all there is");
        assert!(expectations.before("a", || ()).0.is_none());
    }
}
