//! Recent events, shared by all watchers. A watcher is a cursor into this ring, not a queue of its own, so a
//! slow one costs nothing: when the ring has moved past what it has still to see, it is told that its revision was
//! compacted. It is woken by what it watches and by nothing else: there are many watchers of things that seldom change.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Event, Result, Revision, StoreError, Watch};

/// Most events that one call of [`Watch::next`] yields.
const BATCH: usize = 256;
/// No revision: they begin with 1.
const NONE: Revision = 0;

pub struct Ring {
    state: Mutex<State>,
    limit_bytes: usize,
}

struct State {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events at or before this revision are no longer here.
    gone: Revision,
    /// The newest revision that was published.
    newest: Revision,
    /// How often it began anew: cursors of before are lost.
    life: u64,
    closed: bool,
    watchers: Watchers,
}

/// One who watches.
struct Watcher {
    /// The first revision that it has still to look at; [`NONE`] when it has seen all that concerns it. Written only
    /// with the ring's state locked.
    pending: AtomicU64,
    wake: Notify,
}

/// Who watches which prefix.
#[derive(Default)]
struct Watchers {
    by_prefix: HashMap<String, HashMap<u64, Arc<Watcher>>>,
    /// How many prefixes there are of each length: a key is looked up by its beginnings of these lengths.
    lengths: BTreeMap<usize, usize>,
    next: u64,
}

