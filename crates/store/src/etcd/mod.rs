//! The engine over a real etcd (3.4 or newer), for clusters with more than one server. Writes are etcd's transactions;
//! reads come from a mirror in memory that one watch feeds, each after etcd has said how far it must have come.
//!
//! When etcd is lost, requests fail within a bounded time and say so; nothing old is given out as new. Watches wait,
//! and go on without a gap when it is back, or end as compacted where there is one.

mod address;
mod client;
mod compaction;
mod fresh;
mod messages;
mod mirror;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::index::Index;
use crate::superseded::History;
use crate::{
    Change, Entry, Expect, LeaseId, Op, RangeRequest, RangeResponse, Result, Revision, Store, StoreError,
    TxnResponse, Watch,
};
use address::Connector;
use client::{Again, Client};
use compaction::{COMPACT, TXN};
use fresh::Fresh;
use grpc::{Fault, codes};
use messages::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, Done, KeyValue,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRequest, PutRequest, Request,
    RequestOp, Response, StatusRequest, StatusResponse, TargetUnion, TxnRequest,
};
use mirror::{Mirror, Reached};

pub use address::{AddressError, EtcdAddress, EtcdTls};

const KEY_LIMIT_BYTES: usize = 4096;
/// So long a server waits for etcd when it starts.
const START_LIMIT: Duration = Duration::from_secs(20);
const READ_TRIES: usize = 3;
const OLDEST: (u32, u32) = (3, 4);

#[derive(Clone)]
pub struct EtcdOptions {
    pub address: EtcdAddress,
    pub tls: EtcdTls,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, String)>,
    /// Only what is below this is the server's: `/registry/`.
    pub root: String,
    /// How long superseded versions stay readable, and how much of them is held in memory here.
    pub history: History,
    pub value_limit_bytes: usize,
    /// Memory that recent events may take.
    pub ring_limit_bytes: usize,
}

impl EtcdOptions {
    pub fn new(address: EtcdAddress) -> Self {
        Self {
            address,
            tls: EtcdTls::default(),
            user: None,
            root: "/registry/".into(),
            history: History::default(),
            value_limit_bytes: 3 << 19,
            ring_limit_bytes: 64 << 20,
        }
    }
}

/// How our keys are spelled in etcd.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
    root: String,
}

impl Keys {
    fn key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// First key and end of all that is ours.
    fn all(&self) -> (Vec<u8>, Vec<u8>) {
        let first = self.key(&self.root);
        let mut end = first.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        (first, end)
    }

    /// A key of ours that holds nothing: see `fresh.rs`. Never shown.
    fn progress(&self) -> Vec<u8> {
        self.key(&format!("{}.kedge-progress", self.root))
    }

    /// Shared with every API server of this etcd.
    fn compaction(&self) -> Vec<u8> {
        b"compact_rev_key".to_vec()
    }

    fn entry(&self, kv: KeyValue) -> Option<Entry> {
        let Some(key) = kv.key.strip_prefix(self.prefix.as_bytes()).and_then(|k| std::str::from_utf8(k).ok())
        else {
            tracing::warn!(key = ?kv.key, "a key in etcd is no text");
            return None;
        };
        if key.strip_prefix(&self.root) == Some(".kedge-progress") {
            return None;
        }
        Some(Entry {
            key: Arc::from(key),
            value: kv.value,
            create_revision: unsigned(kv.create_revision),
            mod_revision: unsigned(kv.mod_revision),
            version: unsigned(kv.version),
            lease: (kv.lease != 0).then(|| unsigned(kv.lease)),
        })
    }
}

