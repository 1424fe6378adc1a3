//! Objects in protobuf. They are stored as JSON, and turning one into the other costs more than all else that a list does;
//! so what was turned is kept for a while, for the next list and for every watcher of the same event. An entry never
//! changes, which makes its key and revision a name for its bytes for good.

use std::collections::HashMap;
use std::sync::Arc;

use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use bytes::Bytes;
use parking_lot::Mutex;
use store::Entry;

use crate::objects::Objects;
use crate::verbs::set_version;

/// At most so much is kept. What is not asked for any more goes first.
const LIMIT_BYTES: usize = 64 << 20;

type Name = (Arc<str>, u64);
type Generation = HashMap<Name, Bytes>;

#[derive(Default)]
pub struct Encoded {
    kept: Mutex<Kept>,
}

/// Two generations: when the newer one has grown to half of the limit, it becomes the older one, and the older one goes.
/// What is found in the older one is taken over into the newer.
#[derive(Default)]
struct Kept {
    newer: Generation,
    older: Generation,
    newer_bytes: usize,
}

impl Kept {
    fn get(&mut self, name: &Name) -> Option<Bytes> {
        if let Some(bytes) = self.newer.get(name) {
            return Some(bytes.clone());
        }
        let bytes = self.older.remove(name)?;
        self.put(name.clone(), bytes.clone());
        Some(bytes)
    }

    fn put(&mut self, name: Name, bytes: Bytes) {
        if self.newer_bytes + bytes.len() > LIMIT_BYTES / 2 {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.newer_bytes += bytes.len();
        self.newer.insert(name, bytes);
    }
}

impl Encoded {
    /// The bytes of an entry as an item of a list, without an envelope. The kind is a built-in one.
    pub fn bare(&self, kind: &Kind, objects: &Objects, entry: &Entry) -> Result<Bytes, ApiError> {
        // What is encrypted where it is stored lies about in the open nowhere else; and a key and a revision name one
        // version of an object, not those that it is converted to.
        if objects.is_encrypted(&entry.key) || !kind.is_served_as_stored() {
            return bare(kind, objects, entry, entry.mod_revision);
        }
        let name = (Arc::clone(&entry.key), entry.mod_revision);
        if let Some(bytes) = self.kept.lock().get(&name) {
            return Ok(bytes);
        }
        let bytes = bare(kind, objects, entry, entry.mod_revision)?;
        self.kept.lock().put(name, bytes.clone());
        Ok(bytes)
    }
}

/// As [`Encoded::bare`], with another revision, and kept by nobody.
pub fn bare(kind: &Kind, objects: &Objects, entry: &Entry, revision: u64) -> Result<Bytes, ApiError> {
    let mut object = meta::from_stored(&objects.plain(entry)?, revision).map_err(ApiError::internal)?;
    set_version(kind, &mut object);
    let bytes = api::proto::bare(&kind.api_version(), &kind.kind, &object).map_err(ApiError::internal)?;
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_whole_stays_bounded() {
        let mut kept = Kept::default();
        let name = |n: u64| (Arc::from("/registry/pods/a/b"), n);
        let part = Bytes::from(vec![0; LIMIT_BYTES / 16]);
        for n in 0..100 {
            kept.put(name(n), part.clone());
            assert!(n < 1 || kept.get(&name(0)).is_some(), "the first is asked for each time ({n})");
            let held: usize = kept.newer.values().chain(kept.older.values()).map(Bytes::len).sum();
            assert!(held <= LIMIT_BYTES, "{held}");
        }
        assert!(kept.get(&name(1)).is_none() && kept.get(&name(99)).is_some());
    }
}
