//! The embedded engine: live data in memory, durability in one table of a `redb` file, one committer.
//!
//! The committer is a thread that takes whatever waits (group commit), checks expectations, writes one
//! database transaction, and only after it is on disk makes it visible and acknowledges it. An error of the
//! disk aborts the process: what the file then holds is known only after it has been opened again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use redb::{Database, ReadableTable, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::index::Index;
use crate::ring::Ring;
use crate::{
    Change, Entry, Event, Expect, LeaseId, Op, RangeRequest, RangeResponse, Result, Revision, Store,
    StoreError, TxnResponse, Watch, record,
};

const RECORDS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("records");
/// Lease id → (time to live in seconds, expiry in seconds since the epoch).
const LEASES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const COMPACTED: &str = "compacted";
const REVISION: &str = "revision";

const KEY_LIMIT_BYTES: usize = 4096;
/// Requests that one disk transaction takes at most, so that the first of them does not wait for ever.
const GROUP_LIMIT: usize = 512;
const QUEUE_LIMIT: usize = 4096;
/// Superseded records that one commit removes at most: compaction is never in bulk.
const SWEEP_LIMIT: usize = 64;

#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// How long superseded versions stay readable.
    pub history: Duration,
    pub value_limit_bytes: usize,
    /// Memory that recent events may take.
    pub ring_limit_bytes: usize,
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(300),
            value_limit_bytes: 3 << 19,
            ring_limit_bytes: 64 << 20,
            cache_bytes: 8 << 20,
        }
    }
}

pub struct Embedded {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    index: RwLock<Index>,
    ring: Arc<Ring>,
    options: EmbeddedOptions,
}

enum Request {
    Txn(Vec<Op>, oneshot::Sender<Result<TxnResponse>>),
    Compact(Revision, oneshot::Sender<Result<()>>),
    LeaseGrant(u64, oneshot::Sender<Result<LeaseId>>),
    LeaseKeepAlive(LeaseId, oneshot::Sender<Result<()>>),
    LeaseRevoke(LeaseId, oneshot::Sender<Result<()>>),
}

/// A record that a later one superseded.
struct Garbage {
    key: Arc<str>,
    place: (u64, u32),
    superseded_at: Revision,
    since: Instant,
}

struct Lease {
    ttl_seconds: u64,
    expires_at: u64,
    keys: HashSet<Arc<str>>,
}

impl Embedded {
    /// Opens or creates the store in the file `path`, reading and checking all of it.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Self> {
        let fail = |source: redb::Error| StoreError::Open {
            path: path.display().to_string(),
            source: source.into(),
        };
        if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
            // A file that was never written is not there; one that has lost all it had must not pass for a new store.
            let detail = "the file is empty".to_owned();
            return Err(StoreError::Damaged { path: path.display().to_string(), detail });
        }
        let database = Database::builder()
            .set_cache_size(options.cache_bytes)
            .create(path)
            .map_err(|e| fail(e.into()))?;
        let mut committer = Committer::load(database, path, &options)?;
        let shared = Arc::new(Shared {
            index: RwLock::new(std::mem::take(&mut committer.loaded)),
            ring: Arc::new(Ring::new(committer.compacted, options.ring_limit_bytes)),
            options,
        });
        shared.ring.publish(std::mem::take(&mut committer.recent), committer.revision);
        let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer.run(&for_thread, receiver))
            .map_err(|e| StoreError::Open { path: path.display().to_string(), source: e.into() })?;
        Ok(Self { shared, requests: Some(sender), committer: Some(thread) })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request(sender)).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }

    fn check_limits(&self, ops: &[Op]) -> Result<()> {
        for op in ops {
            if op.key.len() > KEY_LIMIT_BYTES {
                return Err(StoreError::KeyTooLong {
                    length_bytes: op.key.len(),
                    limit_bytes: KEY_LIMIT_BYTES,
                });
            }
            let limit_bytes = self.shared.options.value_limit_bytes;
            if let Change::Put { value, .. } = &op.change
                && value.len() > limit_bytes
            {
                let key = op.key.clone();
                return Err(StoreError::ValueTooLarge { key, length_bytes: value.len(), limit_bytes });
            }
        }
        Ok(())
    }
}

