//! Making a file from another store's entries, with the revisions that they had there: clients that know a revision
//! go on from it. It is made beside its place and put there when it is whole.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use redb::Database;

use super::stage::epoch_seconds;
use super::{
    COMPACTED, Embedded, LEASES, META, RECORDS, REVISION, WHOLE, failed, private_file, put_in_place,
};
use crate::record::Sums;
use crate::{Entry, Result, Revision, StoreError, record};

/// The one lease that restored entries are on, if they were on any.
const LEASE: u64 = 1;

pub struct Copy {
    database: Database,
    path: PathBuf,
    beside: PathBuf,
    /// How many entries each revision has so far.
    places: HashMap<Revision, u32>,
    sums: Sums,
    leased: bool,
}

impl Embedded {
    /// Begins a file at `path`, where none may be.
    pub fn copy_to(path: &Path) -> Result<Copy> {
        let beside = path.with_extension("copy");
        let fail = |error: redb::Error| failed(beside.display().to_string(), error);
        let file = private_file(&beside).map_err(|e| fail(e.into()))?;
        let database = Database::builder().create_file(file).map_err(|e| fail(e.into()))?;
        let path = path.to_owned();
        Ok(Copy { database, path, beside, places: HashMap::new(), sums: Sums::default(), leased: false })
    }
}

impl Copy {
    pub fn add(&mut self, entries: Vec<Entry>) -> Result<()> {
        let fail = self.fail();
        self.try_add(entries).map_err(fail)
    }

    fn fail(&self) -> impl Fn(redb::Error) -> StoreError + use<> {
        let path = self.beside.display().to_string();
        move |error| StoreError::Open { path: path.clone(), source: error.into() }
    }

    fn try_add(&mut self, entries: Vec<Entry>) -> Result<(), redb::Error> {
        let txn = self.database.begin_write()?;
        {
            let mut records = txn.open_table(RECORDS)?;
            for entry in entries {
                self.leased |= entry.lease.is_some();
                let sub = self.places.entry(entry.mod_revision).or_default();
                let place = (entry.mod_revision, *sub);
                *sub += 1;
                let bytes = record::encode(&Entry { lease: entry.lease.map(|_| LEASE), ..entry }, false);
                self.sums.records = self.sums.records.wrapping_add(record::mark(place, &bytes));
                records.insert(place, bytes.as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Puts the file in its place. What was before this revision is not known.
    pub fn finish(self, revision: Revision, lease_seconds: u64) -> Result<()> {
        let fail = self.fail();
        self.try_finish(revision, lease_seconds).map_err(&fail)?;
        let Self { database, path, beside, .. } = self;
        drop(database);
        put_in_place(&beside, &path).map_err(|e| fail(redb::Error::Io(e)))
    }

    fn try_finish(&self, revision: Revision, lease_seconds: u64) -> Result<(), redb::Error> {
        let txn = self.database.begin_write()?;
        {
            let mut meta = txn.open_table(META)?;
            meta.insert(REVISION, revision)?;
            meta.insert(COMPACTED, revision)?;
            let mut leases = txn.open_table(LEASES)?;
            let mut sums = self.sums;
            if self.leased {
                let lease = (lease_seconds, epoch_seconds() + lease_seconds);
                leases.insert(LEASE, lease)?;
                sums.add_lease(LEASE, lease);
            }
            meta.insert(WHOLE, sums.seal(revision, revision))?;
        }
        txn.commit()?;
        Ok(())
    }
}
