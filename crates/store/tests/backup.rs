//! Backups between all engines: what was taken is what is there afterwards, and what is not whole is refused.

mod engines;

use std::collections::BTreeMap;

use engines::{Engine, World};
use store::backup::{self, BackupError, Reader};
use store::{Change, Embedded, EmbeddedOptions, Expect, Op, RangeRequest, Store, StoreError, TxnResponse};

async fn fill(store: &dyn Store) {
    let lease = store.lease_grant(500).await.expect("grants");
    for n in 0..1200_u32 {
        let lease = (n % 100 == 0).then_some(lease);
        let change = Change::Put { value: format!("value {n}").into(), lease };
        let op = Op { key: format!("/registry/k/{}", n % 700), expect: Expect::Anything, change };
        let answer = store.txn(vec![op]).await.expect("answers");
        assert!(matches!(answer, TxnResponse::Committed { .. }));
    }
    store.txn(vec![Op::delete("/registry/k/5", Expect::Present)]).await.expect("deletes");
    let pair = vec![Op::create("/registry/pair/a", "1"), Op::create("/registry/pair/b", "2")];
    store.txn(pair).await.expect("creates");
}

async fn content(store: &dyn Store) -> BTreeMap<String, (Vec<u8>, bool)> {
    let range = store.range(RangeRequest::default()).await.expect("answers");
    range.entries.into_iter().map(|e| (e.key.to_string(), (e.value.to_vec(), e.lease.is_some()))).collect()
}

async fn taken(store: &dyn Store) -> Vec<u8> {
    let mut out = Vec::new();
    let summary = backup::write(store, &mut out).await.expect("is taken");
    assert_eq!((summary.entries, summary.bytes), (701, out.len() as u64));
    out
}

#[tokio::test]
async fn whatever_is_taken_from_one_is_given_to_another() {
    for from in [Engine::Embedded, Engine::Etcd] {
        let source = World::new(from).await;
        fill(&*source.store()).await;
        let bytes = taken(&*source.store()).await;
        for to in [Engine::Embedded, Engine::Etcd] {
            let target = World::new(to).await;
            let mut reader = Reader::open(&bytes[..]).await.expect("is a backup");
            let summary = backup::restore(&mut reader, &*target.store()).await.expect("is restored");
            assert_eq!(summary.entries, 701, "{from:?} to {to:?}");
            assert_eq!(
                content(&*target.store()).await,
                content(&*source.store()).await,
                "{from:?} to {to:?}"
            );
            let mut reader = Reader::open(&bytes[..]).await.expect("is a backup");
            match backup::restore(&mut reader, &*target.store()).await {
                Err(BackupError::NotEmpty { count: 701 }) => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(backup::clear(&*target.store()).await.expect("is cleared"), 701);
            assert_eq!(target.store().count("").await.expect("answers"), 0);
        }
    }
}

#[tokio::test]
async fn a_restored_file_goes_on_where_the_other_was() {
    let source = World::new(Engine::Embedded).await;
    fill(&*source.store()).await;
    let bytes = taken(&*source.store()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let mut reader = Reader::open(&bytes[..]).await.expect("is a backup");
    backup::restore_file(&mut reader, &path).await.expect("is restored");
    let store = Embedded::open(&path, EmbeddedOptions::default()).expect("opens");
    let was = source.store();
    assert_eq!(store.revision(), was.revision());
    for key in ["/registry/k/7", "/registry/pair/b"] {
        let (now, before) =
            (store.get(key).await.expect("answers").0, was.get(key).await.expect("answers").0);
        let told =
            |e: Option<store::Entry>| e.map(|e| (e.value, e.create_revision, e.mod_revision, e.version));
        assert_eq!(told(now), told(before), "{key}");
    }
    assert_eq!(content(&store).await, content(&*was).await);
    let watch = store.watch("/", was.revision() - 1);
    assert!(matches!(watch, Err(StoreError::Compacted { .. })), "what was before is not known");
    let mut reader = Reader::open(&bytes[..]).await.expect("is a backup");
    let again = backup::restore_file(&mut reader, &path).await;
    assert!(matches!(again, Err(BackupError::Exists { .. })), "over nothing that is there");
}

#[tokio::test]
async fn only_what_differs_is_written_again() {
    for (from, to) in [(Engine::Embedded, Engine::Etcd), (Engine::Etcd, Engine::Embedded)] {
        let (source, target) = (World::new(from).await, World::new(to).await);
        let update = async || {
            let mut bytes = Vec::new();
            backup::write(&*source.store(), &mut bytes).await.expect("is taken");
            let mut reader = Reader::open(&bytes[..]).await.expect("is a backup");
            backup::update(&mut reader, &*target.store()).await.expect("is given").entries
        };
        fill(&*source.store()).await;
        assert_eq!(update().await, 701);
        assert_eq!(update().await, 0);
        let ops = vec![
            Op::put("/registry/k/1", "other", Expect::Present),
            Op::create("/registry/new", "x"),
            Op::delete("/registry/k/2", Expect::Present),
        ];
        source.store().txn(ops).await.expect("changes");
        target.store().txn(vec![Op::create("/registry/own", "x")]).await.expect("changes");
        assert_eq!(update().await, 4, "{from:?} to {to:?}");
        assert_eq!(content(&*target.store()).await, content(&*source.store()).await);
    }
}

async fn read_all(bytes: &[u8]) -> Result<u64, BackupError> {
    let mut reader = Reader::open(bytes).await?;
    let mut count = 0;
    while reader.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

#[tokio::test]
async fn what_is_not_whole_is_refused() {
    let source = World::new(Engine::Embedded).await;
    fill(&*source.store()).await;
    let bytes = taken(&*source.store()).await;
    assert_eq!(read_all(&bytes).await.expect("is whole"), 701);
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(read_all(&bytes[..length]).await.is_err(), "cut off at {length}");
    }
    for at in (0..bytes.len()).step_by(131) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        // The time at which it was taken is under the head's checksum as well.
        assert!(read_all(&damaged).await.is_err(), "damaged at {at}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(read_all(&longer).await, Err(BackupError::Damaged(_))));
    assert!(matches!(read_all(b"something else").await, Err(BackupError::Magic)));
    // A record left out, with all checksums right.
    let first = 32 + 8 + u32::from_le_bytes(bytes[32..36].try_into().expect("four bytes")) as usize;
    let without = [&bytes[..32], &bytes[first..]].concat();
    assert!(matches!(read_all(&without).await, Err(BackupError::Damaged(_))));
    // A restore that fails leaves no file.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let mut reader = Reader::open(&bytes[..bytes.len() / 2]).await.expect("a head");
    let failed = backup::restore_file(&mut reader, &path).await;
    assert!(matches!(failed, Err(BackupError::CutOff { .. })) && !path.exists());
}

#[tokio::test]
async fn a_running_store_verifies_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let store = Embedded::open(&path, EmbeddedOptions::default()).expect("opens");
    fill(&store).await;
    let checked = store.verify().await.expect("is whole");
    assert!(checked >= 701, "{checked}");
}