impl Drop for Embedded {
    /// Lets the committer finish what was handed to it.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.committer.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's committer panicked");
        }
        self.shared.ring.close();
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Entry>, Revision)>> {
        Box::pin(async move {
            let index = self.shared.index.read();
            Ok((index.get(key).cloned(), index.revision))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(async move { self.shared.index.read().range(&request) })
    }

    fn count<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<usize>> {
        Box::pin(async move { Ok(self.shared.index.read().count(prefix)) })
    }

    fn txn(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(async move {
            self.check_limits(&ops)?;
            self.ask(|reply| Request::Txn(ops, reply)).await
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(self.shared.ring.watch(prefix, after)?))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ask(move |reply| Request::Compact(revision, reply)))
    }

    fn revision(&self) -> Revision {
        self.shared.index.read().revision
    }

    fn lease_grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId>> {
        Box::pin(self.ask(move |reply| Request::LeaseGrant(ttl_seconds, reply)))
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ask(move |reply| Request::LeaseKeepAlive(lease, reply)))
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.ask(move |reply| Request::LeaseRevoke(lease, reply)))
    }
}

/// Owns the file; lives on its thread.
struct Committer {
    database: Database,
    path: PathBuf,
    history: Duration,
    revision: Revision,
    compacted: Revision,
    places: HashMap<Arc<str>, (u64, u32)>,
    garbage: VecDeque<Garbage>,
    leases: HashMap<LeaseId, Lease>,
    next_lease: LeaseId,
    loaded: Index,
    recent: Vec<Event>,
}

/// What one group of requests adds up to before it is written.
#[derive(Default)]
struct Group {
    /// Keys changed in this group: the value they will have.
    overlay: HashMap<Arc<str>, Option<Entry>>,
    events: Vec<Event>,
    records: Vec<((u64, u32), Vec<u8>)>,
    removed: Vec<(u64, u32)>,
    leases: Vec<(LeaseId, Option<(u64, u64)>)>,
    compact_to: Option<Revision>,
}

impl Committer {
    fn load(database: Database, path: &Path, options: &EmbeddedOptions) -> Result<Self> {
        let mut this = Self {
            database,
            path: path.to_owned(),
            history: options.history,
            revision: 0,
            compacted: 0,
            places: HashMap::new(),
            garbage: VecDeque::new(),
            leases: HashMap::new(),
            next_lease: 1,
            loaded: Index::default(),
            recent: Vec::new(),
        };
        this.replay().map_err(|e| match e {
            LoadError::Database(e) => StoreError::Open { path: path.display().to_string(), source: e.into() },
            LoadError::Damaged(detail) => StoreError::Damaged { path: path.display().to_string(), detail },
        })?;
        Ok(this)
    }

    fn replay(&mut self) -> Result<(), LoadError> {
        let txn = self.database.begin_write()?;
        {
            let meta = txn.open_table(META)?;
            self.compacted = meta.get(COMPACTED)?.map_or(0, |v| v.value());
            self.revision = meta.get(REVISION)?.map_or(0, |v| v.value());
            for item in txn.open_table(LEASES)?.iter()? {
                let (id, lease) = item?;
                let (ttl_seconds, expires_at) = lease.value();
                self.next_lease = self.next_lease.max(id.value() + 1);
                self.leases.insert(id.value(), Lease { ttl_seconds, expires_at, keys: HashSet::new() });
            }
            let records = txn.open_table(RECORDS)?;
            for item in records.iter()? {
                let (place, bytes) = item?;
                let (entry, deleted) =
                    record::decode(place.value().0, bytes.value()).map_err(LoadError::Damaged)?;
                self.replay_record(place.value(), entry, deleted);
            }
        }
        txn.commit()?;
        self.loaded.revision = self.revision;
        self.loaded.compacted = self.compacted;
        Ok(())
    }

    fn replay_record(&mut self, place: (u64, u32), entry: Entry, deleted: bool) {
        let revision = place.0;
        self.revision = self.revision.max(revision);
        let previous = self.loaded.get(&entry.key).cloned();
        self.note_superseded(&entry, place, deleted, Instant::now());
        if revision > self.compacted {
            let shown =
                if deleted { previous.clone().unwrap_or_else(|| entry.clone()) } else { entry.clone() };
            self.recent.push(Event { revision, entry: shown, previous: previous.clone(), deleted });
        }
        self.track_lease(previous.as_ref(), &entry, deleted);
        self.loaded.apply(revision, entry, deleted);
    }

    /// Keeps `places` and `garbage` true when `entry` is written at `place`.
    fn note_superseded(&mut self, entry: &Entry, place: (u64, u32), deleted: bool, since: Instant) {
        let older = match deleted {
            true => self.places.remove(&entry.key),
            false => self.places.insert(Arc::clone(&entry.key), place),
        };
        for place in older.into_iter().chain(deleted.then_some(place)) {
            let key = Arc::clone(&entry.key);
            self.garbage.push_back(Garbage {
                key,
                place,
                superseded_at: entry.mod_revision.max(place.0),
                since,
            });
        }
    }

