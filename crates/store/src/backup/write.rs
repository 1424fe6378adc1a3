//! Taking a backup: pages of one snapshot, while the store goes on.

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{BackupError, END, ENTRY, HEADER_BYTES, MAGIC, Summary, VERSION};
use crate::{Entry, RangeRequest, Store, record};

const PAGE: usize = 500;

/// Writes the store as it is at one revision.
pub async fn write(
    store: &dyn Store,
    out: &mut (dyn AsyncWrite + Unpin + Send),
) -> Result<Summary, BackupError> {
    let mut page = store.range(RangeRequest { limit: PAGE, ..Default::default() }).await?;
    let revision = page.revision;
    out.write_all(&header(revision)).await?;
    let (mut entries, mut bytes, mut sum) = (0_u64, HEADER_BYTES as u64, 0_u64);
    loop {
        let mut block = Vec::new();
        for entry in &page.entries {
            let body = body(entry);
            sum = sum.wrapping_add(record::mark((entries, 0), &crc32fast::hash(&body).to_le_bytes()));
            frame(&mut block, &body);
            entries += 1;
        }
        bytes += block.len() as u64;
        out.write_all(&block).await?;
        let Some(last) = page.entries.last().filter(|_| page.remaining > 0) else { break };
        let after = Some(last.key.to_string());
        let request = RangeRequest { after, limit: PAGE, revision: Some(revision), ..Default::default() };
        page = store.range(request).await?;
    }
    let mut end = vec![END];
    end.extend_from_slice(&entries.to_le_bytes());
    end.extend_from_slice(&sum.to_le_bytes());
    let mut block = Vec::new();
    frame(&mut block, &end);
    out.write_all(&block).await?;
    out.flush().await?;
    Ok(Summary { revision, entries, bytes: bytes + block.len() as u64 })
}

fn header(revision: u64) -> Vec<u8> {
    let taken = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&taken.to_le_bytes());
    let crc = crc32fast::hash(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

fn body(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(40 + entry.key.len() + entry.value.len());
    out.push(ENTRY);
    for number in [entry.create_revision, entry.mod_revision, entry.version] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(u8::from(entry.lease.is_some()));
    // Keys are bounded far below.
    out.extend_from_slice(&u32::try_from(entry.key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(entry.key.as_bytes());
    out.extend_from_slice(&entry.value);
    out
}

fn frame(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(body);
}
