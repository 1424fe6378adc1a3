//! The embedded engine: live data in memory, durability in one table of a `redb` file, one committer.
//!
//! The committer is a thread that takes whatever waits and for a moment what is announced (group commit), checks
//! expectations, writes one database transaction, and only after it is on disk makes it visible and acknowledges it. An error of the
//! disk aborts the process: what the file then holds is known only after it has been opened again. So does a panic of the
//! committer.
//!
//! A bit that has changed by itself refuses to start, wherever something is read from it: each record has a sum of its own
//! (`record.rs`), and the file one number for all records at their places, the leases, the revision and what is compacted
//! ([`WHOLE`]). Where nothing is read a change means nothing: pages that are free, the rest of those that are not full, and the
//! database's own sums, which it looks at only after it was stopped without an end. Its list of free pages is not covered: if that
//! is damaged a later write may overwrite what is in use, which the next start notices as it notices any damage.

mod committer;
mod copy;
mod load;
mod stage;

use std::collections::HashSet;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::RwLock;
use redb::{Database, StorageBackend, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::coming::{self, Coming, Expected};
use crate::index::Index;
use crate::record::Place;
use crate::ring::Ring;
use crate::superseded::History;
use crate::{
    Entry, LeaseId, Op, RangeRequest, RangeResponse, Result, Revision, Store, StoreError, TxnResponse, Watch,
};

const RECORDS: TableDefinition<'_, Place, &[u8]> = TableDefinition::new("records");
/// Lease id → (time to live in seconds, expiry in seconds since the epoch).
const LEASES: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("leases");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const COMPACTED: &str = "compacted";
const REVISION: &str = "revision";
/// A number that stands for all there is: every record at its place, every lease, the revision and what is compacted. So what is
/// missing is noticed as what is damaged is.
const WHOLE: &str = "whole";
/// The sum of the marks of all records alone, as it was written before. A server of that time knows nothing of the other, and
/// writes this again: then it is what holds.
const SUM: &str = "sum";

const KEY_LIMIT_BYTES: usize = 4096;
/// Requests that one disk transaction takes at most, so that the first of them does not wait for ever.
const GROUP_LIMIT: usize = 512;
const QUEUE_LIMIT: usize = 4096;
/// How long a group waits for writes that are being prepared while it gathers.
const GATHER: Duration = Duration::from_millis(3);
/// Superseded records that one commit removes at most: compaction is never in bulk.
const SWEEP_LIMIT: usize = 64;

#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// How long superseded versions stay readable, and how much of them.
    pub history: History,
    pub value_limit_bytes: usize,
    /// Memory that recent events may take.
    pub ring_limit_bytes: usize,
    pub cache_bytes: usize,
    pub on_fault: OnFault,
}

/// What a fault of the disk comes to, or one of ours while it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFault {
    /// The process ends at once.
    #[default]
    Abort,
    /// The store answers nothing any more, as if the process had ended: for tests of exactly that.
    Close,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            history: History::default(),
            value_limit_bytes: 3 << 19,
            ring_limit_bytes: 64 << 20,
            cache_bytes: 8 << 20,
            on_fault: OnFault::default(),
        }
    }
}

pub struct Embedded {
    /// The file, as errors name it.
    name: String,
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<std::thread::JoinHandle<()>>,
}

/// A database that closes without breaking off: what it writes at its end follows pages that may be damaged where nobody
/// has read them yet. All that was acknowledged is in the file before that.
struct Closing(Option<Database>);

impl std::ops::Deref for Closing {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let database = std::panic::AssertUnwindSafe(self.0.take());
        if std::panic::catch_unwind(move || drop({ database }.0)).is_err() {
            tracing::error!(
                "the store could not be closed in order, as its file is damaged: restore a backup"
            );
        }
    }
}

struct Shared {
    /// For reading beside the committer, which alone writes.
    database: Arc<Closing>,
    index: RwLock<Index>,
    ring: Arc<Ring>,
    options: EmbeddedOptions,
    expected: Expected,
}

enum Request {
    Txn(Vec<Op>, oneshot::Sender<Result<TxnResponse>>),
    Compact(Revision, oneshot::Sender<Result<()>>),
    LeaseGrant(u64, oneshot::Sender<Result<LeaseId>>),
    LeaseKeepAlive(LeaseId, oneshot::Sender<Result<()>>),
    LeaseRevoke(LeaseId, oneshot::Sender<Result<()>>),
}

