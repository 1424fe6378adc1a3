//! What etcd holds, in memory, fed by one watch: the same index and ring as the embedded engine's. Lists then cost no
//! trip and no decoding, watchers cost etcd nothing, and what is read is proven once for both engines. What it must
//! not do is answer for now from then: see `fresh.rs`.
//!
//! At the start it reads a snapshot of a while ago, as far back as etcd still remembers, and has the watch tell what
//! came after: so watches that an earlier server, or another one, had begun are resumed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::Fault;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::client::{Again, Client};
use super::messages::{
    self, EventType, KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use super::{Keys, signed, unsigned};
use crate::index::Index;
use crate::ring::Ring;
use crate::superseded::{History, Superseded};
use crate::{Entry, Event, Revision};

pub const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const PAGE: i64 = 1000;
/// How much history is asked for at the start, in revisions.
const HISTORY_LIMIT: Revision = 10_000;
const SWEEP_LIMIT: usize = 64;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How far the mirror has come, and in which cluster's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// 0 until something has been loaded.
    pub cluster: u64,
    pub revision: Revision,
    /// How often all of it has been read: what was read anew may be of another history.
    pub loads: u64,
}

/// How far etcd itself has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub cluster: u64,
    pub revision: Revision,
}

pub struct Mirror {
    pub index: RwLock<Index>,
    pub ring: Arc<Ring>,
    pub seen: watch::Sender<Seen>,
    /// Told by whoever learns that etcd is behind what was read of it.
    pub doubted: Notify,
    superseded: Mutex<Superseded<()>>,
    keys: Keys,
}