impl Watchers {
    fn add(&mut self, prefix: &str, watcher: Arc<Watcher>) -> u64 {
        let id = self.next;
        self.next += 1;
        if !self.by_prefix.contains_key(prefix) {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        self.by_prefix.entry(prefix.to_owned()).or_default().insert(id, watcher);
        id
    }

    fn remove(&mut self, prefix: &str, id: u64) {
        let Some(group) = self.by_prefix.get_mut(prefix) else { return };
        group.remove(&id);
        if group.is_empty() {
            self.by_prefix.remove(prefix);
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// Those whom a change of this key concerns.
    fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Watcher>> {
        let beginnings = self.lengths.range(..=key.len()).filter_map(|(length, _)| key.get(..*length));
        beginnings.filter_map(|beginning| self.by_prefix.get(beginning)).flat_map(HashMap::values)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Watcher>> {
        self.by_prefix.values().flat_map(HashMap::values)
    }
}

impl Ring {
    pub fn new(revision: Revision, limit_bytes: usize) -> Self {
        let state = State {
            events: VecDeque::new(),
            bytes: 0,
            gone: revision,
            newest: revision,
            life: 0,
            closed: false,
            watchers: Watchers::default(),
        };
        Self { state: Mutex::new(state), limit_bytes }
    }

    /// Events of whole transactions, in order; `revision` is the last one's.
    pub fn publish(&self, events: Vec<Event>, revision: Revision) {
        let mut to_wake = Vec::new();
        {
            let mut state = self.state.lock();
            for event in events {
                for watcher in state.watchers.of(&event.entry.key) {
                    if watcher.pending.load(Ordering::Relaxed) == NONE {
                        watcher.pending.store(event.revision, Ordering::Relaxed);
                        to_wake.push(Arc::clone(watcher));
                    }
                }
                state.bytes += event.size_bytes();
                state.events.push_back(Arc::new(event));
            }
            while state.bytes > self.limit_bytes {
                let Some(oldest) = state.events.pop_front() else { break };
                state.bytes -= oldest.size_bytes();
                state.gone = oldest.revision;
            }
            state.newest = state.newest.max(revision);
        }
        to_wake.iter().for_each(|watcher| watcher.wake.notify_one());
    }

    /// Begins anew at a revision that need not follow on from what was: whoever watches is told that it was compacted.
    pub fn reset(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.events.clear();
        (state.bytes, state.gone, state.newest) = (0, revision, revision);
        state.life += 1;
        state.watchers.all().for_each(|watcher| watcher.wake.notify_one());
    }

    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.watchers.all().for_each(|watcher| watcher.wake.notify_one());
    }

    pub fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Cursor> {
        let mut state = self.state.lock();
        if after < state.gone {
            return Err(StoreError::Compacted { requested: after, compacted: state.gone });
        }
        let pending = if after < state.newest { after + 1 } else { NONE };
        let watcher = Arc::new(Watcher { pending: AtomicU64::new(pending), wake: Notify::new() });
        let id = state.watchers.add(prefix, Arc::clone(&watcher));
        let (ring, prefix, life) = (Arc::clone(self), prefix.to_owned(), state.life);
        Ok(Cursor { ring, prefix, after, life, id, watcher })
    }
}

pub struct Cursor {
    ring: Arc<Ring>,
    prefix: String,
    after: Revision,
    life: u64,
    id: u64,
    watcher: Arc<Watcher>,
}

impl Cursor {
    /// Moves over what is published; `None` when nothing of it matched.
    fn advance(&mut self) -> Result<Option<Vec<Arc<Event>>>> {
        let state = self.ring.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let pending = self.watcher.pending.load(Ordering::Relaxed);
        // One that watches from a revision that is still to come sees nothing of what was before.
        let from = pending.max(self.after + 1);
        if self.life != state.life || pending != NONE && from <= state.gone {
            return Err(StoreError::Compacted { requested: self.after, compacted: state.gone });
        }
        let mut batch: Vec<Arc<Event>> = Vec::new();
        let mut left = NONE;
        if pending != NONE {
            let start = state.events.partition_point(|e| e.revision < from);
            for event in state.events.range(start..) {
                // A transaction's events share a revision and must not be parted.
                if batch.len() >= BATCH && batch.last().is_some_and(|last| last.revision != event.revision) {
                    left = event.revision;
                    break;
                }
                if event.entry.key.starts_with(&self.prefix) {
                    batch.push(Arc::clone(event));
                }
            }
        }
        self.watcher.pending.store(left, Ordering::Relaxed);
        self.after = self.after.max(if left == NONE { state.newest } else { left - 1 });
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Watch for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Event>>>> {
        Box::pin(async move {
            loop {
                if let Some(batch) = self.advance()? {
                    return Ok(batch);
                }
                self.watcher.wake.notified().await;
            }
        })
    }

    fn progress(&self) -> Revision {
        let state = self.ring.state.lock();
        match self.watcher.pending.load(Ordering::Relaxed) {
            // Nothing has happened that concerns it.
            NONE if self.life == state.life => self.after.max(state.newest),
            _ => self.after,
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.ring.state.lock().watchers.remove(&self.prefix, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;
    use futures::FutureExt;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake};

    #[derive(Default)]
    struct Counted(AtomicU64);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn event(key: &str, revision: Revision) -> Event {
        let entry = Entry {
            key: key.into(),
            value: "value".into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        };
        Event { revision, entry, previous: None, deleted: false }
    }

    const COMPACTED: Result<Vec<Revision>, bool> = Err(true);

    /// What comes at once; an error only tells whether it is for having been compacted.
    fn next(cursor: &mut Cursor) -> Option<Result<Vec<Revision>, bool>> {
        let events = cursor.next().now_or_never()?;
        let events = events.map_err(|error| matches!(error, StoreError::Compacted { .. }));
        Some(events.map(|events| events.iter().map(|e| e.revision).collect()))
    }

    #[test]
    fn a_watcher_is_woken_by_what_it_watches_and_by_nothing_else() {
        let ring = Arc::new(Ring::new(0, 1 << 20));
        let mut cursor = ring.watch("/a/", 0).expect("watches");
        let woken = Arc::new(Counted::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        let mut waiting = cursor.next();
        let mut poll = |waiting: &mut BoxFuture<'_, Result<Vec<Arc<Event>>>>| {
            Pin::new(waiting).poll(&mut context).map(|events| events.expect("watches").len())
        };
        assert_eq!(poll(&mut waiting), Poll::Pending);
        ring.publish(vec![event("/b/x", 1), event("/a", 2), event("/ab", 3)], 3);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        ring.publish(vec![event("/a/x", 4), event("/a/y", 5)], 5);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut waiting), Poll::Ready(2));
    }

    #[test]
    fn whoever_sleeps_through_what_does_not_concern_them_has_missed_nothing() {
        // Room for about two events.
        let ring = Arc::new(Ring::new(0, 2 * event("/a/x", 1).size_bytes()));
        let (mut idle, mut late) =
            (ring.watch("/a/", 0).expect("watches"), ring.watch("/b/", 0).expect("watches"));
        assert!(next(&mut idle).is_none() && next(&mut late).is_none());
        for revision in 1..=9 {
            ring.publish(vec![event("/b/x", revision)], revision);
        }
        assert_eq!((idle.progress(), late.progress()), (9, 0), "for bookmarks");
        assert_eq!(next(&mut late), Some(COMPACTED), "its first event is gone");
        assert!(ring.watch("/a/", 0).is_err(), "whoever comes anew cannot be told what was");
        ring.publish(vec![event("/a/x", 10)], 10);
        assert_eq!(next(&mut idle), Some(Ok(vec![10])));
        assert!(next(&mut idle).is_none());
    }

    #[test]
    fn a_watch_begins_after_its_revision_also_when_that_is_still_to_come() {
        let ring = Arc::new(Ring::new(0, 1 << 20));
        ring.publish(vec![event("/a/x", 1), event("/a/x", 2)], 2);
        let (mut past, mut future) =
            (ring.watch("/a/", 1).expect("watches"), ring.watch("", 4).expect("watches"));
        assert_eq!(next(&mut past), Some(Ok(vec![2])));
        assert!(next(&mut future).is_none());
        ring.publish(vec![event("/a/x", 3), event("/a/x", 4), event("/a/x", 5)], 5);
        assert_eq!(next(&mut past), Some(Ok(vec![3, 4, 5])));
        assert_eq!(next(&mut future), Some(Ok(vec![5])));
        drop(past);
        assert_eq!(ring.state.lock().watchers.lengths.keys().copied().collect::<Vec<_>>(), [0]);
        ring.reset(1);
        assert_eq!(next(&mut future), Some(COMPACTED));
    }

    #[test]
    fn many_events_come_in_parts_that_leave_nothing_out() {
        let ring = Arc::new(Ring::new(0, 1 << 20));
        let mut cursor = ring.watch("/a/", 0).expect("watches");
        for revision in 1..=700 {
            ring.publish(vec![event("/a/x", revision), event("/a/y", revision)], revision);
        }
        let mut seen = Vec::new();
        while let Some(batch) = next(&mut cursor) {
            seen.extend(batch.expect("watches"));
            assert_eq!(cursor.progress(), *seen.last().expect("not empty"));
        }
        assert!(seen.iter().copied().eq((1..=700).flat_map(|revision| [revision, revision])));
    }
}
