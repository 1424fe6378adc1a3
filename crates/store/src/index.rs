//! All live data, in memory: a chain of versions for each key, oldest first. Reads never touch the disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::{Entry, RangeRequest, RangeResponse, Result, Revision, StoreError};

/// A version of a key; `None` is a deletion.
#[derive(Debug)]
struct Version {
    revision: Revision,
    entry: Option<Entry>,
}

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    pub revision: Revision,
    pub compacted: Revision,
}

impl Index {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.keys.get(key)?.last()?.entry.as_ref()
    }

    pub fn apply(&mut self, revision: Revision, entry: Entry, deleted: bool) {
        let key = Arc::clone(&entry.key);
        let version = Version { revision, entry: (!deleted).then_some(entry) };
        self.keys.entry(key).or_default().push(version);
        self.revision = revision;
    }

    /// Drops what was superseded at or before `revision` for this key.
    pub fn compact_key(&mut self, key: &str, revision: Revision) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let keep_from = versions.partition_point(|v| v.revision <= revision).saturating_sub(1);
        versions.drain(..keep_from);
        if versions.len() == 1 && versions[0].entry.is_none() && versions[0].revision <= revision {
            self.keys.remove(key);
        }
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.below(prefix, None).filter(|(_, v)| v.last().is_some_and(|v| v.entry.is_some())).count()
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse> {
        let at = request.revision.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::FutureRevision { requested: at, current: self.revision });
        }
        if at < self.compacted {
            return Err(StoreError::Compacted { requested: at, compacted: self.compacted });
        }
        let mut entries = Vec::new();
        let mut remaining = 0;
        for (_, versions) in self.below(&request.prefix, request.after.as_deref()) {
            let end = versions.partition_point(|v| v.revision <= at);
            let Some(entry) = versions[..end].last().and_then(|v| v.entry.as_ref()) else { continue };
            if request.limit > 0 && entries.len() == request.limit {
                remaining += 1;
            } else {
                entries.push(entry.clone());
            }
        }
        Ok(RangeResponse { entries, revision: at, remaining })
    }

    fn below<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Vec<Version>)> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}
