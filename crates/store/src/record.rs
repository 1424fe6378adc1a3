//! The form of one change on disk. Each record carries a CRC of its own: the file's own checks do not cover
//! what is read back, and a flipped bit must refuse to start rather than be served.

use std::sync::Arc;

use bytes::Bytes;

use crate::Entry;

const DELETED: u8 = 1;
const HEADER: usize = 4 + 1 + 8 + 8 + 8 + 4;

/// `crc32 | flags | create revision | version | lease (0: none) | key length | key | value`, little-endian.
pub fn encode(entry: &Entry, deleted: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + entry.key.len() + entry.value.len());
    out.extend_from_slice(&[0; 4]);
    out.push(u8::from(deleted) * DELETED);
    out.extend_from_slice(&entry.create_revision.to_le_bytes());
    out.extend_from_slice(&entry.version.to_le_bytes());
    out.extend_from_slice(&entry.lease.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&u32::try_from(entry.key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(entry.key.as_bytes());
    if !deleted {
        out.extend_from_slice(&entry.value);
    }
    seal(entry.mod_revision, &mut out);
    out
}

/// Puts the sum of what follows before it, where there is room for one.
pub fn seal(revision: u64, record: &mut [u8]) -> bool {
    let Some((sum, rest)) = record.split_first_chunk_mut::<4>() else { return false };
    *sum = checksum(revision, rest).to_le_bytes();
    true
}

/// The entry and whether it is a deletion; an error says what is wrong with the bytes.
pub fn decode(revision: u64, bytes: &[u8]) -> Result<(Entry, bool), String> {
    if bytes.len() < HEADER {
        return Err(format!("record of revision {revision} is only {} bytes long", bytes.len()));
    }
    if u32::from_le_bytes(array(bytes, 0)) != checksum(revision, &bytes[4..]) {
        return Err(format!("record of revision {revision} does not match its checksum"));
    }
    let key_length = u32::from_le_bytes(array(bytes, 29)) as usize;
    let key = bytes.get(HEADER..HEADER + key_length).and_then(|key| std::str::from_utf8(key).ok());
    let key = key.ok_or_else(|| format!("record of revision {revision} has no valid key"))?;
    let lease = u64::from_le_bytes(array(bytes, 21));
    let entry = Entry {
        key: Arc::from(key),
        value: Bytes::copy_from_slice(&bytes[HEADER + key_length..]),
        create_revision: u64::from_le_bytes(array(bytes, 5)),
        mod_revision: revision,
        version: u64::from_le_bytes(array(bytes, 13)),
        lease: (lease != 0).then_some(lease),
    };
    Ok((entry, bytes[4] & DELETED != 0))
}

/// Where a record lies: its revision, and which of those of one transaction it is.
pub type Place = (u64, u32);

/// A number that stands for a record at its place. The sum of all of them tells whether one is missing.
pub fn mark(place: Place, bytes: &[u8]) -> u64 {
    let crc = bytes.get(..4).map_or(0, |b| u32::from_le_bytes(array(b, 0)));
    // SplitMix64's finish: neighbouring records must not cancel each other out.
    let mut mixed = place.0 ^ (u64::from(place.1) << 40) ^ (u64::from(crc) << 32 | u64::from(crc));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The sum of what a file holds beside the numbers that stand for it all.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of the records' marks.
    pub records: u64,
    /// Of the leases'.
    pub leases: u64,
}

impl Sums {
    pub fn add_lease(&mut self, id: u64, lease: (u64, u64)) {
        self.leases = self.leases.wrapping_add(lease_mark(id, lease));
    }

    pub fn remove_lease(&mut self, id: u64, lease: (u64, u64)) {
        self.leases = self.leases.wrapping_sub(lease_mark(id, lease));
    }

    /// One number for the whole: nothing of it can be another, or missing, without this being another.
    pub fn seal(self, revision: u64, compacted: u64) -> u64 {
        [self.records, self.leases, revision, compacted]
            .into_iter()
            .fold(0, |sealed, part| mix(sealed ^ part))
    }
}

fn lease_mark(id: u64, (ttl_seconds, expires_at): (u64, u64)) -> u64 {
    [id, ttl_seconds, expires_at].into_iter().fold(0, |mark, part| mix(mark ^ part))
}

/// SplitMix64's finish: neighbours must not cancel each other out. Its step keeps nothing from being nothing.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Covers the revision too, so that a record cannot turn up under another's key.
fn checksum(revision: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_file_is_sealed() {
        let sealed = |leases: &[(u64, (u64, u64))], records, revision, compacted| {
            let mut sums = Sums { records, ..Sums::default() };
            leases.iter().for_each(|(id, lease)| sums.add_lease(*id, *lease));
            sums.seal(revision, compacted)
        };
        let leases = [(1, (60, 1_000)), (2, (60, 1_000))];
        let whole = sealed(&leases, 5, 9, 4);
        assert_eq!(whole, sealed(&[leases[1], leases[0]], 5, 9, 4), "they have no order");
        for bit in (0..64).map(|bit| 1_u64 << bit) {
            for other in [(5 ^ bit, 9, 4), (5, 9 ^ bit, 4), (5, 9, 4 ^ bit)] {
                assert_ne!(whole, sealed(&leases, other.0, other.1, other.2), "{other:?}");
            }
            for lease in [(1 ^ bit, (60, 1_000)), (1, (60 ^ bit, 1_000)), (1, (60, 1_000 ^ bit))] {
                assert_ne!(whole, sealed(&[lease, leases[1]], 5, 9, 4), "{lease:?}");
            }
        }
        assert_ne!(whole, sealed(&leases[1..], 5, 9, 4), "one is missing");
        assert_ne!(whole, sealed(&leases, 9, 5, 4), "two have changed places");
        let mut sums = Sums::default();
        sums.add_lease(7, (1, 2));
        sums.remove_lease(7, (1, 2));
        assert!(sums == Sums::default());
    }

    #[test]
    fn round_trips_and_notices_every_flipped_bit() {
        let entry = Entry {
            key: Arc::from("/registry/pods/a"),
            value: Bytes::from_static(b"{}"),
            create_revision: 3,
            mod_revision: 9,
            version: 2,
            lease: Some(5),
        };
        let bytes = encode(&entry, false);
        assert_eq!(decode(9, &bytes), Ok((entry, false)));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(9, &damaged).is_err(), "bit {bit}");
        }
        assert!(decode(8, &bytes).is_err(), "another revision's place");
        assert!(decode(9, &bytes[..10]).is_err());
    }
}
