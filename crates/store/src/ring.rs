//! Recent events, shared by all watchers. A watcher is a cursor into this ring, not a queue of its own, so a
//! slow one costs nothing: when the ring has moved past it, it is told that its revision was compacted.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Event, Result, Revision, StoreError, Watch};

/// Most events that one call of [`Watch::next`] yields.
const BATCH: usize = 256;

pub struct Ring {
    state: Mutex<State>,
    /// The newest published revision: wakes watchers.
    newest: watch::Sender<Revision>,
    limit_bytes: usize,
}

struct State {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events at or before this revision are no longer here.
    gone: Revision,
    /// How often it began anew: cursors of before are lost.
    life: u64,
    closed: bool,
}

impl Ring {
    pub fn new(revision: Revision, limit_bytes: usize) -> Self {
        let state = State { events: VecDeque::new(), bytes: 0, gone: revision, life: 0, closed: false };
        Self { state: Mutex::new(state), newest: watch::Sender::new(revision), limit_bytes }
    }

    /// Events of whole transactions, in order; `revision` is the last one's.
    pub fn publish(&self, events: Vec<Event>, revision: Revision) {
        {
            let mut state = self.state.lock();
            for event in events {
                state.bytes += event.size_bytes();
                state.events.push_back(Arc::new(event));
            }
            while state.bytes > self.limit_bytes {
                let Some(oldest) = state.events.pop_front() else { break };
                state.bytes -= oldest.size_bytes();
                state.gone = oldest.revision;
            }
        }
        self.newest.send_replace(revision);
    }

    /// Begins anew at a revision that need not follow on from what was: whoever watches is told that it was compacted.
    pub fn reset(&self, revision: Revision) {
        {
            let mut state = self.state.lock();
            state.events.clear();
            (state.bytes, state.gone) = (0, revision);
            state.life += 1;
        }
        self.newest.send_replace(revision);
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.newest.send_modify(|_| ());
    }

    pub fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Cursor> {
        let (gone, life) = {
            let state = self.state.lock();
            (state.gone, state.life)
        };
        if after < gone {
            return Err(StoreError::Compacted { requested: after, compacted: gone });
        }
        let newest = self.newest.subscribe();
        Ok(Cursor { ring: Arc::clone(self), prefix: prefix.to_owned(), after, life, newest })
    }
}

pub struct Cursor {
    ring: Arc<Ring>,
    prefix: String,
    after: Revision,
    life: u64,
    newest: watch::Receiver<Revision>,
}

impl Cursor {
    /// Moves over what is published; `None` when nothing of it matched.
    fn advance(&mut self) -> Result<Option<Vec<Arc<Event>>>> {
        let state = self.ring.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        if self.after < state.gone || self.life != state.life {
            return Err(StoreError::Compacted { requested: self.after, compacted: state.gone });
        }
        let start = state.events.partition_point(|e| e.revision <= self.after);
        let mut batch: Vec<Arc<Event>> = Vec::new();
        for event in state.events.range(start..) {
            // A transaction's events share a revision and must not be parted.
            if batch.len() >= BATCH && batch.last().is_some_and(|last| last.revision != event.revision) {
                break;
            }
            self.after = event.revision;
            if event.entry.key.starts_with(&self.prefix) {
                batch.push(Arc::clone(event));
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Watch for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Event>>>> {
        Box::pin(async move {
            loop {
                let newest = *self.newest.borrow_and_update();
                if let Some(batch) = self.advance()? {
                    return Ok(batch);
                }
                self.after = self.after.max(newest);
                if self.newest.changed().await.is_err() {
                    return Err(StoreError::Closed);
                }
            }
        })
    }

    fn progress(&self) -> Revision {
        self.after
    }
}
