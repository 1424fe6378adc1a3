//! A snapshot of a store as one stream of bytes: the same for every engine, so that what was taken from one may be
//! given to another. Everything is under a checksum, and an end mark says how much there was: a file that was cut off
//! anywhere is no backup, and says so.
//!
//! `magic | version u32 | revision u64 | taken (epoch seconds) u64 | crc u32`, then records `length u32 | crc u32 | body`.
//! A body begins with its kind: an entry (`create u64 | mod u64 | version u64 | leased u8 | key length u32 | key | value`)
//! or the end (`count u64 | sum u64`). Numbers are little-endian. Values are as they are stored: what was encrypted
//! stays so, and is of use only with the key.

mod read;
mod restore;
mod write;

pub use read::{Header, Reader};
pub use restore::{clear, restore, restore_file, update};
pub use write::write;

use crate::{Revision, StoreError};

const MAGIC: &[u8; 8] = b"KEDGEBAK";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 4;
const ENTRY: u8 = 1;
const END: u8 = 2;
/// Of one record: a key and a value, each of bounded size.
const RECORD_LIMIT_BYTES: u32 = 64 << 20;
/// How long what was on a lease lives after it has been restored, as nobody may know how much was left of it.
pub const LEASE_SECONDS: u64 = 3600;

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("this is no backup of kedge's")]
    Magic,
    #[error("the backup is of version {0}, and this program knows version {VERSION}; use a newer one")]
    Version(u32),
    #[error("the backup is damaged: {0}; use another one")]
    Damaged(String),
    #[error("the backup is cut off after {records} records; use another one")]
    CutOff { records: u64 },
    #[error("cannot read or write the backup: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the target already holds {count} {}; `--replace` puts the backup in their place", if *count == 1 { "key" } else { "keys" })]
    NotEmpty { count: usize },
    #[error("there is a store at {path} already; `--replace` puts the backup in its place")]
    Exists { path: String },
    #[error("somebody else writes to the target ({key}); stop its servers and try again")]
    Busy { key: String },
}

/// What was written or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    pub revision: Revision,
    pub entries: u64,
    pub bytes: u64,
}
