//! The committer's thread: takes what waits, writes it as one transaction, then makes it visible and answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::stage::{Group, epoch_seconds};
use super::{
    COMPACTED, Closing, GATHER, GROUP_LIMIT, LEASES, Lease, META, OnFault, RECORDS, REVISION, Request, SUM,
    SWEEP_LIMIT, Shared, WHOLE,
};
use crate::coming::Expected;
use crate::index::Index;
use crate::record::{Place, Sums};
use crate::superseded::Superseded;
use crate::{Event, LeaseId, Result, Revision, StoreError, record};

/// Owns the file; lives on its thread.
pub(super) struct Committer {
    pub(super) database: Arc<Closing>,
    /// The file, as errors name it.
    pub(super) name: String,
    pub(super) on_fault: OnFault,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// Where the newest version of each key lies, and how long its value is.
    pub(super) places: HashMap<Arc<str>, (Place, u32)>,
    pub(super) superseded: Superseded<Place>,
    pub(super) leases: HashMap<LeaseId, Lease>,
    pub(super) next_lease: LeaseId,
    pub(super) loaded: Index,
    pub(super) recent: Vec<Event>,
    /// See [`super::WHOLE`].
    pub(super) sums: Sums,
}

/// What a group of requests is put together from.
struct Gathering<'a> {
    runtime: &'a Runtime,
    expected: &'a Expected,
    until: Instant,
}

impl Gathering<'_> {
    /// What waits, or else what comes in time, while something is announced. That what was announced is not coming after
    /// all is not noticed: the time is short.
    fn next<T>(&self, requests: &mut mpsc::Receiver<T>) -> Option<T> {
        match requests.try_recv() {
            Ok(request) => Some(request),
            Err(_) if self.expected.any() => {
                let next = async { tokio::time::timeout_at(self.until.into(), requests.recv()).await };
                self.runtime.block_on(next).ok().flatten()
            }
            Err(_) => None,
        }
    }
}

/// What is asked, for as long as somebody answers. However the committer ends, a panic included, nobody is left to wait: who
/// waits is told that the store is closed, and so is whoever comes after, and that is all they may be told.
pub(super) struct Queue {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) shared: Arc<Shared>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        if std::thread::panicking() && self.shared.options.on_fault == OnFault::Abort {
            // What was written may be published by half; and a server that refuses all writes is of use to nobody.
            base::tell!("kedge: the store's committer broke off; stopping at once");
            std::process::abort();
        }
        self.shared.ring.close();
        refuse_all(&mut self.requests);
    }
}

impl Committer {
    pub(super) fn run(mut self, mut queue: Queue) {
        let shared = Arc::clone(&queue.shared);
        let (shared, requests) = (&*shared, &mut queue.requests);
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a timer for the committer");
        loop {
            let wait = self.until_next_lease();
            let first = runtime.block_on(async {
                match wait {
                    Some(wait) => tokio::time::timeout(wait, requests.recv()).await,
                    None => Ok(requests.recv().await),
                }
            });
            let mut group = Group { before: self.revision, ..Default::default() };
            let mut replies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
            let gathering =
                Gathering { runtime: &runtime, expected: &shared.expected, until: Instant::now() + GATHER };
            match first {
                Ok(None) => return,
                Err(_elapsed) => {}
                Ok(Some(first)) => {
                    self.take(shared, &mut group, first, &mut replies);
                    while replies.len() < GROUP_LIMIT {
                        let Some(next) = gathering.next(requests) else { break };
                        self.take(shared, &mut group, next, &mut replies);
                    }
                }
            }
            self.expire_leases(shared, &mut group);
            if !self.finish(shared, group) {
                return;
            }
            for reply in replies {
                reply();
            }
        }
    }