struct Lease {
    ttl_seconds: u64,
    expires_at: u64,
    keys: HashSet<Arc<str>>,
}

impl Embedded {
    /// Opens or creates the store in the file `path`, reading and checking all of it.
    pub fn open(path: &Path, options: EmbeddedOptions) -> Result<Self> {
        let name = path.display().to_string();
        if std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
            // A file that was never written is not there; one that has lost all it had must not pass for a new store.
            return Err(StoreError::Damaged { path: name, detail: "the file is empty".to_owned() });
        }
        if !path.exists() {
            create(path, &name, &options)?;
        }
        make_private(path).map_err(|e| failed(name.clone(), e.into()))?;
        let open = |cache_bytes| Database::builder().set_cache_size(cache_bytes).open(path);
        Self::open_database(name, options, open)
    }

    /// The same on a disk of the caller's making, which errors call `name`.
    pub fn open_on(disk: impl StorageBackend, name: &str, options: EmbeddedOptions) -> Result<Self> {
        let open = |cache_bytes| Database::builder().set_cache_size(cache_bytes).create_with_backend(disk);
        Self::open_database(name.to_owned(), options, open)
    }

    fn open_database(
        name: String,
        options: EmbeddedOptions,
        open: impl FnOnce(usize) -> Result<Database, redb::DatabaseError>,
    ) -> Result<Self> {
        let mut committer = load::load(name.clone(), &options, open)?;
        let shared = Arc::new(Shared {
            database: Arc::clone(&committer.database),
            index: RwLock::new(std::mem::take(&mut committer.loaded)),
            ring: Arc::new(Ring::new(committer.compacted, options.ring_limit_bytes)),
            options,
            expected: Expected::default(),
        });
        shared.ring.publish(std::mem::take(&mut committer.recent), committer.revision);
        let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
        let queue = committer::Queue { requests: receiver, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer.run(queue))
            .map_err(|e| StoreError::Open { path: name.clone(), source: e.into() })?;
        Ok(Self { name, shared, requests: Some(sender), committer: Some(thread) })
    }

    /// Reads all records from the file again, beside whatever is done; how many there are. What is damaged is told.
    pub async fn verify(&self) -> Result<u64> {
        let database = Arc::clone(&self.shared.database);
        let name = self.name.clone();
        let reading = tokio::task::spawn_blocking(move || load::verify(&database, name));
        reading.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request(sender)).await.map_err(|_| StoreError::Closed)?;
        coming::arrived();
        receiver.await.map_err(|_| StoreError::Closed)?
    }

    #[cfg(test)]
    pub(crate) fn expected(&self) -> &Expected {
        &self.shared.expected
    }

    fn check_limits(&self, ops: &[Op]) -> Result<()> {
        for op in ops {
            op.check_limits(KEY_LIMIT_BYTES, self.shared.options.value_limit_bytes)?;
        }
        Ok(())
    }
}

/// Makes an empty file, beside its place first: a crash must not leave half a database there, which the next start
/// could not tell from one that was damaged.
fn create(path: &Path, name: &str, options: &EmbeddedOptions) -> Result<()> {
    let beside = path.with_extension("new");
    let fail = |e: std::io::Error| failed(name.to_owned(), e.into());
    let file = private_file(&beside).map_err(fail)?;
    let open = |cache_bytes| Database::builder().set_cache_size(cache_bytes).create_file(file);
    drop(load::load(name.to_owned(), options, open)?);
    put_in_place(&beside, path).map_err(fail)
}

/// A new file in place of what lies there from before, which its owner alone may read: there are secrets in it, be they sealed.
fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::File::options().read(true).write(true).create_new(true).mode(PRIVATE).open(path)
}

/// One that was made when others might read it is closed to them.
fn make_private(path: &Path) -> std::io::Result<()> {
    let permissions = std::fs::metadata(path)?.permissions();
    match permissions.mode() & 0o777 == PRIVATE {
        true => Ok(()),
        false => std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE)),
    }
}

const PRIVATE: u32 = 0o600;

/// What a fault of the disk comes to that is none of the file's.
fn failed(path: String, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(source) if base::disk::is_full(&source) => StoreError::Full { path, source },
        other => StoreError::Open { path, source: other.into() },
    }
}

/// Gives a file that is whole and synced its name, for good.
fn put_in_place(beside: &Path, path: &Path) -> std::io::Result<()> {
    std::fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
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

    fn announce(&self) -> Option<Coming> {
        Some(self.shared.expected.announce())
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
