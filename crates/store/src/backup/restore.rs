//! Giving a backup to a store: to any that is open, where entries get new revisions; or to a new file of the embedded
//! engine, which then is as the old one was, revisions and all, and is there whole or not at all.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncRead;

use super::{BackupError, LEASE_SECONDS, Reader, Summary};
use crate::{Change, Embedded, Entry, Expect, LeaseId, Op, RangeRequest, Store, StoreError, TxnResponse};

/// Etcd takes no more than 128 changes in one transaction, and no more than 1.5 MiB.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1 << 20;

/// Writes all entries to a store that holds nothing yet.
pub async fn restore<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    store: &dyn Store,
) -> Result<Summary, BackupError> {
    let count = store.count("").await?;
    if count > 0 {
        return Err(BackupError::NotEmpty { count });
    }
    let (mut batch, mut size, mut lease) = (Vec::new(), 0, None);
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = reader.next().await? {
        if batch.len() == BATCH || size + entry.value.len() > BATCH_BYTES {
            commit(store, std::mem::take(&mut batch)).await?;
            size = 0;
        }
        let lease = lease_for(store, &entry, &mut lease).await?;
        size += entry.value.len() + entry.key.len();
        (entries, bytes) = (entries + 1, bytes + entry.value.len() as u64);
        let change = Change::Put { value: entry.value, lease };
        batch.push(Op { key: entry.key.to_string(), expect: Expect::Absent, change });
    }
    commit(store, batch).await?;
    Ok(Summary { revision: store.revision(), entries, bytes })
}

async fn lease_for(
    store: &dyn Store,
    entry: &Entry,
    lease: &mut Option<LeaseId>,
) -> Result<Option<LeaseId>, StoreError> {
    if entry.lease.is_some() && lease.is_none() {
        *lease = Some(store.lease_grant(LEASE_SECONDS).await?);
    }
    Ok(entry.lease.and(*lease))
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Result<(), BackupError> {
    if ops.is_empty() {
        return Ok(());
    }
    match store.txn(ops).await? {
        TxnResponse::Committed { .. } => Ok(()),
        TxnResponse::Conflict { key, .. } => Err(BackupError::Busy { key }),
    }
}

/// Makes a store hold what the backup holds, and writes only what differs: so that a large store is copied while it is in
/// use, and what has changed meanwhile once more when it is not. How much was written.
pub async fn update<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    store: &dyn Store,
) -> Result<Summary, BackupError> {
    let held = store.range(RangeRequest::default()).await?.entries;
    let mut held: HashMap<Arc<str>, Entry> = held.into_iter().map(|e| (Arc::clone(&e.key), e)).collect();
    let (mut batch, mut size, mut lease) = (Vec::new(), 0, None);
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = reader.next().await? {
        let before = held.remove(&entry.key);
        if before
            .as_ref()
            .is_some_and(|b| b.value == entry.value && b.lease.is_some() == entry.lease.is_some())
        {
            continue;
        }
        if batch.len() == BATCH || size + entry.value.len() > BATCH_BYTES {
            commit(store, std::mem::take(&mut batch)).await?;
            size = 0;
        }
        let lease = lease_for(store, &entry, &mut lease).await?;
        size += entry.value.len() + entry.key.len();
        (entries, bytes) = (entries + 1, bytes + entry.value.len() as u64);
        let expect = before.map_or(Expect::Absent, |before| Expect::At(before.mod_revision));
        batch.push(Op {
            key: entry.key.to_string(),
            expect,
            change: Change::Put { value: entry.value, lease },
        });
    }
    commit(store, batch).await?;
    // The source has been read to its end, so these are in it no more.
    let gone: Vec<Op> = held
        .into_values()
        .map(|entry| Op::delete(entry.key.to_string(), Expect::At(entry.mod_revision)))
        .collect();
    entries += gone.len() as u64;
    for some in gone.chunks(BATCH) {
        commit(store, some.to_vec()).await?;
    }
    Ok(Summary { revision: store.revision(), entries, bytes })
}

/// Deletes everything that a store holds; how much that was.
pub async fn clear(store: &dyn Store) -> Result<usize, BackupError> {
    let mut cleared = 0;
    loop {
        let page = store.range(RangeRequest { limit: BATCH, ..Default::default() }).await?;
        if page.entries.is_empty() {
            return Ok(cleared);
        }
        cleared += page.entries.len();
        let delete = |entry: &Entry| Op::delete(entry.key.to_string(), Expect::Anything);
        store.txn(page.entries.iter().map(delete).collect()).await?;
    }
}

/// Makes the embedded engine's file at `path`, where none may be.
pub async fn restore_file<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    path: &Path,
) -> Result<Summary, BackupError> {
    if path.exists() {
        return Err(BackupError::Exists { path: path.display().to_string() });
    }
    let mut copy = Embedded::copy_to(path)?;
    let (mut entries, mut bytes) = (0, 0);
    let mut batch = Vec::new();
    while let Some(entry) = reader.next().await? {
        (entries, bytes) = (entries + 1, bytes + entry.value.len() as u64);
        batch.push(entry);
        if batch.len() == 10 * BATCH {
            copy.add(std::mem::take(&mut batch))?;
        }
    }
    copy.add(batch)?;
    copy.finish(reader.header.revision, LEASE_SECONDS)?;
    Ok(Summary { revision: reader.header.revision, entries, bytes })
}