    fn take(
        &mut self,
        shared: &Shared,
        group: &mut Group,
        request: Request,
        replies: &mut Vec<Box<dyn FnOnce() + Send>>,
    ) {
        // A requester that went away does not want its answer; that is no fault.
        fn later<T: Send + 'static>(
            reply: oneshot::Sender<Result<T>>,
            answer: Result<T>,
        ) -> Box<dyn FnOnce() + Send> {
            Box::new(move || drop(reply.send(answer)))
        }
        replies.push(match request {
            Request::Txn(ops, reply) => later(reply, self.stage(shared, group, ops)),
            Request::Compact(revision, reply) => {
                let current = self.revision;
                let valid = revision <= current;
                if valid {
                    group.compact_to = Some(revision.max(group.compact_to.unwrap_or(0)));
                }
                later(
                    reply,
                    if valid {
                        Ok(())
                    } else {
                        Err(StoreError::FutureRevision { requested: revision, current })
                    },
                )
            }
            Request::LeaseGrant(ttl_seconds, reply) => {
                let id = self.next_lease;
                self.next_lease += 1;
                let expires_at = epoch_seconds() + ttl_seconds;
                group.leases.push((id, Some((ttl_seconds, expires_at))));
                self.leases.insert(id, Lease { ttl_seconds, expires_at, keys: HashSet::new() });
                later(reply, Ok(id))
            }
            Request::LeaseKeepAlive(id, reply) => later(
                reply,
                match self.leases.get_mut(&id) {
                    Some(lease) => {
                        lease.expires_at = epoch_seconds() + lease.ttl_seconds;
                        group.leases.push((id, Some((lease.ttl_seconds, lease.expires_at))));
                        Ok(())
                    }
                    None => Err(StoreError::UnknownLease(id)),
                },
            ),
            Request::LeaseRevoke(id, reply) => {
                let known = self.leases.contains_key(&id);
                self.end_lease(shared, group, id);
                later(reply, if known { Ok(()) } else { Err(StoreError::UnknownLease(id)) })
            }
        });
    }

    /// Superseded records whose time has come: a few with each commit, all on request.
    fn sweep(&mut self, group: &mut Group) -> Vec<(Arc<str>, Revision)> {
        let mut swept = Vec::new();
        // At least as many as this group will leave behind, so that sustained load does not outrun the sweeping.
        let limit = SWEEP_LIMIT.max(2 * group.records.len());
        let explicit = group.compact_to.unwrap_or(0);
        // What this very group supersedes stays for the next one: no event is gone before it was there.
        while let Some(version) = self.superseded.take(explicit, (swept.len() < limit, group.before)) {
            self.compacted = self.compacted.max(version.superseded_at);
            group.removed.push(version.place);
            swept.push((version.key, version.superseded_at));
        }
        self.compacted = self.compacted.max(explicit);
        swept
    }

    /// Writes the group, then publishes it. There is no way back from a failed write (see the module's text): then
    /// the answer is no, if there is one.
    fn finish(&mut self, shared: &Shared, mut group: Group) -> bool {
        let swept = self.sweep(&mut group);
        let nothing = group.records.is_empty() && group.leases.is_empty() && group.removed.is_empty();
        if nothing && group.compact_to.is_none() {
            return true;
        }
        if let Err(error) = self.write(&group) {
            tracing::error!(%error, path = self.name, "cannot write the store; stopping at once");
            if self.on_fault == OnFault::Abort {
                base::tell!("kedge: cannot write the store at {}: {error}; stopping at once", self.name);
                if matches!(&error, redb::Error::Io(error) if base::disk::is_full(error)) {
                    let remedy = base::disk::remedy(std::path::Path::new(&self.name));
                    base::tell!("kedge: {remedy}; nothing that was acknowledged is lost");
                }
                std::process::abort();
            }
            return false;
        }
        {
            let mut index = shared.index.write();
            for event in &group.events {
                index.apply(event.revision, event.entry.clone(), event.deleted);
            }
            for (key, revision) in swept {
                index.compact_key(&key, revision);
            }
            index.compacted = self.compacted;
        }
        if !group.events.is_empty() {
            shared.ring.publish(group.events, self.revision);
        }
        true
    }

    fn write(&mut self, group: &Group) -> Result<(), redb::Error> {
        let mut sums = self.sums;
        let txn = self.database.begin_write()?;
        {
            let mut records = txn.open_table(RECORDS)?;
            for (place, bytes) in &group.records {
                records.insert(place, bytes.as_slice())?;
                sums.records = sums.records.wrapping_add(record::mark(*place, bytes));
            }
            for place in &group.removed {
                if let Some(bytes) = records.remove(place)? {
                    sums.records = sums.records.wrapping_sub(record::mark(*place, bytes.value()));
                }
            }
            let mut leases = txn.open_table(LEASES)?;
            for (id, lease) in &group.leases {
                let before = match lease {
                    Some(lease) => leases.insert(id, lease)?,
                    None => leases.remove(id)?,
                };
                before.into_iter().for_each(|before| sums.remove_lease(*id, before.value()));
                lease.iter().for_each(|lease| sums.add_lease(*id, *lease));
            }
            let mut meta = txn.open_table(META)?;
            meta.insert(REVISION, self.revision)?;
            meta.insert(COMPACTED, self.compacted)?;
            meta.insert(WHOLE, sums.seal(self.revision, self.compacted))?;
            meta.remove(SUM)?;
        }
        txn.commit()?;
        self.sums = sums;
        Ok(())
    }
}

