//! Reading a file at the start: all of it, each record checked.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::committer::Committer;
use super::{
    COMPACTED, Closing, EmbeddedOptions, LEASES, Lease, META, RECORDS, REVISION, SUM, WHOLE, failed,
};
use crate::index::Index;
use crate::record::{Place, Sums};
use crate::superseded::Superseded;
use crate::{Entry, Event, Result, StoreError, record};

/// Opens the file and reads all of it.
pub(super) fn load(
    name: String,
    options: &EmbeddedOptions,
    open: impl FnOnce(usize) -> Result<Database, redb::DatabaseError>,
) -> Result<Committer> {
    let damaged = |detail| StoreError::Damaged { path: name.clone(), detail };
    // Damaged pages may lead the database to break off: that too is damage, and is told as such.
    let loaded = catch_unwind(AssertUnwindSafe(|| {
        let mut committer = Committer {
            database: Arc::new(Closing(Some(open(options.cache_bytes)?))),
            name: name.clone(),
            on_fault: options.on_fault,
            revision: 0,
            compacted: 0,
            places: HashMap::new(),
            superseded: Superseded::new(options.history),
            leases: HashMap::new(),
            next_lease: 1,
            loaded: Index::default(),
            recent: Vec::new(),
            sums: Sums::default(),
        };
        committer.replay()?;
        Ok(committer)
    }));
    match loaded {
        Ok(Ok(committer)) => Ok(committer),
        Ok(Err(LoadError::Damaged(detail))) => Err(damaged(detail)),
        Ok(Err(LoadError::Database(redb::Error::Io(e)))) if is_damage(&e) => Err(damaged(e.to_string())),
        Ok(Err(LoadError::Database(error))) => Err(failed(name, error)),
        Err(_) => Err(damaged("its pages contradict each other".into())),
    }
}

/// Reads every record of a database that is open.
pub(super) fn verify(database: &Database, name: String) -> Result<u64> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let txn = database.begin_read()?;
        let stated = Stated::read(&txn.open_table(META)?)?;
        let (mut count, mut sums) = (0, Sums::default());
        for item in txn.open_table(LEASES)?.iter()? {
            let (id, lease) = item?;
            sums.add_lease(id.value(), lease.value());
        }
        for item in txn.open_table(RECORDS)?.iter()? {
            let (place, bytes) = item?;
            sums.records = sums.records.wrapping_add(record::mark(place.value(), bytes.value()));
            record::decode(place.value().0, bytes.value()).map_err(LoadError::Damaged)?;
            count += 1;
        }
        stated.check(sums)?;
        Ok(count)
    }));
    match read {
        Ok(Ok(count)) => Ok(count),
        Ok(Err(LoadError::Damaged(detail))) => Err(StoreError::Damaged { path: name, detail }),
        Ok(Err(LoadError::Database(error))) => Err(StoreError::Open { path: name, source: error.into() }),
        Err(_) => Err(StoreError::Damaged { path: name, detail: "its pages contradict each other".into() }),
    }
}

/// What a file says of itself.
struct Stated {
    revision: u64,
    compacted: u64,
    whole: Option<u64>,
    sum: Option<u64>,
}

impl Stated {
    fn read(meta: &impl ReadableTable<&'static str, u64>) -> Result<Self, redb::StorageError> {
        let number = |key| Ok::<_, redb::StorageError>(meta.get(key)?.map(|v| v.value()));
        Ok(Self {
            revision: number(REVISION)?.unwrap_or(0),
            compacted: number(COMPACTED)?.unwrap_or(0),
            whole: number(WHOLE)?,
            sum: number(SUM)?,
        })
    }

    /// A file of before there was either gets what it lacks with the next write.
    fn check(&self, sums: Sums) -> Result<(), LoadError> {
        let wrong = |what: &str| Err(LoadError::Damaged(what.into()));
        match (self.sum, self.whole) {
            (Some(sum), _) if sum != sums.records => {
                wrong("records are missing or stand where they should not")
            }
            (None, Some(whole)) if whole != sums.seal(self.revision, self.compacted) => {
                wrong("something is missing or stands where it should not, or is another than was written")
            }
            _ => Ok(()),
        }
    }
}

/// Bytes that are no database, or end before they should.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

impl Committer {
    fn replay(&mut self) -> Result<(), LoadError> {
        let txn = self.database.begin_write()?;
        {
            let stated = Stated::read(&txn.open_table(META)?)?;
            (self.compacted, self.revision) = (stated.compacted, stated.revision);
            for item in txn.open_table(LEASES)?.iter()? {
                let (id, lease) = item?;
                let (ttl_seconds, expires_at) = lease.value();
                self.sums.add_lease(id.value(), lease.value());
                self.next_lease = self.next_lease.max(id.value() + 1);
                self.leases.insert(id.value(), Lease { ttl_seconds, expires_at, keys: HashSet::new() });
            }
            let records = txn.open_table(RECORDS)?;
            for item in records.iter()? {
                let (place, bytes) = item?;
                let mark = record::mark(place.value(), bytes.value());
                self.sums.records = self.sums.records.wrapping_add(mark);
                let (entry, deleted) =
                    record::decode(place.value().0, bytes.value()).map_err(LoadError::Damaged)?;
                self.replay_record(place.value(), entry, deleted);
            }
            stated.check(self.sums)?;
        }
        txn.commit()?;
        self.loaded.revision = self.revision;
        self.loaded.compacted = self.compacted;
        Ok(())
    }

    fn replay_record(&mut self, place: Place, entry: Entry, deleted: bool) {
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
