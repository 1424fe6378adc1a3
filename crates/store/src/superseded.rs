//! Versions that later ones superseded, oldest first, and how much of them is kept: for so long, and no more than so many
//! bytes. Without the second bound whoever may write one object could fill memory and disk with what it has been.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Revision;

/// What a version takes beside its key and value, roughly.
const VERSION_BYTES: usize = 128;

/// How much history there is.
#[derive(Clone, Copy, Debug)]
pub struct History {
    pub time: Duration,
    pub limit_bytes: usize,
}

impl Default for History {
    /// As long as etcd keeps it for kube-apiserver.
    fn default() -> Self {
        Self { time: Duration::from_secs(300), limit_bytes: 256 << 20 }
    }
}

/// A version that a later one superseded; `place` is where it lies.
#[derive(Debug)]
pub struct Version<P> {
    pub key: Arc<str>,
    pub place: P,
    pub superseded_at: Revision,
    since: Instant,
    bytes: usize,
}

#[derive(Debug)]
pub struct Superseded<P> {
    oldest_first: VecDeque<Version<P>>,
    bytes: usize,
    history: History,
}

impl<P> Superseded<P> {
    pub fn new(history: History) -> Self {
        Self { oldest_first: VecDeque::new(), bytes: 0, history }
    }

    pub fn push(
        &mut self,
        key: Arc<str>,
        place: P,
        superseded_at: Revision,
        (value_bytes, since): (usize, Instant),
    ) {
        let bytes = VERSION_BYTES + key.len() + value_bytes;
        self.bytes += bytes;
        self.oldest_first.push_back(Version { key, place, superseded_at, since, bytes });
    }

    /// The oldest, if it was superseded up to `asked`, or, where `more` may go, up to `shown` and its time is over or there is
    /// too much.
    pub fn take(&mut self, asked: Revision, (more, shown): (bool, Revision)) -> Option<Version<P>> {
        let oldest = self.oldest_first.front()?;
        let History { time, limit_bytes } = self.history;
        let over = || self.bytes > limit_bytes || oldest.since.elapsed() >= time;
        if oldest.superseded_at > asked && !(more && oldest.superseded_at <= shown && over()) {
            return None;
        }
        let oldest = self.oldest_first.pop_front()?;
        self.bytes -= oldest.bytes;
        Some(oldest)
    }

    pub fn clear(&mut self) {
        self.oldest_first.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(superseded: &mut Superseded<u64>, asked: Revision, rest: (bool, Revision)) -> Vec<u64> {
        std::iter::from_fn(|| superseded.take(asked, rest)).map(|version| version.place).collect()
    }

    fn with(time: Duration, limit_bytes: usize) -> Superseded<u64> {
        let mut superseded = Superseded::new(History { time, limit_bytes });
        for at in 1..=4 {
            superseded.push("key".into(), at, at, (1000, Instant::now()));
        }
        superseded
    }

    #[test]
    fn so_long_and_so_much_is_kept() {
        let long = Duration::from_secs(3600);
        assert_eq!(taken(&mut with(long, 1 << 20), 0, (true, 9)), [0_u64; 0], "there is room and time");
        assert_eq!(taken(&mut with(long, 1 << 20), 2, (true, 9)), [1, 2], "asked for");
        assert_eq!(taken(&mut with(long, 2500), 0, (true, 9)), [1, 2], "too much");
        assert_eq!(taken(&mut with(long, 0), 0, (true, 3)), [1, 2, 3], "not what has not been shown");
        assert_eq!(taken(&mut with(long, 0), 0, (false, 9)), [0_u64; 0], "no more in this turn");
        assert_eq!(
            taken(&mut with(Duration::ZERO, 1 << 20), 0, (true, 9)),
            [1, 2, 3, 4],
            "their time is over"
        );
        let mut emptied = with(long, 0);
        emptied.clear();
        emptied.push("key".into(), 5, 5, (1000, Instant::now()));
        assert_eq!(emptied.bytes, VERSION_BYTES + 3 + 1000);
    }
}