/// Etcd's numbers are signed and never negative; a lease's may be anything, and comes back as it went.
fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub struct Etcd {
    client: Arc<Client>,
    mirror: Arc<Mirror>,
    fresh: Fresh,
    keys: Keys,
    value_limit_bytes: usize,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Etcd {
    /// Connects, and reads what is there.
    pub async fn open(options: EtcdOptions) -> Result<Self> {
        let shown = options.address.shown();
        let fail = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Unreachable {
            address: shown.clone(),
            source,
        };
        let connector = Connector::new(&options.address, &options.tls).map_err(|e| fail(e.into()))?;
        let client = Arc::new(Client::new(connector, options.user));
        let keys = Keys { prefix: options.address.prefix.clone(), root: options.root };
        let path = "/etcdserverpb.Maintenance/Status";
        let status: StatusResponse =
            client.call(path, &StatusRequest {}, Again::Safe).await.map_err(|e| fail(e.into()))?;
        if !is_new_enough(&status.version) {
            return Err(fail(format!("etcd {} is too old: 3.4 is the oldest", status.version).into()));
        }
        let mirror = Arc::new(Mirror::new(keys.clone(), options.history, options.ring_limit_bytes));
        let (fresh, questions) = Fresh::new();
        let following = {
            let (mirror, client) = (Arc::clone(&mirror), Arc::clone(&client));
            tokio::spawn(async move { mirror.run(&client).await })
        };
        let answering = tokio::spawn(fresh::answer(questions, Arc::clone(&client), keys.clone()));
        let compacting =
            tokio::spawn(compaction::run(Arc::clone(&client), keys.clone(), options.history.time));
        let tasks = vec![following, answering, compacting];
        let value_limit_bytes = options.value_limit_bytes;
        let this = Self { client, mirror, fresh, keys, value_limit_bytes, tasks };
        this.started().await.map_err(|e| fail(e.into()))?;
        Ok(this)
    }

    /// Waits until all that was there has been read.
    async fn started(&self) -> Result<(), Fault> {
        // Whoever may not even ask is told so at once.
        mirror::now(&self.client, &self.keys).await?;
        let loaded = async {
            let mut seen = self.mirror.seen.subscribe();
            drop(seen.wait_for(|seen| seen.cluster != 0).await);
            loop {
                let fault = match self.current().await {
                    Ok(_) => return Ok(()),
                    Err(fault) => fault,
                };
                if !matches!(fault, Fault::NotSent(_)) {
                    return Err(fault);
                }
            }
        };
        match tokio::time::timeout(START_LIMIT, loaded).await {
            Ok(done) => done,
            // What exactly is amiss, as a request is told it.
            Err(_) => self.current().await.map(drop),
        }
    }

    /// Returns once the mirror holds all that was done before.
    async fn current(&self) -> Result<Revision, Fault> {
        self.fresh.wait(&self.client, &self.mirror, &self.keys).await
    }

    /// Reads what is now: the index may be read anew from an older snapshot while it is waited for.
    async fn reading<T>(&self, read: impl Fn(&Index) -> T) -> Result<T> {
        for _ in 0..READ_TRIES {
            let revision = self.current().await.map_err(unread)?;
            let index = self.mirror.index.read();
            if index.revision >= revision {
                return Ok(read(&index));
            }
        }
        Err(StoreError::Unavailable { detail: "its history is being read again".into() })
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<TxnResponse> {
        self.check_limits(&ops)?;
        let compare = ops.iter().filter_map(|op| self.compare(op)).collect();
        let success = ops.iter().filter_map(|op| self.change(op)).collect();
        let failure = ops.iter().map(|op| {
            let key = self.keys.key(&op.key);
            RequestOp { request: Some(Request::Range(messages::RangeRequest { key, ..Default::default() })) }
        });
        let request = TxnRequest { compare, success, failure: failure.collect() };
        let lease = ops.iter().find_map(|op| match op.change {
            Change::Put { lease, .. } => lease,
            _ => None,
        });
        let answer: messages::TxnResponse = self
            .client
            .call(TXN, &request, Again::Unsafe)
            .await
            .map_err(|fault| self.error(fault, lease.unwrap_or(0), &ops))?;
        let header = answer.header.unwrap_or_default();
        let revision = unsigned(header.revision);
        if !answer.succeeded {
            return Ok(self.conflict(&ops, answer.responses, revision));
        }
        // Whoever goes on from its own write sees it. What is done stays done if the mirror is late.
        let now = Reached { cluster: header.cluster_id, revision };
        if let Err(fault) = self.fresh.reach(&self.client, &self.mirror, &self.keys, now).await {
            tracing::debug!(%fault, revision, "the mirror is behind a write of ours");
        }
        Ok(TxnResponse::Committed { revision })
    }

    fn compare(&self, op: &Op) -> Option<Compare> {
        let (result, target, union) = match op.expect {
            Expect::Anything => return None,
            Expect::Absent => (CompareResult::Equal, CompareTarget::Create, TargetUnion::CreateRevision(0)),
            Expect::Present => {
                (CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0))
            }
            Expect::At(revision) => {
                (CompareResult::Equal, CompareTarget::Mod, TargetUnion::ModRevision(signed(revision)))
            }
        };
        let key = self.keys.key(&op.key);
        Some(Compare { result: result as i32, target: target as i32, key, target_union: Some(union) })
    }

    fn change(&self, op: &Op) -> Option<RequestOp> {
        let key = self.keys.key(&op.key);
        let request = match &op.change {
            Change::Nothing => return None,
            Change::Delete => Request::DeleteRange(DeleteRangeRequest { key }),
            Change::Put { value, lease } => {
                Request::Put(PutRequest { key, value: value.clone(), lease: signed(lease.unwrap_or(0)) })
            }
        };
        Some(RequestOp { request: Some(request) })
    }

    /// Which expectation did not hold.
    fn conflict(&self, ops: &[Op], found: Vec<messages::ResponseOp>, revision: Revision) -> TxnResponse {
        let found = found.into_iter().map(|one| match one.response {
            Some(Response::Range(range)) => range.kvs.into_iter().next().and_then(|kv| self.keys.entry(kv)),
            _ => None,
        });
        let mut pairs: Vec<(&Op, Option<Entry>)> = ops.iter().zip(found).collect();
        let broken = pairs.iter().position(|(op, entry)| !op.expect.holds(entry.as_ref())).unwrap_or(0);
        match pairs.is_empty() {
            true => TxnResponse::Conflict { key: String::new(), current: None, revision },
            false => {
                let (op, current) = pairs.swap_remove(broken);
                TxnResponse::Conflict { key: op.key.clone(), current, revision }
            }
        }
    }

    fn check_limits(&self, ops: &[Op]) -> Result<()> {
        for op in ops {
            op.check_limits(KEY_LIMIT_BYTES, self.value_limit_bytes)?;
        }
        Ok(())
    }

    fn error(&self, fault: Fault, lease: LeaseId, ops: &[Op]) -> StoreError {
        if let Fault::Refused { message, .. } = &fault {
            if message.contains("requested lease not found") {
                return StoreError::UnknownLease(lease);
            }
            if message.contains("request is too large") {
                let size =
                    |op: &&Op| if let Change::Put { value, .. } = &op.change { value.len() } else { 0 };
                let largest = ops.iter().max_by_key(size);
                let (key, length_bytes) =
                    largest.map_or_else(Default::default, |op| (op.key.clone(), size(&op)));
                return StoreError::ValueTooLarge { key, length_bytes, limit_bytes: self.value_limit_bytes };
            }
        }
        unavailable(fault)
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

fn is_compacted(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused { message, .. } if message.contains("revision has been compacted"))
}

fn unavailable(fault: Fault) -> StoreError {
    match fault {
        Fault::NotSent(detail) => StoreError::Unavailable { detail },
        Fault::Broken(detail) => StoreError::Uncertain { detail },
        Fault::Refused { code: codes::PERMISSION_DENIED, message } => StoreError::Unavailable {
            detail: format!("{message}: the user that etcd knows us as may not do this"),
        },
        Fault::Refused { code: codes::UNAVAILABLE | codes::DEADLINE_EXCEEDED, message } => {
            StoreError::Uncertain { detail: message }
        }
        Fault::Refused { message, .. } => StoreError::Unavailable { detail: message },
    }
}

/// A read that failed has done nothing, however it failed.
fn unread(fault: Fault) -> StoreError {
    match unavailable(fault) {
        StoreError::Uncertain { detail } => StoreError::Unavailable { detail },
        other => other,
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.mirror.ring.close();
    }
}

impl Store for Etcd {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(Option<Entry>, Revision)>> {
        Box::pin(self.reading(move |index| (index.get(key).cloned(), index.revision)))
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse>> {
        Box::pin(async move {
            // What was at a revision that is known stays what it was.
            let known = |revision| revision <= self.mirror.index.read().revision;
            match request.revision.is_some_and(known) {
                true => self.mirror.index.read().range(&request),
                false => self.reading(|index| index.range(&request)).await?,
            }
        })
    }

    fn count<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<usize>> {
        Box::pin(self.reading(move |index| index.count(prefix)))
    }

    fn txn(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<TxnResponse>> {
        Box::pin(self.commit(ops))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(self.mirror.ring.watch(prefix, after)?))
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let request = CompactionRequest { revision: signed(revision) };
            match self.client.call::<_, Done>(COMPACT, &request, Again::Safe).await {
                Ok(_) => {}
                Err(fault) if is_compacted(&fault) => {}
                Err(Fault::Refused { message, .. }) if message.contains("is a future revision") => {
                    let current = self.current().await.map_err(unread)?;
                    return Err(StoreError::FutureRevision { requested: revision, current });
                }
                Err(fault) => return Err(unread(fault)),
            }
            self.mirror.compact(revision);
            Ok(())
        })
    }

    fn revision(&self) -> Revision {
        self.mirror.index.read().revision
    }

    fn lease_grant(&self, ttl_seconds: u64) -> BoxFuture<'_, Result<LeaseId>> {
        Box::pin(async move {
            let request = LeaseGrantRequest { ttl: signed(ttl_seconds) };
            let path = "/etcdserverpb.Lease/LeaseGrant";
            // Granted twice, the one that nobody knows expires.
            let answer: LeaseGrantResponse =
                self.client.call(path, &request, Again::Safe).await.map_err(unread)?;
            Ok(unsigned(answer.id))
        })
    }

    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let request = LeaseRequest { id: signed(lease) };
            let mut answers =
                self.client.stream("/etcdserverpb.Lease/LeaseKeepAlive", &request).await.map_err(unread)?;
            let answer =
                tokio::time::timeout(client::REQUEST_LIMIT, answers.message::<LeaseKeepAliveResponse>());
            match answer.await.unwrap_or_else(|_| Err(Fault::Broken("etcd did not answer in time".into()))) {
                Ok(Some(answer)) if answer.ttl > 0 => Ok(()),
                Ok(_) => Err(StoreError::UnknownLease(lease)),
                Err(fault) => Err(self.error(fault, lease, &[])),
            }
        })
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let request = LeaseRequest { id: signed(lease) };
            let path = "/etcdserverpb.Lease/LeaseRevoke";
            let done: Result<Done, Fault> = self.client.call(path, &request, Again::Unsafe).await;
            done.map(drop).map_err(|fault| self.error(fault, lease, &[]))
        })
    }

    fn is_shared(&self) -> bool {
        true
    }
}
