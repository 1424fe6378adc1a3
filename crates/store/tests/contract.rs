//! The promises of [`store::Store`], as one suite that every engine must pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use store::{Change, Embedded, EmbeddedOptions, Expect, Op, RangeRequest, Store, StoreError, TxnResponse};

fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(&dir.path().join("state.redb"), EmbeddedOptions::default()).expect("opens")
}

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

#[tokio::test]
async fn compare_and_swap_lets_one_writer_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(&dir));
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

#[tokio::test]
async fn a_transaction_is_all_or_nothing_under_one_revision() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    let before = store.revision();
    let ops = vec![Op::create("/a", "1"), Op::create("/b", "2")];
    assert!(
        matches!(store.txn(ops).await, Ok(TxnResponse::Committed { revision }) if revision == before + 1)
    );
    let ops = vec![Op::delete("/a", Expect::Present), Op::create("/b", "3")];
    assert!(matches!(store.txn(ops).await, Ok(TxnResponse::Conflict { .. })));
    assert_eq!(store.range(below("/")).await.expect("answers").entries.len(), 2);
    assert_eq!(store.revision(), before + 1);
}

#[tokio::test]
async fn pages_read_one_snapshot() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    for n in 0..10 {
        committed(&store, Op::create(format!("/p/{n}"), "x")).await;
    }
    let first = store.range(RangeRequest { limit: 4, ..below("/p/") }).await.expect("answers");
    assert_eq!((first.entries.len(), first.remaining), (4, 6));
    committed(&store, Op::delete("/p/5", Expect::Present)).await;
    committed(&store, Op::create("/p/99", "late")).await;
    let after = first.entries.last().map(|e| e.key.to_string());
    let rest = RangeRequest { after, revision: Some(first.revision), ..below("/p/") };
    let rest = store.range(rest).await.expect("answers");
    let keys: Vec<&str> = rest.entries.iter().map(|e| &*e.key).collect();
    assert_eq!(keys, ["/p/4", "/p/5", "/p/6", "/p/7", "/p/8", "/p/9"]);
}

#[tokio::test]
async fn a_watch_sees_every_change_once_in_order_and_resumes() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    let start = store.revision();
    let mut watch = store.watch("/w/", start).expect("watches");
    for n in 0..50 {
        committed(&store, Op::put(format!("/w/{}", n % 7), format!("{n}"), Expect::Anything)).await;
        committed(&store, Op::put("/other", "x", Expect::Anything)).await;
    }
    committed(&store, Op::delete("/w/3", Expect::Present)).await;
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
}

#[tokio::test]
async fn what_was_compacted_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    let old = committed(&store, Op::create("/c", "1")).await;
    let new = committed(&store, Op::put("/c", "2", Expect::Anything)).await;
    store.compact(new).await.expect("compacts");
    let request = RangeRequest { revision: Some(old), ..below("/c") };
    assert!(matches!(store.range(request).await, Err(StoreError::Compacted { .. })));
    let request = RangeRequest { revision: Some(new + 9), ..below("/c") };
    assert!(matches!(store.range(request).await, Err(StoreError::FutureRevision { .. })));
    assert!(matches!(store.compact(new + 9).await, Err(StoreError::FutureRevision { .. })));
    drop(store);
    let store = open(&dir);
    assert!(matches!(store.watch("/c", old), Err(StoreError::Compacted { .. })));
    assert_eq!(store.range(below("/c")).await.expect("answers").entries[0].value, "2");
}

#[tokio::test]
async fn a_lease_takes_its_keys_along() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    let mut watch = store.watch("/l/", store.revision()).expect("watches");
    let lease = store.lease_grant(1).await.expect("grants");
    let op = |key: &str, lease| Op {
        key: key.into(),
        expect: Expect::Anything,
        change: Change::Put { value: "x".into(), lease: Some(lease) },
    };
    committed(&store, op("/l/a", lease)).await;
    committed(&store, Op::create("/l/kept", "x")).await;
    let mut seen = 0;
    loop {
        let events = soon("the expiry", watch.next()).await.expect("events");
        seen += events.len();
        if events.iter().any(|e| e.deleted) {
            break;
        }
    }
    assert_eq!(seen, 3);
    assert!(matches!(store.txn(vec![op("/l/b", lease)]).await, Err(StoreError::UnknownLease(_))));
    assert_eq!(store.count("/l/").await.expect("answers"), 1);
}

#[tokio::test]
async fn a_damaged_record_refuses_to_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state.redb");
    let store = open(&dir);
    committed(&store, Op::create("/d", "a-value-to-be-damaged")).await;
    drop(store);
    let mut file = std::fs::read(&path).expect("reads");
    let needle = b"a-value-to-be-damaged";
    let at = file.windows(needle.len()).position(|w| w == needle).expect("is in the file");
    file[at] ^= 1;
    std::fs::write(&path, file).expect("writes");
    match Embedded::open(&path, EmbeddedOptions::default()) {
        Err(StoreError::Damaged { detail, .. }) => assert!(detail.contains("checksum"), "{detail}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn an_emptied_file_does_not_pass_for_a_new_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state.redb");
    std::fs::write(&path, "").expect("written");
    assert!(matches!(Embedded::open(&path, EmbeddedOptions::default()), Err(StoreError::Damaged { .. })));
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Against a plain map: contents, revisions and what the history says at each past revision.
    #[test]
    fn agrees_with_a_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a folder");
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut history = vec![(0, model.clone())];
        let mut store = open(&dir);
        for step in steps {
            match step {
                Step::Put(k, v) => {
                    let key = format!("/m/{k}");
                    runtime.block_on(committed(&store, Op::put(key.clone(), vec![v], Expect::Anything)));
                    model.insert(key, vec![v]);
                }
                Step::Delete(k) => {
                    let key = format!("/m/{k}");
                    runtime.block_on(committed(&store, Op::delete(key.clone(), Expect::Anything)));
                    model.remove(&key);
                }
                Step::Reopen => {
                    drop(store);
                    store = open(&dir);
                }
            }
            history.push((store.revision(), model.clone()));
        }
        for (revision, then) in history {
            let request = RangeRequest { revision: Some(revision), ..below("/m/") };
            let got = runtime.block_on(store.range(request)).expect("answers");
            let got: BTreeMap<_, _> = got.entries.into_iter().map(|e| (e.key.to_string(), e.value.to_vec())).collect();
            prop_assert_eq!(got, then, "at revision {}", revision);
        }
    }
}
