//! How many seats a request takes: a list by the bytes it reads, a write by those who watch what it changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use store::RangeRequest;

use super::Fairness;
use super::level::Level;
use crate::Server;
use crate::http::query::Query;
use crate::http::request::Target;

/// What one seat reads, as in the original.
const BYTES_FOR_A_SEAT: u64 = 100_000;
const LIST_SEATS_MAX: u32 = 100;
/// The first events of a watch are made as they are sent, never all at once.
const WATCH_SEATS_MAX: u32 = 10;
/// No request takes more of its level than this.
const LEVEL_SHARE_PERCENT: u32 = 15;
/// So long the size of a collection is taken to be what it was.
const SIZE_AGE_MAX: Duration = Duration::from_secs(10);
/// Collections whose sizes are remembered; beyond it all are measured anew.
const SIZES_MAX: usize = 4096;
/// What it takes to tell one watcher of a change.
const EVENT_COST: Duration = Duration::from_micros(20);
/// Less than this follows from any write.
const LINGER_MIN: Duration = Duration::from_millis(5);
const LINGER_MAX: Duration = Duration::from_millis(100);

type Resource = (String, String);

/// What is known of the work that requests are.
#[derive(Default)]
pub struct Work {
    /// By resource and namespace: objects, bytes, and when they were counted.
    sizes: Mutex<HashMap<(Resource, String), Size>>,
    watches: Mutex<HashMap<Resource, u32>>,
}

#[derive(Clone, Copy)]
struct Size {
    objects: u64,
    bytes: u64,
    at: Instant,
}

/// One who watches a resource, for as long as this lives.
pub struct Watching {
    fairness: Arc<Fairness>,
    resource: Resource,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watches = self.fairness.work.watches.lock();
        if let Some(count) = watches.get_mut(&self.resource) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.resource);
            }
        }
    }
}

impl Fairness {
    pub fn watching(self: &Arc<Self>, target: &Target) -> Watching {
        let resource = (target.group.clone(), target.plural.clone());
        *self.work.watches.lock().entry(resource.clone()).or_default() += 1;
        Watching { fairness: Arc::clone(self), resource }
    }

    /// How long after a write those who watch are still being told of it.
    pub fn told_for(&self, target: &Target) -> Duration {
        // A token is no object, and nobody watches it.
        if target.subresource == "token" {
            return Duration::ZERO;
        }
        let resource = (target.group.clone(), target.plural.clone());
        linger(self.work.watches.lock().get(&resource).copied().unwrap_or(0))
    }
}

fn linger(watchers: u32) -> Duration {
    let cost = EVENT_COST * watchers;
    if cost < LINGER_MIN { Duration::ZERO } else { cost.min(LINGER_MAX) }
}

/// Which part of a collection a request reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// One object, or nothing that is there now.
    Little,
    /// So many at most (0: all), all looked at where a selector decides which.
    Some { limit: u64, selects: bool },
    /// All, piece by piece.
    Stream,
}

fn reads(target: &Target, query: &Query) -> Reads {
    let named = !target.name.is_empty() || !target.selected.is_empty();
    let version = query.get("resourceVersion").unwrap_or_default();
    match target.verb {
        "list" | "deletecollection" if !named => Reads::Some {
            limit: query.get("limit").and_then(|l| l.parse().ok()).unwrap_or(0),
            selects: ["labelSelector", "fieldSelector"]
                .iter()
                .any(|name| query.get(name).is_some_and(|text| !text.is_empty())),
        },
        "watch" if !named && (matches!(version, "" | "0") || query.flag("sendInitialEvents")) => {
            Reads::Stream
        }
        _ => Reads::Little,
    }
}

fn seats(reads: Reads, objects: u64, bytes: u64, level_seats: u32) -> u32 {
    let most = (u64::from(level_seats) * u64::from(LEVEL_SHARE_PERCENT)).div_ceil(100);
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let (bytes, cap) = match reads {
        Reads::Little => return 1,
        Reads::Stream => (bytes, WATCH_SEATS_MAX),
        Reads::Some { limit: 0, .. } => (bytes, LIST_SEATS_MAX),
        Reads::Some { limit, selects } => {
            let part = u128::from(bytes) * u128::from(limit.min(objects)) / u128::from(objects.max(1));
            let part = u64::try_from(part).unwrap_or(u64::MAX);
            (if selects { part.max(bytes / 2) } else { part }, LIST_SEATS_MAX)
        }
    };
    let seats = u32::try_from(bytes.div_ceil(BYTES_FOR_A_SEAT)).unwrap_or(u32::MAX);
    seats.min(cap).min(most).max(1)
}