/// Why following came to an end.
enum Ended {
    Fault(Fault),
    /// What comes next is not to be had: all must be read again.
    Gap(String),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Mirror {
    pub fn new(keys: Keys, history: History, ring_limit_bytes: usize) -> Self {
        Self {
            index: RwLock::default(),
            ring: Arc::new(Ring::new(0, ring_limit_bytes)),
            seen: watch::Sender::default(),
            doubted: Notify::new(),
            superseded: Mutex::new(Superseded::new(history)),
            keys,
        }
    }

    /// Follows etcd for ever.
    pub async fn run(&self, client: &Client) {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            let before = *self.seen.borrow();
            match self.follow(client).await {
                Ended::Gap(why) => {
                    tracing::warn!(why, "etcd's history has a gap: reading all of it again");
                    self.seen.send_modify(|seen| seen.cluster = 0);
                }
                Ended::Fault(fault) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%fault, "etcd cannot be followed; trying again until it can");
                    }
                    client.refused(&fault);
                }
            }
            if *self.seen.borrow() != before {
                (pause, told) = (PAUSE_MIN, false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn follow(&self, client: &Client) -> Ended {
        match self.try_follow(client).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn try_follow(&self, client: &Client) -> Result<std::convert::Infallible, Ended> {
        let now = self.now(client).await?;
        let seen = *self.seen.borrow();
        if seen.cluster == 0 {
            self.load(client, now).await?;
        } else if seen.cluster != now.cluster || now.revision < seen.revision {
            return Err(Ended::Gap("it is another cluster than before, or an older state of it".into()));
        }
        let from = *self.seen.borrow();
        let (key, range_end) = self.keys.all();
        let start_revision = signed(from.revision + 1);
        let create = WatchCreateRequest { key, range_end, start_revision };
        let mut answers = client.stream(WATCH, &WatchRequest { create_request: Some(create) }).await?;
        tracing::info!(revision = from.revision, "following etcd");
        loop {
            let answer: Option<WatchResponse> = tokio::select! {
                answer = answers.message() => answer?,
                () = self.doubted.notified() => {
                    return Err(Ended::Gap("it is at an older state than what was read of it".into()));
                }
            };
            let answer = answer.ok_or_else(|| Fault::Broken("etcd ended the watch".into()))?;
            if answer.compact_revision > 0 {
                return Err(Ended::Gap(format!("it was compacted to {}", answer.compact_revision)));
            }
            if answer.header.is_some_and(|h| h.cluster_id != from.cluster) {
                return Err(Ended::Gap("another cluster answers".into()));
            }
            if answer.canceled {
                return Err(Fault::Broken(format!("etcd ended the watch: {}", answer.cancel_reason)).into());
            }
            self.take(answer.events);
        }
    }

    /// Where etcd is now.
    async fn now(&self, client: &Client) -> Result<Reached, Fault> {
        now(client, &self.keys).await
    }

    /// The oldest snapshot that is worth having.
    async fn load(&self, client: &Client, now: Reached) -> Result<(), Ended> {
        let mut back = HISTORY_LIMIT;
        loop {
            let revision = now.revision.saturating_sub(back).max(1);
            match self.load_at(client, revision).await {
                Ok(index) => {
                    self.superseded.lock().clear();
                    *self.index.write() = index;
                    self.ring.reset(revision);
                    self.seen.send_modify(|seen| {
                        *seen = Seen { cluster: now.cluster, revision, loads: seen.loads + 1 };
                    });
                    return Ok(());
                }
                Err(fault) if super::is_compacted(&fault) && back > 0 => back /= 2,
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    async fn load_at(&self, client: &Client, revision: Revision) -> Result<Index, Fault> {
        let mut index = Index::default();
        let (mut key, range_end) = self.keys.all();
        loop {
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE,
                revision: signed(revision),
                ..Default::default()
            };
            let page: RangeResponse = client.call(RANGE, &request, Again::Safe).await?;
            let next = page.kvs.last().map(|last| [&last.key[..], &[0]].concat());
            for entry in page.kvs.into_iter().filter_map(|kv| self.keys.entry(kv)) {
                index.apply(entry.mod_revision, entry, false);
            }
            match next {
                Some(next) if page.more => key = next,
                _ => break,
            }
        }
        (index.revision, index.compacted) = (revision, revision);
        Ok(index)
    }

    /// Events of whole transactions, in order.
    fn take(&self, events: Vec<messages::Event>) {
        let Some(last) =
            events.iter().filter_map(|e| e.kv.as_ref()).map(|kv| unsigned(kv.mod_revision)).max()
        else {
            return;
        };
        let count = events.len();
        let mut shown = Vec::with_capacity(count);
        {
            let mut index = self.index.write();
            for event in events {
                let deleted = event.r#type == EventType::Delete as i32;
                if let Some(event) = event.kv.and_then(|kv| self.apply(&mut index, kv, deleted)) {
                    shown.push(event);
                }
            }
            index.revision = last;
            self.sweep(&mut index, 0, SWEEP_LIMIT.max(2 * count));
        }
        self.ring.publish(shown, last);
        self.seen.send_modify(|seen| seen.revision = last);
    }

    fn apply(&self, index: &mut Index, kv: KeyValue, deleted: bool) -> Option<Event> {
        let revision = unsigned(kv.mod_revision);
        let entry = self.keys.entry(kv)?;
        let previous = index.get(&entry.key).cloned();
        let key = previous.as_ref().map_or_else(|| Arc::clone(&entry.key), |p| Arc::clone(&p.key));
        let entry = Entry { key: Arc::clone(&key), ..entry };
        if previous.is_some() || deleted {
            let bytes = previous.as_ref().map_or(0, |previous| previous.value.len());
            self.superseded.lock().push(key, (), revision, (bytes, Instant::now()));
        }
        index.apply(revision, entry.clone(), deleted);
        let shown = if deleted { previous.clone()? } else { entry };
        Some(Event { revision, entry: shown, previous, deleted })
    }

    /// Forgets what was superseded up to `revision`, and some of what is too old or too much.
    fn sweep(&self, index: &mut Index, revision: Revision, limit: usize) {
        let mut superseded = self.superseded.lock();
        let mut swept = 0;
        while let Some(oldest) = superseded.take(revision, (swept < limit, Revision::MAX)) {
            index.compacted = index.compacted.max(oldest.superseded_at);
            index.compact_key(&oldest.key, oldest.superseded_at);
            swept += 1;
        }
    }

    pub fn compact(&self, revision: Revision) {
        let mut index = self.index.write();
        self.sweep(&mut index, revision, 0);
        index.compacted = index.compacted.max(revision.min(index.revision));
    }
}

/// Where etcd is, confirmed by a majority of its members.
pub async fn now(client: &Client, keys: &Keys) -> Result<Reached, Fault> {
    let request = RangeRequest { key: keys.progress(), count_only: true, ..Default::default() };
    let answer: RangeResponse = client.call(RANGE, &request, Again::Safe).await?;
    let header = answer.header.ok_or_else(|| Fault::Broken("etcd answered without a header".into()))?;
    Ok(Reached { cluster: header.cluster_id, revision: unsigned(header.revision) })
}
