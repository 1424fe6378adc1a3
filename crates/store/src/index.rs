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

/// The versions of a key. The newest lies in the map itself, so that counting keys reads nothing else.
#[derive(Debug)]
struct Chain {
    newest: Version,
    /// Oldest first.
    older: Vec<Version>,
}

impl Chain {
    /// The version that a revision shows.
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.newest.revision <= revision {
            return Some(&self.newest);
        }
        let end = self.older.partition_point(|v| v.revision <= revision);
        self.older[..end].last()
    }
}

#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Arc<str>, Chain>,
    pub revision: Revision,
    pub compacted: Revision,
}

impl Index {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.keys.get(key)?.newest.entry.as_ref()
    }

    pub fn apply(&mut self, revision: Revision, entry: Entry, deleted: bool) {
        let key = Arc::clone(&entry.key);
        let version = Version { revision, entry: (!deleted).then_some(entry) };
        match self.keys.get_mut(&key) {
            Some(chain) => chain.older.push(std::mem::replace(&mut chain.newest, version)),
            None => drop(self.keys.insert(key, Chain { newest: version, older: Vec::new() })),
        }
        self.revision = revision;
    }

    /// Drops what was superseded at or before `revision` for this key.
    pub fn compact_key(&mut self, key: &str, revision: Revision) {
        let Some(chain) = self.keys.get_mut(key) else { return };
        if chain.newest.revision <= revision {
            chain.older = Vec::new();
            if chain.newest.entry.is_none() {
                self.keys.remove(key);
            }
            return;
        }
        let keep_from = chain.older.partition_point(|v| v.revision <= revision).saturating_sub(1);
        chain.older.drain(..keep_from);
    }

    pub fn count(&self, prefix: &str) -> usize {
        self.below(prefix, None).filter(|chain| chain.newest.entry.is_some()).count()
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
        for chain in self.below(&request.prefix, request.after.as_deref()) {
            let Some(entry) = chain.at(at).and_then(|v| v.entry.as_ref()) else { continue };
            if request.limit > 0 && entries.len() == request.limit {
                remaining += 1;
            } else {
                entries.push(entry.clone());
            }
        }
        Ok(RangeResponse { entries, revision: at, remaining })
    }

    /// Keys with this prefix, after that key. Bounded by keys rather than by looking at each.
    fn below(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = &Chain> {
        let end = behind(prefix);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        // Past the end lies nothing; the map refuses such a range.
        let empty = matches!((start, &end), (Bound::Excluded(start), Some(end)) if start >= end.as_str());
        let bounds = match &end {
            _ if empty => (Bound::Included(prefix), Bound::Excluded(prefix)),
            Some(end) => (start, Bound::Excluded(end.as_str())),
            None => (start, Bound::Unbounded),
        };
        self.keys.range::<str, _>(bounds).map(|(_, chain)| chain)
    }
}

/// The first text behind all that begin with this; `None` where there is none.
fn behind(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Between these two there are no characters.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_prefix() {
        for (prefix, expected) in [
            ("", None),
            ("/a/", Some("/a0")),
            ("a\u{7f}", Some("a\u{80}")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(behind(prefix).as_deref(), expected, "{prefix:?}");
        }
    }

    #[test]
    fn ranges_are_of_the_prefix_and_after_the_key() {
        let mut index = Index::default();
        for (n, key) in ["/a", "/a/", "/a/x", "/a/y", "/a0", "/b/x"].iter().enumerate() {
            let entry = Entry {
                key: Arc::from(*key),
                value: bytes::Bytes::new(),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                lease: None,
            };
            index.apply(n as u64 + 1, entry, false);
        }
        let check = |prefix: &str, after: Option<&str>, expected: &[&str]| {
            let request =
                RangeRequest { prefix: prefix.into(), after: after.map(Into::into), ..Default::default() };
            let found = index.range(&request).expect("a range");
            let keys: Vec<&str> = found.entries.iter().map(|e| &*e.key).collect();
            assert_eq!(keys, expected, "{prefix} after {after:?}");
        };
        check("/a/", None, &["/a/", "/a/x", "/a/y"]);
        check("/a/", Some("/a/x"), &["/a/y"]);
        check("/a/", Some("/a/y"), &[]);
        check("/a/", Some("/zzz"), &[]);
        check("/a/", Some("/"), &["/a/", "/a/x", "/a/y"]);
        check("", None, &["/a", "/a/", "/a/x", "/a/y", "/a0", "/b/x"]);
        assert_eq!(index.count("/a"), 5);
    }
}
