//! Reading a backup, believing nothing of it that is not under a checksum.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BackupError, END, ENTRY, HEADER_BYTES, MAGIC, RECORD_LIMIT_BYTES, VERSION};
use crate::{Entry, Revision, record};

const ENTRY_BYTES: usize = 1 + 3 * 8 + 1 + 4;

/// What a backup says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub revision: Revision,
    /// When it was taken, in seconds since the epoch.
    pub taken: u64,
}

pub struct Reader<R> {
    input: R,
    pub header: Header,
    records: u64,
    sum: u64,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub async fn open(mut input: R) -> Result<Self, BackupError> {
        let mut head = [0; HEADER_BYTES];
        let length = fill(&mut input, &mut head).await?;
        if !head[..length].starts_with(MAGIC) {
            return Err(BackupError::Magic);
        }
        if length < HEADER_BYTES {
            return Err(BackupError::CutOff { records: 0 });
        }
        let version = u32::from_le_bytes(array(&head, 8));
        if version != VERSION {
            return Err(BackupError::Version(version));
        }
        if crc32fast::hash(&head[..28]) != u32::from_le_bytes(array(&head, 28)) {
            return Err(BackupError::Damaged("its head does not match its checksum".into()));
        }
        let number = |at| u64::from_le_bytes(array(&head, at));
        let header = Header { revision: number(12), taken: number(20) };
        Ok(Self { input, header, records: 0, sum: 0, ended: false })
    }

    /// The next entry; `None` at the end, which has been checked then.
    pub async fn next(&mut self) -> Result<Option<Entry>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let body = self.record().await?;
        match body.first() {
            Some(&ENTRY) => {
                let crc = crc32fast::hash(&body).to_le_bytes();
                self.sum = self.sum.wrapping_add(record::mark((self.records, 0), &crc));
                self.records += 1;
                entry(&body).map(Some).ok_or_else(|| self.damaged("is no entry"))
            }
            Some(&END) if body.len() == 17 => {
                let number = |at| u64::from_le_bytes(array(&body, at));
                if (number(1), number(9)) != (self.records, self.sum) {
                    return Err(BackupError::Damaged(
                        "records are missing or stand where they should not".into(),
                    ));
                }
                if fill(&mut self.input, &mut [0]).await? != 0 {
                    return Err(BackupError::Damaged("something follows its end".into()));
                }
                self.ended = true;
                Ok(None)
            }
            _ => Err(self.damaged("is of no kind that is known")),
        }
    }

    async fn record(&mut self) -> Result<Bytes, BackupError> {
        let cut_off = BackupError::CutOff { records: self.records };
        let mut head = [0; 8];
        if fill(&mut self.input, &mut head).await? < head.len() {
            return Err(cut_off);
        }
        let length = u32::from_le_bytes(array(&head, 0));
        if length > RECORD_LIMIT_BYTES {
            return Err(self.damaged("is too long"));
        }
        let mut body = vec![0; length as usize];
        if fill(&mut self.input, &mut body).await? < body.len() {
            return Err(cut_off);
        }
        if crc32fast::hash(&body) != u32::from_le_bytes(array(&head, 4)) {
            return Err(self.damaged("does not match its checksum"));
        }
        Ok(Bytes::from(body))
    }

    fn damaged(&self, what: &str) -> BackupError {
        BackupError::Damaged(format!("record {} {what}", self.records))
    }
}

fn entry(body: &Bytes) -> Option<Entry> {
    let fixed = body.get(..ENTRY_BYTES)?;
    let number = |at| u64::from_le_bytes(array(fixed, at));
    let key_end = ENTRY_BYTES + u32::from_le_bytes(array(fixed, 26)) as usize;
    let key = std::str::from_utf8(body.get(ENTRY_BYTES..key_end)?).ok()?;
    Some(Entry {
        key: Arc::from(key),
        value: body.slice(key_end..),
        create_revision: number(1),
        mod_revision: number(9),
        version: number(17),
        lease: (fixed[25] != 0).then_some(1),
    })
}

/// Reads as much as there is; how much that was.
async fn fill(input: &mut (impl AsyncRead + Unpin), out: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match input.read(&mut out[filled..]).await? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
