//! What was made of an entry a moment ago, kept for whoever asks next: encoded objects, frames of watches, decoded objects.
//! An entry never changes, so its key and revision name what is made of it for good.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// Two generations: when the newer one has grown to half of the limit, it becomes the older one, and the older one goes.
/// What is found in the older one is taken over into the newer, so what is asked for stays.
pub struct Recent<K, V> {
    limit_bytes: usize,
    kept: Mutex<Kept<K, V>>,
}

struct Kept<K, V> {
    newer: HashMap<K, (V, usize)>,
    older: HashMap<K, (V, usize)>,
    newer_bytes: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Recent<K, V> {
    pub fn new(limit_bytes: usize) -> Self {
        let kept = Kept { newer: HashMap::new(), older: HashMap::new(), newer_bytes: 0 };
        Self { limit_bytes, kept: Mutex::new(kept) }
    }

    /// What is kept under this name, or what `make` makes: the thing and its size in bytes. Making is not waited for by
    /// others; two may make the same.
    pub fn get<E>(&self, name: &K, make: impl FnOnce() -> Result<(V, usize), E>) -> Result<V, E> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let (made, bytes) = make()?;
        self.keep(name.clone(), made.clone(), bytes);
        Ok(made)
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        let kept = self.kept.lock();
        kept.newer.len() + kept.older.len()
    }

    /// What is kept under this name.
    pub fn find(&self, name: &K) -> Option<V> {
        self.kept.lock().find(name, self.limit_bytes)
    }

    /// Keeps what has taken some making, with its size.
    pub fn keep(&self, name: K, made: V, bytes: usize) {
        // Overhead of an entry counts too, so that many small ones are bounded as well.
        self.kept.lock().put(name, (made, bytes + size_of::<(K, V)>()), self.limit_bytes);
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Kept<K, V> {
    fn find(&mut self, name: &K, limit_bytes: usize) -> Option<V> {
        if let Some((value, _)) = self.newer.get(name) {
            return Some(value.clone());
        }
        let (value, bytes) = self.older.remove(name)?;
        self.put(name.clone(), (value.clone(), bytes), limit_bytes);
        Some(value)
    }

    fn put(&mut self, name: K, (value, bytes): (V, usize), limit_bytes: usize) {
        // What is larger than a generation is not kept at all.
        if bytes > limit_bytes / 2 {
            return;
        }
        if self.newer_bytes + bytes > limit_bytes / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.newer_bytes += bytes;
        self.newer.insert(name, (value, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_whole_stays_bounded() {
        let recent = Recent::<u64, u64>::new(16_000);
        let made = Mutex::new(Vec::new());
        let get = |n: u64| {
            let make = || {
                made.lock().push(n);
                Ok::<_, ()>((n * 10, 1000))
            };
            assert_eq!(recent.get(&n, make), Ok(n * 10));
        };
        for n in 1..100 {
            get(n);
            get(0);
            let kept = recent.kept.lock();
            let held: usize = kept.newer.values().chain(kept.older.values()).map(|(_, bytes)| bytes).sum();
            assert!(held <= 16_000, "{held}");
        }
        assert_eq!(made.lock().iter().filter(|n| **n == 0).count(), 1, "it was asked for all the time");
        get(1);
        assert_eq!(made.lock().iter().filter(|n| **n == 1).count(), 2, "it was forgotten");
    }

    #[test]
    fn what_is_too_large_is_made_each_time() {
        let recent = Recent::<u64, u64>::new(1000);
        let mut made = 0;
        for _ in 0..2 {
            let value = recent.get(&1, || {
                made += 1;
                Ok::<_, ()>((7, 600))
            });
            assert_eq!(value, Ok(7));
        }
        assert_eq!(made, 2);
    }
}
