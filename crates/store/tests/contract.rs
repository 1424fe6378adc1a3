//! The promises of [`store::Store`], as one suite that every engine must pass: the embedded one, and etcd's on a real
//! etcd.

mod engines;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engines::{Engine, World};
use proptest::prelude::*;
use store::{Change, Expect, Op, RangeRequest, Store, StoreError, TxnResponse};

async fn committed(store: &dyn Store, op: Op) -> u64 {
    match store.txn(vec![op]).await.expect("answers") {
        TxnResponse::Committed { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

fn below(prefix: &str) -> RangeRequest {
    RangeRequest { prefix: prefix.into(), ..Default::default() }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 20 s"),
    }
}

/// Each promise once for each engine.
macro_rules! promises {
    ($($promise:ident,)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::World::new(super::Engine::Embedded).await).await;
            })*

            #[test]
            fn agrees_with_a_model() {
                super::agrees_with_a_model(super::Engine::Embedded);
            }
        }

        mod etcd {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(super::World::new(super::Engine::Etcd).await).await;
            })*

            #[test]
            fn agrees_with_a_model() {
                super::agrees_with_a_model(super::Engine::Etcd);
            }
        }
    };
}

promises! {
    compare_and_swap_lets_one_writer_through,
    a_transaction_is_all_or_nothing_under_one_revision,
    what_was_expected_is_told_where_it_was_not_so,
    limits_are_told,
    pages_read_one_snapshot,
    a_watch_sees_every_change_once_in_order_and_resumes,
    a_watch_knows_what_was_before,
    writes_are_seen_at_once,
    what_was_compacted_is_refused,
    a_lease_takes_its_keys_along,
    a_lease_is_kept_alive_and_revoked,
}

async fn compare_and_swap_lets_one_writer_through(world: World) {
    let store = world.store();
    let first = committed(&*store, Op::create("/a", "0")).await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..32 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let op = Op::put("/a", format!("{n}"), Expect::At(first));
            matches!(store.txn(vec![op]).await, Ok(TxnResponse::Committed { .. }))
        });
    }
    let won = writers.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    match store.txn(vec![Op::create("/a", "again")]).await.expect("answers") {
        TxnResponse::Conflict { key, current, .. } => {
            assert_eq!((key.as_str(), current.map(|c| c.version)), ("/a", Some(2)));
        }
        other => panic!("{other:?}"),
    }
}

async fn a_transaction_is_all_or_nothing_under_one_revision(world: World) {
    let store = world.store();
    let before = store.revision();
    let ops = vec![Op::create("/a", "1"), Op::create("/b", "2")];
    assert!(
        matches!(store.txn(ops).await, Ok(TxnResponse::Committed { revision }) if revision == before + 1)
    );
    let ops = vec![Op::delete("/a", Expect::Present), Op::create("/b", "3")];
    assert!(matches!(store.txn(ops).await, Ok(TxnResponse::Conflict { .. })));
    assert_eq!(store.range(below("/")).await.expect("answers").entries.len(), 2);
    assert_eq!(store.revision(), before + 1);
    // What changes nothing has no revision of its own.
    let nothing = Op { key: "/a".into(), expect: Expect::Present, change: Change::Nothing };
    let ops = vec![nothing, Op::delete("/none", Expect::Anything)];
    assert!(
        matches!(store.txn(ops).await, Ok(TxnResponse::Committed { revision }) if revision == before + 1)
    );
}

async fn what_was_expected_is_told_where_it_was_not_so(world: World) {
    let store = world.store();
    committed(&*store, Op::create("/held", "1")).await;
    let check = |key: &str, expect| Op { key: key.into(), expect, change: Change::Nothing };
    for (key, expect, holds) in [
        ("/held", Expect::Anything, true),
        ("/held", Expect::Present, true),
        ("/held", Expect::Absent, false),
        ("/held", Expect::At(1 << 40), false),
        ("/free", Expect::Anything, true),
        ("/free", Expect::Present, false),
        ("/free", Expect::Absent, true),
        ("/free", Expect::At(1), false),
    ] {
        // The first expectation holds, so that what is told is the other.
        let ops = vec![check("/held", Expect::Present), check(key, expect), Op::create("/new", "x")];
        match store.txn(ops).await.expect("answers") {
            TxnResponse::Committed { revision } => {
                assert!(holds, "{key} {expect:?}");
                committed(&*store, Op::delete("/new", Expect::At(revision))).await;
            }
            TxnResponse::Conflict { key: told, current, .. } => {
                assert!(!holds, "{key} {expect:?}");
                assert_eq!((told.as_str(), current.is_some()), (key, key == "/held"));
            }
        }
    }
}

