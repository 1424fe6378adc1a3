//! What a group of requests adds up to, before anything is written: expectations are checked against the state as
//! the requests before them will leave it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Shared;
use super::committer::Committer;
use crate::record::Place;
use crate::{Change, Entry, Event, Expect, LeaseId, Op, Result, Revision, StoreError, TxnResponse, record};

/// What one group of requests adds up to before it is written.
#[derive(Default)]
pub(super) struct Group {
    /// The revision before it.
    pub(super) before: Revision,
    /// Keys changed in this group: the value they will have.
    pub(super) overlay: HashMap<Arc<str>, Option<Entry>>,
    pub(super) events: Vec<Event>,
    pub(super) records: Vec<(Place, Vec<u8>)>,
    pub(super) removed: Vec<Place>,
    pub(super) leases: Vec<(LeaseId, Option<(u64, u64)>)>,
    pub(super) compact_to: Option<Revision>,
}

pub(super) fn epoch_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Committer {
    /// Keeps `places` and `superseded` true when `entry` is written at `place`.
    pub(super) fn note_superseded(&mut self, entry: &Entry, place: Place, deleted: bool, since: Instant) {
        let bytes = u32::try_from(entry.value.len()).unwrap_or(u32::MAX);
        let older = match deleted {
            true => self.places.remove(&entry.key),
            false => self.places.insert(Arc::clone(&entry.key), (place, bytes)),
        };
        // That something is gone is kept as long, without what it was.
        for (place, bytes) in older.into_iter().chain(deleted.then_some((place, 0))) {
            let superseded_at = entry.mod_revision.max(place.0);
            self.superseded.push(Arc::clone(&entry.key), place, superseded_at, (bytes as usize, since));
        }
    }

    pub(super) fn track_lease(&mut self, previous: Option<&Entry>, entry: &Entry, deleted: bool) {
        if let Some(lease) = previous.and_then(|p| p.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&entry.key);
        }
        if let Some(lease) = entry.lease.filter(|_| !deleted).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(Arc::clone(&entry.key));
        }
    }

    /// Checks a transaction against the state as the group will leave it, and adds it to the group.
    pub(super) fn stage(&mut self, shared: &Shared, group: &mut Group, ops: Vec<Op>) -> Result<TxnResponse> {
        let index = shared.index.read();
        let current = |group: &Group, key: &str| match group.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => index.get(key).cloned(),
        };
        for op in &ops {
            let entry = current(group, &op.key);
            let holds = op.expect.holds(entry.as_ref());
            if !holds {
                return Ok(TxnResponse::Conflict {
                    key: op.key.clone(),
                    current: entry,
                    revision: self.revision,
                });
            }
            if let Change::Put { lease: Some(lease), .. } = op.change
                && !self.leases.contains_key(&lease)
            {
                return Err(StoreError::UnknownLease(lease));
            }
        }
        let revision = self.revision + 1;
        let mut changed = false;
        for (sub, op) in ops.into_iter().enumerate() {
            let previous = current(group, &op.key);
            let (entry, deleted) = match (op.change, &previous) {
                (Change::Nothing, _) | (Change::Delete, None) => continue,
                (Change::Delete, Some(previous)) => {
                    (Entry { mod_revision: revision, lease: None, ..previous.clone() }, true)
                }
                (Change::Put { value, lease }, previous) => {
                    let key = previous.as_ref().map_or_else(|| Arc::from(op.key), |p| Arc::clone(&p.key));
                    let create_revision = previous.as_ref().map_or(revision, |p| p.create_revision);
                    let version = previous.as_ref().map_or(0, |p| p.version) + 1;
                    (Entry { key, value, create_revision, mod_revision: revision, version, lease }, false)
                }
            };
            changed = true;
            let place = (revision, u32::try_from(sub).unwrap_or(u32::MAX));
            group.records.push((place, record::encode(&entry, deleted)));
            self.note_superseded(&entry, place, deleted, Instant::now());
            self.track_lease(previous.as_ref(), &entry, deleted);
            group.overlay.insert(Arc::clone(&entry.key), (!deleted).then(|| entry.clone()));
            let shown = if deleted { previous.clone().unwrap_or(entry) } else { entry };
            group.events.push(Event { revision, entry: shown, previous, deleted });
        }
        if changed {
            self.revision = revision;
        }
        Ok(TxnResponse::Committed { revision: self.revision })
    }

    pub(super) fn until_next_lease(&self) -> Option<Duration> {
        let next = self.leases.values().map(|l| l.expires_at).min()?;
        Some(Duration::from_secs(next.saturating_sub(epoch_seconds())).max(Duration::from_millis(100)))
    }

    pub(super) fn expire_leases(&mut self, shared: &Shared, group: &mut Group) {
        let now = epoch_seconds();
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, l)| l.expires_at <= now).map(|(id, _)| *id).collect();
        for id in expired {
            self.end_lease(shared, group, id);
        }
    }

    pub(super) fn end_lease(&mut self, shared: &Shared, group: &mut Group, id: LeaseId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let ops = lease.keys.iter().map(|key| Op::delete(key.to_string(), Expect::Anything)).collect();
        if let Err(error) = self.stage(shared, group, ops) {
            tracing::error!(%error, id, "cannot delete the keys of a lease");
        }
        self.leases.remove(&id);
        group.leases.push((id, None));
    }
}
