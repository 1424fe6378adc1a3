//! Crashes and faulty disks, a thousand by seed, each checked by replaying what the store tells in revision order:
//! nothing acknowledged is lost, nothing is half there, watchers are told everything once and in order. And what is
//! damaged while nobody looks refuses to start.
//!
//! A seed that fails is printed; `KEDGE_SEED=<n>` runs it alone, `KEDGE_SEEDS=<n>` as many as that.

mod disk;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use disk::{Disk, Fault, Random};
use store::{
    Embedded, EmbeddedOptions, Event, Expect, History, OnFault, Op, RangeRequest, Revision, Store,
    StoreError, TxnResponse,
};

const SEEDS: u64 = 1000;
const KEYS: u64 = 8;
const WRITERS: usize = 3;

/// A transaction as a writer meant it: keys with their new values, or none for a deletion.
type Meant = Vec<(String, Option<Vec<u8>>)>;

/// What is known from outside: what was acknowledged, what a watcher has been told, what may or may not be there.
#[derive(Default)]
struct Known {
    acknowledged: BTreeMap<Revision, Meant>,
    uncertain: Vec<Meant>,
    told: Vec<Arc<Event>>,
    compacted: Revision,
    /// Whether the disk failed in what a compaction did.
    failed_compacting: bool,
}