async fn limits_are_told(world: World) {
    let store = world.store();
    let long = format!("/{}", "k".repeat(5000));
    assert!(matches!(store.txn(vec![Op::create(long, "x")]).await, Err(StoreError::KeyTooLong { .. })));
    let large = Op::create("/large", vec![0_u8; 2 << 20]);
    assert!(matches!(store.txn(vec![large]).await, Err(StoreError::ValueTooLarge { .. })));
    committed(&*store, Op::create("/fits", vec![1_u8; 1 << 20])).await;
    let (entry, _) = store.get("/fits").await.expect("answers");
    assert_eq!(entry.map(|e| e.value.len()), Some(1 << 20));
}

async fn pages_read_one_snapshot(world: World) {
    let store = world.store();
    for n in 0..10 {
        committed(&*store, Op::create(format!("/p/{n}"), "x")).await;
    }
    let first = store.range(RangeRequest { limit: 4, ..below("/p/") }).await.expect("answers");
    assert_eq!((first.entries.len(), first.remaining), (4, 6));
    committed(&*store, Op::delete("/p/5", Expect::Present)).await;
    committed(&*store, Op::create("/p/99", "late")).await;
    let after = first.entries.last().map(|e| e.key.to_string());
    let rest = RangeRequest { after, revision: Some(first.revision), ..below("/p/") };
    let rest = store.range(rest).await.expect("answers");
    let keys: Vec<&str> = rest.entries.iter().map(|e| &*e.key).collect();
    assert_eq!(keys, ["/p/4", "/p/5", "/p/6", "/p/7", "/p/8", "/p/9"]);
}

async fn a_watch_sees_every_change_once_in_order_and_resumes(mut world: World) {
    let store = world.store();
    let start = store.revision();
    let mut watch = store.watch("/w/", start).expect("watches");
    for n in 0..50 {
        committed(&*store, Op::put(format!("/w/{}", n % 7), format!("{n}"), Expect::Anything)).await;
        committed(&*store, Op::put("/other", "x", Expect::Anything)).await;
    }
    committed(&*store, Op::delete("/w/3", Expect::Present)).await;
    let mut seen = Vec::new();
    while seen.len() < 51 {
        seen.extend(soon("events", watch.next()).await.expect("events"));
    }
    assert!(seen.windows(2).all(|w| w[0].revision < w[1].revision));
    let last = seen.last().expect("the deletion");
    assert!(last.deleted && &*last.entry.key == "/w/3");
    let mut resumed = store.watch("/w/", seen[20].revision).expect("resumes");
    let again = soon("events", resumed.next()).await.expect("events");
    assert_eq!(again[0].revision, seen[21].revision);
    drop((store, watch, resumed));
    world.reopen().await;
    let mut resumed = world.store().watch("/w/", seen[20].revision).expect("resumes after a restart");
    let mut again = Vec::new();
    while again.len() < 30 {
        again.extend(soon("events", resumed.next()).await.expect("events"));
    }
    let told = |events: &[Arc<store::Event>]| -> Vec<_> {
        events.iter().map(|e| (e.revision, e.entry.clone(), e.previous.clone(), e.deleted)).collect()
    };
    assert_eq!(told(&again), told(&seen[21..]));
}

async fn a_watch_knows_what_was_before(world: World) {
    let store = world.store();
    let mut watch = store.watch("/", store.revision()).expect("watches");
    let first = committed(&*store, Op::create("/b", "1")).await;
    let second = committed(&*store, Op::put("/b", "2", Expect::Present)).await;
    let third = committed(&*store, Op::delete("/b", Expect::Present)).await;
    let fourth = committed(&*store, Op::create("/b", "3")).await;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(soon("events", watch.next()).await.expect("events"));
    }
    let told: Vec<_> = seen
        .iter()
        .map(|e| {
            let text = |v: &store::Entry| String::from_utf8_lossy(&v.value).into_owned();
            (e.revision, text(&e.entry), e.entry.version, e.previous.as_ref().map(text), e.deleted)
        })
        .collect();
    assert_eq!(
        told,
        [
            (first, "1".into(), 1, None, false),
            (second, "2".into(), 2, Some("1".into()), false),
            (third, "2".into(), 2, Some("2".into()), true),
            (fourth, "3".into(), 1, None, false),
        ]
    );
    assert_eq!(seen[3].entry.create_revision, fourth);
    assert!(watch.progress() >= fourth);
}

