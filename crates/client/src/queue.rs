//! Keys that wait to be reconciled: each at most once, never in two hands at a time, some not before a moment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use base::backoff::Backoff;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Key;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    /// In `ready`, or to be put there when the one who has it is done.
    wanted: HashSet<Key>,
    in_hand: HashSet<Key>,
    later: BinaryHeap<Reverse<(Instant, Key)>>,
    /// When each key of `later` is due: the earliest counts, what else is in the heap is passed over.
    due: HashMap<Key, Instant>,
    failures: HashMap<Key, Backoff>,
}

impl State {
    fn add(&mut self, key: Key) {
        if self.wanted.insert(key.clone()) && !self.in_hand.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.later.peek() {
            if *at > now {
                return;
            }
            if let Some(Reverse((at, key))) = self.later.pop()
                && self.due.get(&key) == Some(&at)
            {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

impl Queue {
    pub fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    pub fn add_after(&self, key: Key, delay: Duration) {
        let at = Instant::now() + delay;
        let mut state = self.state.lock();
        if state.due.get(&key).is_none_or(|known| at < *known) {
            state.due.insert(key.clone(), at);
            state.later.push(Reverse((at, key)));
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The next key; whoever takes it must call [`Queue::done`].
    pub async fn take(&self) -> Key {
        loop {
            let wait = {
                let mut state = self.state.lock();
                state.wake(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.wanted.remove(&key);
                    state.in_hand.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.later.peek().map(|Reverse((at, _))| *at)
            };
            match wait {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    pub fn done(&self, key: &Key) {
        let mut state = self.state.lock();
        state.in_hand.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Has a failed key tried again, later each time.
    pub fn retry(&self, key: &Key) -> Duration {
        let delay = {
            let mut state = self.state.lock();
            let fresh = || Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
            state.failures.entry(key.clone()).or_insert_with(fresh).next_delay()
        };
        self.add_after(key.clone(), delay);
        delay
    }

    pub fn succeeded(&self, key: &Key) {
        self.state.lock().failures.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_is_in_one_hand_at_a_time() {
        let queue = Queue::default();
        let key = Key::new("a", "b");
        queue.add(key.clone());
        queue.add(key.clone());
        assert_eq!(queue.take().await, key);
        queue.add(key.clone());
        let second = tokio::time::timeout(Duration::from_millis(20), queue.take()).await;
        assert!(second.is_err(), "it is in another hand");
        queue.done(&key);
        assert_eq!(queue.take().await, key);
        queue.done(&key);
        let third = tokio::time::timeout(Duration::from_millis(20), queue.take()).await;
        assert!(third.is_err(), "nothing waits");
    }

    #[tokio::test]
    async fn a_key_has_one_appointment_and_the_earliest_counts() {
        let queue = Queue::default();
        let key = Key::new("a", "b");
        queue.add_after(key.clone(), Duration::from_millis(20));
        queue.add_after(key.clone(), Duration::from_millis(5));
        queue.add_after(key.clone(), Duration::from_millis(10));
        assert_eq!(queue.take().await, key);
        queue.done(&key);
        let again = tokio::time::timeout(Duration::from_millis(60), queue.take()).await;
        assert!(again.is_err(), "one appointment, not three");
    }

    #[tokio::test]
    async fn failures_come_back_later_each_time() {
        let queue = Queue::default();
        let key = Key::new("", "n");
        assert!(queue.retry(&key) < queue.retry(&key));
        assert_eq!(queue.take().await, key);
        queue.succeeded(&key);
        assert_eq!(queue.retry(&key), BACKOFF_FIRST);
    }
}