    fn track_lease(&mut self, previous: Option<&Entry>, entry: &Entry, deleted: bool) {
        if let Some(lease) = previous.and_then(|p| p.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&entry.key);
        }
        if let Some(lease) = entry.lease.filter(|_| !deleted).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(Arc::clone(&entry.key));
        }
    }

    fn run(mut self, shared: &Shared, mut requests: mpsc::Receiver<Request>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a timer for the committer");
        loop {
            let wait = self.until_next_lease();
            let first = runtime.block_on(async {
                match wait {
                    Some(wait) => tokio::time::timeout(wait, requests.recv()).await,
                    None => Ok(requests.recv().await),
                }
            });
            let mut group = Group::default();
            let mut replies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
            match first {
                Ok(None) => return,
                Err(_elapsed) => {}
                Ok(Some(first)) => {
                    self.take(shared, &mut group, first, &mut replies);
                    while replies.len() < GROUP_LIMIT {
                        let Ok(next) = requests.try_recv() else { break };
                        self.take(shared, &mut group, next, &mut replies);
                    }
                }
            }
            self.expire_leases(shared, &mut group);
            self.finish(shared, group);
            for reply in replies {
                reply();
            }
        }
    }

    fn take(
        &mut self,
        shared: &Shared,
        group: &mut Group,
        request: Request,
        replies: &mut Vec<Box<dyn FnOnce() + Send>>,
    ) {
        // A requester that went away does not want its answer; that is no fault.
        fn later<T: Send + 'static>(
            reply: oneshot::Sender<Result<T>>,
            answer: Result<T>,
        ) -> Box<dyn FnOnce() + Send> {
            Box::new(move || drop(reply.send(answer)))
        }
        replies.push(match request {
            Request::Txn(ops, reply) => later(reply, self.stage(shared, group, ops)),
            Request::Compact(revision, reply) => {
                let current = self.revision;
                let valid = revision <= current;
                if valid {
                    group.compact_to = Some(revision.max(group.compact_to.unwrap_or(0)));
                }
                later(
                    reply,
                    if valid {
                        Ok(())
                    } else {
                        Err(StoreError::FutureRevision { requested: revision, current })
                    },
                )
            }
            Request::LeaseGrant(ttl_seconds, reply) => {
                let id = self.next_lease;
                self.next_lease += 1;
                let expires_at = epoch_seconds() + ttl_seconds;
                group.leases.push((id, Some((ttl_seconds, expires_at))));
                self.leases.insert(id, Lease { ttl_seconds, expires_at, keys: HashSet::new() });
                later(reply, Ok(id))
            }
            Request::LeaseKeepAlive(id, reply) => later(
                reply,
                match self.leases.get_mut(&id) {
                    Some(lease) => {
                        lease.expires_at = epoch_seconds() + lease.ttl_seconds;
                        group.leases.push((id, Some((lease.ttl_seconds, lease.expires_at))));
                        Ok(())
                    }
                    None => Err(StoreError::UnknownLease(id)),
                },
            ),
            Request::LeaseRevoke(id, reply) => {
                let known = self.leases.contains_key(&id);
                self.end_lease(shared, group, id);
                later(reply, if known { Ok(()) } else { Err(StoreError::UnknownLease(id)) })
            }
        });
    }

    /// Checks a transaction against the state as the group will leave it, and adds it to the group.
    fn stage(&mut self, shared: &Shared, group: &mut Group, ops: Vec<Op>) -> Result<TxnResponse> {
        let index = shared.index.read();
        let current = |group: &Group, key: &str| match group.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => index.get(key).cloned(),
        };
        for op in &ops {
            let entry = current(group, &op.key);
            let holds = match op.expect {
                Expect::Anything => true,
                Expect::Absent => entry.is_none(),
                Expect::Present => entry.is_some(),
                Expect::At(revision) => entry.as_ref().is_some_and(|e| e.mod_revision == revision),
            };
            if !holds {
                return Ok(TxnResponse::Conflict {
                    key: op.key.clone(),
                    current: entry,
                    revision: self.revision,
                });
            }
            if let Change::Put { lease: Some(lease), .. } = op.change
                && !self.leases.contains_key(&lease)
            {
                return Err(StoreError::UnknownLease(lease));
            }
        }
        let revision = self.revision + 1;
        let mut changed = false;
        for (sub, op) in ops.into_iter().enumerate() {
            let previous = current(group, &op.key);
            let (entry, deleted) = match (op.change, &previous) {
                (Change::Nothing, _) | (Change::Delete, None) => continue,
                (Change::Delete, Some(previous)) => {
                    (Entry { mod_revision: revision, lease: None, ..previous.clone() }, true)
                }
                (Change::Put { value, lease }, previous) => {
                    let key = previous.as_ref().map_or_else(|| Arc::from(op.key), |p| Arc::clone(&p.key));
                    let create_revision = previous.as_ref().map_or(revision, |p| p.create_revision);
                    let version = previous.as_ref().map_or(0, |p| p.version) + 1;
                    (Entry { key, value, create_revision, mod_revision: revision, version, lease }, false)
                }
            };
            changed = true;
            let place = (revision, u32::try_from(sub).unwrap_or(u32::MAX));
            group.records.push((place, record::encode(&entry, deleted)));
            self.note_superseded(&entry, place, deleted, Instant::now());
            self.track_lease(previous.as_ref(), &entry, deleted);
            group.overlay.insert(Arc::clone(&entry.key), (!deleted).then(|| entry.clone()));
            let shown = if deleted { previous.clone().unwrap_or(entry) } else { entry };
            group.events.push(Event { revision, entry: shown, previous, deleted });
        }
        if changed {
            self.revision = revision;
        }
        Ok(TxnResponse::Committed { revision: self.revision })
    }

    fn until_next_lease(&self) -> Option<Duration> {
        let next = self.leases.values().map(|l| l.expires_at).min()?;
        Some(Duration::from_secs(next.saturating_sub(epoch_seconds())).max(Duration::from_millis(100)))
    }

    fn expire_leases(&mut self, shared: &Shared, group: &mut Group) {
        let now = epoch_seconds();
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, l)| l.expires_at <= now).map(|(id, _)| *id).collect();
        for id in expired {
            self.end_lease(shared, group, id);
        }
    }

    fn end_lease(&mut self, shared: &Shared, group: &mut Group, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let ops = lease.keys.iter().map(|key| Op::delete(key.to_string(), Expect::Anything)).collect();
        if let Err(error) = self.stage(shared, group, ops) {
            tracing::error!(%error, id, "cannot delete the keys of a lease");
        }
        self.leases.remove(&id);
        group.leases.push((id, None));
    }

    /// Superseded records whose time has come: a few with each commit, all on request.
    fn sweep(&mut self, group: &mut Group) -> Vec<(Arc<str>, Revision)> {
        let mut swept = Vec::new();
        // At least as many as this group will leave behind, so that sustained load does not outrun the sweeping.
        let limit = SWEEP_LIMIT.max(2 * group.records.len());
        let explicit = group.compact_to.unwrap_or(0);
        while let Some(oldest) = self.garbage.front() {
            let due = oldest.superseded_at <= explicit
                || (swept.len() < limit && oldest.since.elapsed() >= self.history);
            if !due {
                break;
            }
            let Some(garbage) = self.garbage.pop_front() else { break };
            self.compacted = self.compacted.max(garbage.superseded_at);
            group.removed.push(garbage.place);
            swept.push((garbage.key, garbage.superseded_at));
        }
        self.compacted = self.compacted.max(explicit);
        swept
    }

    /// Writes the group, then publishes it. There is no way back from a failed write: see the module's text.
    fn finish(&mut self, shared: &Shared, mut group: Group) {
        let swept = self.sweep(&mut group);
        let nothing = group.records.is_empty() && group.leases.is_empty() && group.removed.is_empty();
        if nothing && group.compact_to.is_none() {
            return;
        }
        if let Err(error) = self.write(&group) {
            tracing::error!(%error, path = %self.path.display(), "cannot write the store; stopping at once");
            eprintln!("kedge: cannot write the store at {}: {error}; stopping at once", self.path.display());
            std::process::abort();
        }
        {
            let mut index = shared.index.write();
            for event in &group.events {
                index.apply(event.revision, event.entry.clone(), event.deleted);
            }
            for (key, revision) in swept {
                index.compact_key(&key, revision);
            }
            index.compacted = self.compacted;
        }
        if !group.events.is_empty() {
            shared.ring.publish(group.events, self.revision);
        }
    }

    fn write(&self, group: &Group) -> Result<(), redb::Error> {
        let txn = self.database.begin_write()?;
        {
            let mut records = txn.open_table(RECORDS)?;
            for (place, bytes) in &group.records {
                records.insert(place, bytes.as_slice())?;
            }
            for place in &group.removed {
                records.remove(place)?;
            }
            let mut leases = txn.open_table(LEASES)?;
            for (id, lease) in &group.leases {
                match lease {
                    Some(lease) => leases.insert(id, lease)?.map(drop),
                    None => leases.remove(id)?.map(drop),
                };
            }
            let mut meta = txn.open_table(META)?;
            meta.insert(REVISION, self.revision)?;
            meta.insert(COMPACTED, self.compacted)?;
        }
        txn.commit()?;
        Ok(())
    }
}

fn epoch_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

enum LoadError {
    Database(redb::Error),
    Damaged(String),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(detail) => Self::Damaged(detail),
            other => Self::Database(other),
        }
    }
}