async fn writes_are_seen_at_once(world: World) {
    let store = world.store();
    for n in 0..20_u64 {
        let revision = committed(&*store, Op::put("/s", n.to_string(), Expect::Anything)).await;
        assert!(store.revision() >= revision);
        let (entry, at) = store.get("/s").await.expect("answers");
        assert_eq!(entry.map(|e| (e.mod_revision, e.version)), Some((revision, n + 1)));
        assert!(at >= revision);
    }
    assert_eq!(store.count("/s").await.expect("answers"), 1);
}

async fn what_was_compacted_is_refused(mut world: World) {
    let store = world.store();
    let old = committed(&*store, Op::create("/c", "1")).await;
    let new = committed(&*store, Op::put("/c", "2", Expect::Anything)).await;
    store.compact(new).await.expect("compacts");
    let request = RangeRequest { revision: Some(old), ..below("/c") };
    assert!(matches!(store.range(request).await, Err(StoreError::Compacted { .. })));
    let request = RangeRequest { revision: Some(new + 9), ..below("/c") };
    assert!(matches!(store.range(request).await, Err(StoreError::FutureRevision { .. })));
    assert!(matches!(store.compact(new + 9).await, Err(StoreError::FutureRevision { .. })));
    store.compact(old).await.expect("it has been already");
    drop(store);
    world.reopen().await;
    let store = world.store();
    assert!(matches!(store.watch("/c", old), Err(StoreError::Compacted { .. })));
    assert_eq!(store.range(below("/c")).await.expect("answers").entries[0].value, "2");
}

fn leased(key: &str, lease: u64) -> Op {
    Op {
        key: key.into(),
        expect: Expect::Anything,
        change: Change::Put { value: "x".into(), lease: Some(lease) },
    }
}

async fn a_lease_takes_its_keys_along(world: World) {
    let store = world.store();
    let mut watch = store.watch("/l/", store.revision()).expect("watches");
    let lease = store.lease_grant(1).await.expect("grants");
    committed(&*store, leased("/l/a", lease)).await;
    committed(&*store, Op::create("/l/kept", "x")).await;
    let mut seen = 0;
    loop {
        let events = soon("the expiry", watch.next()).await.expect("events");
        seen += events.len();
        if events.iter().any(|e| e.deleted) {
            break;
        }
    }
    assert_eq!(seen, 3);
    assert!(matches!(store.txn(vec![leased("/l/b", lease)]).await, Err(StoreError::UnknownLease(_))));
    assert_eq!(store.count("/l/").await.expect("answers"), 1);
}

async fn a_lease_is_kept_alive_and_revoked(world: World) {
    let store = world.store();
    let lease = store.lease_grant(100).await.expect("grants");
    committed(&*store, leased("/l/a", lease)).await;
    assert_eq!(store.get("/l/a").await.expect("answers").0.and_then(|e| e.lease), Some(lease));
    store.lease_keep_alive(lease).await.expect("is kept");
    store.lease_revoke(lease).await.expect("is revoked");
    assert_eq!(store.count("/l/").await.expect("answers"), 0);
    assert!(matches!(store.lease_keep_alive(lease).await, Err(StoreError::UnknownLease(_))));
    assert!(matches!(store.lease_revoke(lease).await, Err(StoreError::UnknownLease(_))));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6u8, any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        3 => (0..6u8).prop_map(Step::Delete),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Against a plain map: contents, revisions and what the history says at each past revision.
fn agrees_with_a_model(engine: Engine) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut world = runtime.block_on(World::new(engine));
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let world = std::cell::RefCell::new(&mut world);
    let result = runner.run(&steps(), |steps| runtime.block_on(one_model(&mut world.borrow_mut(), steps)));
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn one_model(world: &mut World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    // Each case in a folder of its own, from where the last has left the store.
    let folder = format!("/m{}/", world.store().revision());
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut history = vec![(world.store().revision(), model.clone())];
    for step in steps {
        match step {
            Step::Put(k, v) => {
                let key = format!("{folder}{k}");
                committed(&*world.store(), Op::put(key.clone(), vec![v], Expect::Anything)).await;
                model.insert(key, vec![v]);
            }
            Step::Delete(k) => {
                let key = format!("{folder}{k}");
                committed(&*world.store(), Op::delete(key.clone(), Expect::Anything)).await;
                model.remove(&key);
            }
            Step::Reopen => world.reopen().await,
        }
        history.push((world.store().revision(), model.clone()));
    }
    for (revision, then) in history {
        let request = RangeRequest { revision: Some(revision), ..below(&folder) };
        let got = world.store().range(request).await.expect("answers");
        let got: BTreeMap<_, _> =
            got.entries.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect();
        prop_assert_eq!(got, then, "at revision {}", revision);
    }
    Ok(())
}