/// Drops all that was asked and is about to be: who has a place in the queue already may put something there after it was
/// emptied, where it would lie, unanswered, for as long as there is a store.
fn refuse_all<T>(requests: &mut mpsc::Receiver<T>) {
    requests.close();
    while requests.blocking_recv().is_some() {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::super::{Embedded, EmbeddedOptions};
    use super::*;
    use crate::{Op, Store};

    #[test]
    fn who_has_a_place_in_the_queue_is_refused_as_well() {
        let (sender, mut requests) = mpsc::channel::<oneshot::Sender<()>>(1);
        let place = sender.try_reserve().expect("a place");
        std::thread::scope(|scope| {
            scope.spawn(move || refuse_all(&mut requests));
            while !sender.is_closed() {
                std::thread::yield_now();
            }
            let (reply, answer) = oneshot::channel();
            place.send(reply);
            let answer = runtime().block_on(in_time(answer));
            assert!(answer.is_err(), "it is dropped");
        });
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    async fn in_time<F: Future>(answer: F) -> F::Output {
        tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer in time")
    }

    /// A disk that has the committer panic once it is told to.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        breaks: Arc<AtomicBool>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> std::io::Result<()> {
            assert!(!self.breaks.load(Ordering::SeqCst), "a fault of ours");
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    #[test]
    fn a_panic_leaves_nobody_to_wait() {
        let breaks = Arc::new(AtomicBool::default());
        let disk = Disk { memory: InMemoryBackend::new(), breaks: Arc::clone(&breaks) };
        let options = EmbeddedOptions { on_fault: OnFault::Close, ..Default::default() };
        let store = Embedded::open_on(disk, "the disk", options).expect("opens");
        let requests = store.requests.clone().expect("it is open");
        let place = requests.try_reserve().expect("a place");
        let mut watch = store.watch("", store.revision()).expect("watches");
        breaks.store(true, Ordering::SeqCst);
        let put = |key: &str| store.txn(vec![Op::create(key, "x")]);
        runtime().block_on(async {
            let waited = in_time(put("waits")).await;
            assert!(matches!(waited, Err(StoreError::Closed)), "{waited:?}");
            in_time(requests.closed()).await;
            let (reply, answer) = oneshot::channel();
            place.send(Request::Compact(0, reply));
            assert!(in_time(answer).await.is_err(), "who had a place is refused");
            let later = in_time(put("later")).await;
            assert!(matches!(later, Err(StoreError::Closed)), "{later:?}");
            let seen = in_time(watch.next()).await;
            assert!(matches!(seen, Err(StoreError::Closed)), "{seen:?}");
        });
    }

    #[test]
    fn a_group_waits_for_what_is_announced_and_for_nothing_else() {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let expected = Expected::default();
        let gathering = |until| Gathering { runtime: &runtime, expected: &expected, until };
        let far = Instant::now() + Duration::from_secs(3600);
        let (sender, mut requests) = mpsc::channel(2);
        assert_eq!(gathering(far).next::<u8>(&mut requests), None, "nothing waits, nothing is announced");
        sender.try_send(1).expect("room");
        assert_eq!(gathering(far).next(&mut requests), Some(1), "what waits is taken");
        let coming = expected.announce();
        assert_eq!(gathering(Instant::now()).next(&mut requests), None, "its time is over");
        let (began, begins) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            begins.recv().expect("told to begin");
            sender.blocking_send(2).expect("room");
            drop(coming);
            sender
        });
        began.send(()).expect("it listens");
        assert_eq!(gathering(far).next(&mut requests), Some(2), "what is announced is waited for");
        let _sender = other.join().expect("it ends");
        assert_eq!(gathering(far).next(&mut requests), None, "it has come, and nobody else is announced");
    }
}