fn options(random: &mut Random) -> EmbeddedOptions {
    // Half of the runs forget as they go, so that crashes come upon compaction too.
    let time = if random.one_in(2) { Duration::ZERO } else { Duration::from_secs(3600) };
    let history = History { time, ..Default::default() };
    // In a small cache there is not room for all that is read again.
    let cache_bytes = if random.one_in(2) { 1 << 14 } else { 1 << 20 };
    EmbeddedOptions { history, on_fault: OnFault::Close, cache_bytes, ..Default::default() }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("KEDGE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("KEDGE_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// On all processors, telling the seed of what fails.
fn for_each_seed(seeds: &[u64], check: impl Fn(u64) + Sync) {
    let workers = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let run = std::panic::AssertUnwindSafe(|| check(*seed));
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        let said = panic.downcast_ref::<String>().map(String::as_str);
                        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
                        eprintln!("seed {seed} failed: run it alone with KEDGE_SEED={seed}\n{said}");
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn meant(random: &mut Random, stamp: u64, longest: usize) -> Meant {
    let mut keys: Vec<u64> = (0..KEYS).collect();
    let count = 1 + usize::try_from(random.below(3)).unwrap_or(0);
    (0..count)
        .map(|_| {
            let key = keys.swap_remove(usize::try_from(random.below(keys.len() as u64)).unwrap_or(0));
            // Values from nothing to several pages.
            let length = [0, 9, 300, longest][usize::try_from(random.below(4)).unwrap_or(0)];
            let value = [stamp.to_le_bytes().to_vec(), vec![b'x'; length]].concat();
            (format!("/k/{key}"), (!random.one_in(4)).then_some(value))
        })
        .collect()
}

fn ops(meant: &Meant) -> Vec<Op> {
    let op = |(key, value): &(String, Option<Vec<u8>>)| match value {
        Some(value) => Op::put(key.clone(), value.clone(), Expect::Anything),
        None => Op::delete(key.clone(), Expect::Anything),
    };
    meant.iter().map(op).collect()
}

/// Writes until the plan is through or the disk fails.
async fn load(store: &Embedded, disk: &Disk, random: &mut Random, known: &mut Known, stamp: &mut u64) {
    let watch = store.watch("/k/", known.told.last().map_or(0, |e| e.revision));
    let mut watch = watch.ok();
    // Enough to need more of the disk than a file has from the beginning.
    let longest = if disk.may_be_full() { 200_000 } else { 9000 };
    for round in 0..12 {
        let plans: Vec<Meant> = (0..WRITERS)
            .map(|_| {
                *stamp += 1;
                meant(random, *stamp, longest)
            })
            .collect();
        let answers = futures::future::join_all(plans.iter().map(|plan| store.txn(ops(plan)))).await;
        let mut failed = false;
        for (plan, answer) in plans.into_iter().zip(answers) {
            match answer {
                Ok(TxnResponse::Committed { revision }) => {
                    known.acknowledged.entry(revision).or_default().extend(plan);
                }
                Ok(conflict) => panic!("nothing was expected: {conflict:?}"),
                Err(_) => {
                    failed = true;
                    known.uncertain.push(plan);
                }
            }
        }
        if let Some(watch) = &mut watch
            && watch.progress() < store.revision()
            && let Ok(Ok(events)) = tokio::time::timeout(Duration::from_millis(50), watch.next()).await
        {
            known.told.extend(events);
        }
        if failed {
            return;
        }
        if round == 6 && random.one_in(3) {
            let whole = !disk.has_failed();
            match store.compact(store.revision()).await {
                Ok(_) => known.compacted = store.revision(),
                Err(_) => known.failed_compacting = whole && disk.has_failed(),
            }
        }
    }
}

/// All that a store tells of its history, and how far back that goes.
async fn history(store: &Embedded, from: Revision) -> Vec<Arc<Event>> {
    let mut from = from;
    let mut watch = loop {
        match store.watch("/k/", from) {
            Ok(watch) => break watch,
            Err(StoreError::Compacted { compacted, .. }) => from = compacted,
            Err(error) => panic!("{error}"),
        }
    };
    let mut events = Vec::new();
    while watch.progress() < store.revision() {
        match tokio::time::timeout(Duration::from_millis(20), watch.next()).await {
            Ok(batch) => events.extend(batch.expect("events")),
            Err(_) => break,
        }
    }
    events
}

fn content(meant: &Meant) -> BTreeMap<&str, Option<&[u8]>> {
    meant.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect()
}

async fn state(store: &Embedded) -> BTreeMap<String, Vec<u8>> {
    let request = RangeRequest { prefix: "/k/".into(), ..Default::default() };
    let range = store.range(request).await.expect("answers");
    range.entries.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect()
}

/// What was known holds of what is there now. Uncertain transactions that turn out to be there are certain then.
async fn check(store: &Embedded, known: &mut Known, seed: u64) {
    let events = history(store, 0).await;
    assert!(events.windows(2).all(|w| w[0].revision <= w[1].revision), "seed {seed}: out of order");
    let mut by_revision = BTreeMap::<Revision, Vec<&Event>>::new();
    for event in &events {
        by_revision.entry(event.revision).or_default().push(event);
    }
    let oldest = by_revision.keys().next().copied().unwrap_or(store.revision() + 1);
    // Whatever is there was meant, and is there whole.
    for (revision, events) in &by_revision {
        let there: BTreeMap<&str, Option<&[u8]>> =
            events.iter().map(|e| (&*e.entry.key, (!e.deleted).then_some(&*e.entry.value))).collect();
        assert_eq!(there.len(), events.len(), "seed {seed}: a key twice in revision {revision}");
        if !known.acknowledged.contains_key(revision) {
            let fits = |plan: &Meant| {
                let plan = content(plan);
                there.iter().all(|(key, value)| plan.get(key) == Some(value))
                    // Deleting what was not there makes no event.
                    && plan.iter().all(|(key, value)| value.is_none() || there.contains_key(key))
            };
            let at = known.uncertain.iter().position(fits);
            let at = at.unwrap_or_else(|| panic!("seed {seed}: revision {revision} is nobody's: {there:?}"));
            let plan = known.uncertain.swap_remove(at);
            known.acknowledged.insert(*revision, plan);
        }
    }
    known.uncertain.clear();
    // Replayed in revision order, what was acknowledged makes what is there.
    let mut replayed = BTreeMap::new();
    for (revision, plan) in &known.acknowledged {
        for (key, value) in plan {
            let changed = match value {
                Some(value) => {
                    replayed.insert(key.clone(), value.clone());
                    true
                }
                None => replayed.remove(key).is_some(),
            };
            let event =
                by_revision.get(revision).and_then(|events| events.iter().find(|e| *e.entry.key == **key));
            if *revision >= oldest && changed {
                let event =
                    event.unwrap_or_else(|| panic!("seed {seed}: revision {revision} of {key} is lost"));
                assert_eq!(event.deleted, value.is_none(), "seed {seed}: revision {revision} of {key}");
            }
        }
    }
    assert_eq!(state(store).await, replayed, "seed {seed}: replayed in revision order");
    assert!(known.acknowledged.keys().all(|r| *r <= store.revision()), "seed {seed}: a revision is lost");
    check_watcher(store, known, &events, seed);
}

/// What a watcher was told before the crash and is told after it is one story.
fn check_watcher(store: &Embedded, known: &Known, events: &[Arc<Event>], seed: u64) {
    let told = |events: &[Arc<Event>]| -> Vec<(Revision, String, bool)> {
        events.iter().map(|e| (e.revision, e.entry.key.to_string(), e.deleted)).collect()
    };
    assert!(known.told.windows(2).all(|w| w[0].revision <= w[1].revision), "seed {seed}: told out of order");
    let first = events.first().map_or(store.revision() + 1, |e| e.revision);
    let before: Vec<_> = told(&known.told).into_iter().filter(|(revision, ..)| *revision >= first).collect();
    let all = told(events);
    // Everything that it was told is still true, with nothing in between that it was not told.
    let last = known.told.last().map_or(0, |e| e.revision);
    let until: Vec<_> = all.into_iter().filter(|(revision, ..)| *revision <= last).collect();
    let begun = known.told.first().map_or(0, |e| e.revision);
    let until: Vec<_> = until.into_iter().filter(|(revision, ..)| *revision >= begun).collect();
    assert_eq!(before, until, "seed {seed}: the watcher's story");
}

/// What goes wrong with a file of this size, while it is opened or afterwards.
fn fault(random: &mut Random, recovering: bool, size: usize) -> Fault {
    let after = random.below(if recovering { 12 } else { 160 });
    match random.below(7) {
        0..=2 => Fault::Crash { after },
        3 => Fault::Once { after, error: ErrorKind::Other },
        4 => Fault::Once { after, error: ErrorKind::StorageFull },
        5 => Fault::Unreadable { after: random.below(8) },
        _ if recovering => Fault::None,
        _ => Fault::Full { at_bytes: size + usize::try_from(random.below(1 << 17)).unwrap_or(0) },
    }
}

/// What went wrong in all runs, and when: a fault whose turn never comes shows nothing.
#[derive(Default)]
struct Fired(parking_lot::Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Fired {
    fn count(&self, fault: Fault, when: &'static str) {
        *self.0.lock().entry((fault.name(), when)).or_default() += 1;
    }

    /// Of a thousand runs each kind comes often, at work and where it can also while a store is opened or compacts.
    fn check(self, seeds: usize) {
        let fired = self.0.into_inner();
        for ((fault, when), times) in &fired {
            eprintln!("{times:6} × {fault} {when}");
        }
        let times = |fault, when| fired.get(&(fault, when)).copied().unwrap_or_default();
        for fault in ["crash", "failed write or sync", "no space, once", "failed read"] {
            for when in [OPENING, WORKING] {
                assert!(seeds < 1000 || times(fault, when) >= 20, "{fault} {when}: {}", times(fault, when));
            }
        }
        assert!(seeds < 1000 || times("full", WORKING) >= 100, "full: {}", times("full", WORKING));
        assert!(seeds < 1000 || times("crash", COMPACTING) >= 3, "{}", times("crash", COMPACTING));
    }
}

const OPENING: &str = "while it opens";
const WORKING: &str = "at work";
const COMPACTING: &str = "while it compacts";

#[test]
fn nothing_acknowledged_is_lost_on_a_faulty_disk() {
    let fired = Fired::default();
    let crashes = std::sync::atomic::AtomicU64::new(0);
    for_each_seed(&seeds(), |seed| {
        let runtime = runtime();
        let mut random = Random(seed);
        let (mut known, mut stamp) = (Known::default(), 0);
        let (mut image, mut made) = (Vec::new(), false);
        for life in 0..4 {
            // The last life has a good disk, so that every story comes to an end; opening may crash as well.
            let recovering = life > 0 && random.one_in(2);
            let fault = if life == 3 { Fault::None } else { fault(&mut random, recovering, image.len()) };
            // A disk that is full or does not read, when it does so only once the store is at work.
            let is_later = !recovering && matches!(fault, Fault::Full { .. } | Fault::Unreadable { .. });
            let disk = Disk::new(image.clone(), if is_later { Fault::None } else { fault });
            let opened = Embedded::open_on(disk.clone(), "the disk", options(&mut random));
            let opening_failed = disk.has_failed();
            if is_later {
                disk.fail(fault.beyond(disk.content().len().saturating_sub(image.len())));
            }
            if opening_failed {
                fired.count(fault, OPENING);
            }
            match opened {
                Ok(store) => runtime.block_on(async {
                    made = true;
                    check(&store, &mut known, seed).await;
                    known.failed_compacting = false;
                    load(&store, &disk, &mut random, &mut known, &mut stamp).await;
                }),
                Err(error) => {
                    assert_ne!(fault, Fault::None, "seed {seed}: a good disk does not open: {error}");
                    let damaged = matches!(error, StoreError::Damaged { .. });
                    assert!(!damaged || fault_is_of_io(fault), "seed {seed}: {error}");
                }
            }
            if !opening_failed && disk.has_failed() {
                fired.count(fault, if known.failed_compacting { COMPACTING } else { WORKING });
            }
            crashes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // A file has its name only once it has been made.
            image = if made { disk.after_crash(&mut random) } else { Vec::new() };
        }
        let store = Embedded::open_on(Disk::new(image, Fault::None), "the disk", options(&mut random));
        let store = store.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        runtime.block_on(check(&store, &mut known, seed));
    });
    eprintln!("{} lives of stores", crashes.into_inner());
    fired.check(seeds().len());
}

/// A disk that fails while it is opened may be told as unreadable; what it holds is looked at again afterwards.
fn fault_is_of_io(fault: Fault) -> bool {
    !matches!(fault, Fault::None)
}

/// A store with some history, closed well; its image and its state.
fn closed_store(random: &mut Random) -> (Vec<u8>, BTreeMap<String, Vec<u8>>, Revision) {
    let disk = Disk::new(Vec::new(), Fault::None);
    let store = Embedded::open_on(disk.clone(), "the disk", options(random)).expect("opens");
    let (mut known, mut stamp) = (Known::default(), 0);
    let (state, revision) = runtime().block_on(async {
        load(&store, &disk, random, &mut known, &mut stamp).await;
        (state(&store).await, store.revision())
    });
    drop(store);
    (disk.content(), state, revision)
}

/// Opens an image that somebody has tampered with: it is as it was, or it is refused with what to do.
fn refused_or_whole(
    disk: Disk,
    state_before: &BTreeMap<String, Vec<u8>>,
    revision: Revision,
    what: &str,
) -> bool {
    let options = EmbeddedOptions { on_fault: OnFault::Close, ..Default::default() };
    match Embedded::open_on(disk, "the disk", options) {
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("restore a backup"), "{what}: no remedy in {text:?}");
            true
        }
        Ok(store) => {
            assert_eq!(store.revision(), revision, "{what}: the revision");
            assert_eq!(&runtime().block_on(state(&store)), state_before, "{what}: the content");
            false
        }
    }
}

#[test]
fn damage_is_refused_or_harmless() {
    let refused = std::sync::atomic::AtomicU64::new(0);
    // What the database says of itself when it breaks off is ours to tell, not its.
    std::panic::set_hook(Box::new(|info| {
        if std::thread::current().name().is_some_and(|name| name == "main")
            || info.location().is_some_and(|l| l.file().contains("durability"))
        {
            eprintln!("{info}");
        }
    }));
    let seeds = seeds();
    // Four damages each.
    let seeds = &seeds[..seeds.len().div_ceil(4)];
    for_each_seed(seeds, |seed| {
        let mut random = Random(seed ^ 0x0dd5_eed5);
        let (image, state, revision) = closed_store(&mut random);
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        for _ in 0..4 {
            let mut damaged = image.clone();
            let mut fault = Fault::None;
            let what = match random.below(6) {
                0 => {
                    let length = usize::try_from(random.below(image.len() as u64)).unwrap_or(0);
                    damaged.truncate(length);
                    format!("seed {seed}: truncated to {length}")
                }
                1 => {
                    let at = usize::try_from(random.below(image.len() as u64 / 512)).unwrap_or(0) * 512;
                    let end = (at + 512).min(damaged.len());
                    damaged[at..end].fill(0);
                    format!("seed {seed}: sector at {at} zeroed")
                }
                2 => {
                    let by = 1 + i64::try_from(random.below(1 << 16)).unwrap_or(0);
                    let by = if random.one_in(2) { by } else { -by };
                    fault = Fault::Lies { by };
                    format!("seed {seed}: the length is a lie by {by}")
                }
                _ => {
                    let at = used[usize::try_from(random.below(used.len() as u64)).unwrap_or(0)];
                    let bit = random.below(8);
                    damaged[at] ^= 1 << bit;
                    format!("seed {seed}: bit {bit} of byte {at} flipped")
                }
            };
            if refused_or_whole(Disk::new(damaged, fault), &state, revision, &what) {
                refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    let refused = refused.into_inner();
    eprintln!("{refused} of {} damaged files were refused, the others held all they had", seeds.len() * 4);
    assert!(refused > 0 || seeds.len() < 10);
}
