//! Revisioned bytes under keys: what etcd promises, as a trait, so that the server above cannot tell which
//! engine holds its state. It knows neither kinds nor JSON.
//!
//! Promises of every engine: one strictly rising revision for the whole store; a transaction is atomic and is
//! durable before it is acknowledged or visible; a range at a revision is a consistent snapshot; a watch
//! yields every change after its start once and in order, or says that the start was compacted away.

pub mod backup;
mod coming;
mod embedded;
mod etcd;
pub mod fuzzed;
mod index;
mod record;
mod ring;
mod superseded;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

pub use coming::{Coming, preparing};
pub use embedded::{Embedded, EmbeddedOptions, OnFault};
pub use etcd::{AddressError, Etcd, EtcdAddress, EtcdOptions, EtcdTls};
pub use superseded::History;

pub type Revision = u64;
pub type LeaseId = u64;

/// One key's value as of some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    /// Revision of the transaction that created the key.
    pub create_revision: Revision,
    /// Revision of the transaction that wrote this value.
    pub mod_revision: Revision,
    /// Number of writes since the key was created; 1 for a fresh key.
    pub version: u64,
    pub lease: Option<LeaseId>,
}

#[derive(Clone, Debug, Default)]
pub struct RangeRequest {
    /// Only keys that begin so. A single key is asked for with [`Store::get`].
    pub prefix: String,
    /// Only keys that sort after this one (a continue token's key).
    pub after: Option<String>,
    /// 0 means no limit.
    pub limit: usize,
    /// Read as of this revision instead of now.
    pub revision: Option<Revision>,
}

#[derive(Clone, Debug)]
pub struct RangeResponse {
    pub entries: Vec<Entry>,
    /// The revision the answer is true at.
    pub revision: Revision,
    /// How many keys match beyond `entries`.
    pub remaining: usize,
}

/// What must hold of a key for a transaction to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Present,
    /// Its `mod_revision` is this one.
    At(Revision),
}

impl Expect {
    fn holds(self, entry: Option<&Entry>) -> bool {
        match self {
            Self::Anything => true,
            Self::Absent => entry.is_none(),
            Self::Present => entry.is_some(),
            Self::At(revision) => entry.is_some_and(|e| e.mod_revision == revision),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Change {
    Put {
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete,
    /// Only checks the expectation.
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Op {
    pub key: String,
    pub expect: Expect,
    pub change: Change,
}

impl Op {
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self::put(key, value, Expect::Absent)
    }

    pub fn put(key: impl Into<String>, value: impl Into<Bytes>, expect: Expect) -> Self {
        Self { key: key.into(), expect, change: Change::Put { value: value.into(), lease: None } }
    }

    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self { key: key.into(), expect, change: Change::Delete }
    }

    fn check_limits(&self, key_bytes: usize, value_bytes: usize) -> Result<()> {
        if self.key.len() > key_bytes {
            return Err(StoreError::KeyTooLong { length_bytes: self.key.len(), limit_bytes: key_bytes });
        }
        match &self.change {
            Change::Put { value, .. } if value.len() > value_bytes => Err(StoreError::ValueTooLarge {
                key: self.key.clone(),
                length_bytes: value.len(),
                limit_bytes: value_bytes,
            }),
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
pub enum TxnResponse {
    /// Done; all of its changes carry this revision.
    Committed { revision: Revision },
    /// The expectation on this key did not hold; nothing was done.
    Conflict { key: String, current: Option<Entry>, revision: Revision },
}

/// A change as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: Revision,
    /// The written entry; for a deletion the last entry, with `revision` that of the deletion.
    pub entry: Entry,
    /// The entry before, when there was one.
    pub previous: Option<Entry>,
    pub deleted: bool,
}

impl Event {
    fn size_bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |p| p.value.len());
        size_of::<Self>() + self.entry.key.len() + self.entry.value.len() + previous
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the required revision {requested} has been compacted (the oldest is {compacted})")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future (now is {current})")]
    FutureRevision { requested: Revision, current: Revision },
    #[error("lease {0} is unknown or has expired")]
    UnknownLease(LeaseId),
    #[error("key is {length_bytes} bytes long, the limit is {limit_bytes}")]
    KeyTooLong { length_bytes: usize, limit_bytes: usize },
    #[error("value of {key:?} is {length_bytes} bytes long, the limit is {limit_bytes}")]
    ValueTooLarge { key: String, length_bytes: usize, limit_bytes: usize },
    #[error(
        "the store at {path} is damaged: {detail}; restore a backup (`kedge store restore`), or move the file away to start empty"
    )]
    Damaged { path: String, detail: String },
    #[error(
        "cannot open the store at {path}: {source}; if the file is damaged, restore a backup, or move it away to start empty"
    )]
    Open { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot write the store at {path}: {source}")]
    /// Who tells of it names the remedy, which is the same for all disks (`base::disk`).
    Full { path: String, source: std::io::Error },
    #[error("cannot open the store at {address}: {source}")]
    Unreachable { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("etcd cannot be reached: {detail}")]
    Unavailable { detail: String },
    #[error("etcd did not say whether it was done: {detail}")]
    Uncertain { detail: String },
    #[error("the store is shutting down")]
    Closed,
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Yields batches of events in revision order; after an error it yields nothing more.
pub trait Watch: Send {
    /// The next events that match, never empty, at most a few hundred at a time.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Arc<Event>>>>;
    /// Everything up to this revision has been yielded (for bookmarks).
    fn progress(&self) -> Revision;
}

pub trait Store: Send + Sync + 'static {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Entry>, Revision)>>;
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>>;
    /// Number of live keys below a prefix.
    fn count<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<usize>>;
    fn txn(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<TxnResponse>>;
    /// Every change below `prefix` with a revision greater than `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>>;
    /// Forgets what was superseded at or before this revision.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>>;
    fn revision(&self) -> Revision;
    fn lease_grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId>>;
    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
    /// Ends the lease and deletes its keys.
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
    /// Says that a write is being prepared, where it is of use to know (see [`preparing`]).
    fn announce(&self) -> Option<Coming> {
        None
    }
    /// Whether other servers may write to it too.
    fn is_shared(&self) -> bool {
        false
    }
}