impl Server {
    pub(super) async fn seats(&self, target: &Target, query: &Query, level: &Level) -> u32 {
        let reads = reads(target, query);
        if reads == Reads::Little {
            return 1;
        }
        let (objects, bytes) = self.size_of(target).await;
        seats(reads, objects, bytes, level.state.lock().limits.nominal)
    }

    /// Objects and bytes of a collection; nothing is known of what is not kept here.
    async fn size_of(&self, target: &Target) -> (u64, u64) {
        let key = ((target.group.clone(), target.plural.clone()), target.namespace.clone());
        let known = self.fairness.work.sizes.lock().get(&key).copied();
        if let Some(size) = known.filter(|size| size.at.elapsed() < SIZE_AGE_MAX) {
            return (size.objects, size.bytes);
        }
        let kinds = self.catalog.snapshot();
        let kind = kinds.find(&target.group, &target.version, &target.plural);
        let Some(kind) = kind.filter(|kind| !kind.is_virtual()) else { return (0, 0) };
        let prefix = kind.key(&target.namespace, "");
        let range = self.objects.store.range(RangeRequest { prefix, ..Default::default() }).await;
        // Where the store cannot tell, the request will not either.
        let Ok(range) = range else { return (0, 0) };
        let objects = range.entries.len() as u64;
        let bytes = range.entries.iter().map(|entry| entry.value.len() as u64).sum();
        let mut sizes = self.fairness.work.sizes.lock();
        if sizes.len() >= SIZES_MAX {
            sizes.clear();
        }
        sizes.insert(key, Size { objects, bytes, at: Instant::now() });
        (objects, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Asked;
    use ::http::Method;

    fn of(uri: &str) -> Reads {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let query = Query::parse(query);
        match Asked::parse(&Method::GET, path, &query) {
            Asked::Resource(target) => reads(&target, &query),
            Asked::Path(path) => panic!("{path}"),
        }
    }

    #[test]
    fn what_a_request_reads_is_seen_from_its_parameters() {
        assert_eq!(of("/api/v1/pods"), Reads::Some { limit: 0, selects: false });
        assert_eq!(
            of("/api/v1/pods?limit=500&labelSelector=a%3Db"),
            Reads::Some { limit: 500, selects: true }
        );
        assert_eq!(of("/api/v1/pods?fieldSelector=metadata.name%3Dx"), Reads::Little);
        assert_eq!(of("/api/v1/namespaces/a/pods/x"), Reads::Little);
        assert_eq!(of("/api/v1/pods?watch=1&resourceVersion=7"), Reads::Little);
        assert_eq!(of("/api/v1/pods?watch=1"), Reads::Stream);
        assert_eq!(of("/api/v1/pods?watch=1&resourceVersion=0"), Reads::Stream);
        assert_eq!(of("/api/v1/pods?watch=1&resourceVersion=7&sendInitialEvents=true"), Reads::Stream);
    }

    #[test]
    fn seats_follow_the_bytes_up_to_a_part_of_the_level() {
        let all = Reads::Some { limit: 0, selects: false };
        let page = |limit, selects| Reads::Some { limit, selects };
        assert_eq!(seats(all, 0, 0, 40), 1);
        assert_eq!(seats(all, 10, 250_000, 40), 3);
        assert_eq!(seats(all, 10, 50 << 20, 40), 6, "15 % of the level");
        assert_eq!(seats(all, 10, 50 << 20, 1000), LIST_SEATS_MAX);
        assert_eq!(seats(Reads::Stream, 10, 50 << 20, 1000), WATCH_SEATS_MAX);
        assert_eq!(seats(page(10, false), 1000, 10_000_000, 100), 1);
        assert_eq!(seats(page(10, true), 1000, 1_000_000, 100), 5, "a selector looks at more than it shows");
        assert_eq!(seats(all, 10, 50 << 20, 0), 1);
        assert_eq!(seats(page(u64::MAX, false), u64::MAX, u64::MAX, u32::MAX), LIST_SEATS_MAX);
    }

    #[test]
    fn a_write_keeps_its_seat_while_many_are_told_of_it() {
        assert_eq!(linger(0), Duration::ZERO);
        assert_eq!(linger(249), Duration::ZERO);
        assert_eq!(linger(1000), Duration::from_millis(20));
        assert_eq!(linger(u32::MAX), LINGER_MAX);
    }
}
