//! A file of the embedded engine that is not what was written refuses to be opened, and says what to do.

use store::{Embedded, EmbeddedOptions, Expect, Op, Store, StoreError};

fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(&dir.path().join("state.redb"), EmbeddedOptions::default()).expect("opens")
}

#[tokio::test]
async fn a_damaged_record_refuses_to_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state.redb");
    let store = open(&dir);
    store.txn(vec![Op::put("/d", "a-value-to-be-damaged", Expect::Absent)]).await.expect("answers");
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

const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
const LEASES: redb::TableDefinition<'_, u64, (u64, u64)> = redb::TableDefinition::new("leases");

/// Changes something beside the store, as a disk might.
fn change(dir: &tempfile::TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(dir.path().join("state.redb")).expect("opens");
    let txn = database.begin_write().expect("a transaction");
    change(&txn);
    txn.commit().expect("is committed");
}

fn is_damaged(dir: &tempfile::TempDir) -> bool {
    let opened = Embedded::open(&dir.path().join("state.redb"), EmbeddedOptions::default());
    matches!(opened, Err(StoreError::Damaged { .. }))
}

/// A file of before there was a sum, and one of when there was a sum of all records.
#[tokio::test]
async fn a_file_of_before_is_opened_and_gets_its_sum() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    store.txn(vec![Op::create("/d", "1")]).await.expect("answers");
    drop(store);
    let without = |key: &'static str| {
        change(&dir, |txn| {
            assert!(txn.open_table(META).expect("a table").remove(key).expect("removed").is_some());
        });
    };
    without("whole");
    let store = open(&dir);
    store.txn(vec![Op::create("/e", "2")]).await.expect("answers");
    assert_eq!(store.count("/").await.expect("answers"), 2);
    drop(store);
    assert_eq!(open(&dir).count("/").await.expect("answers"), 2);
    // With one that is not its sum, something is missing.
    change(&dir, |txn| {
        txn.open_table(META).expect("a table").insert("sum", 7).expect("written");
    });
    assert!(is_damaged(&dir));
    // What a server of that time has written holds, whatever was known before; here it is right again.
    without("sum");
    let store = open(&dir);
    assert_eq!(store.count("/").await.expect("answers"), 2);
}

/// Not in any record: when leases end, how far the store has come, and from when on its history is known.
#[tokio::test]
async fn numbers_that_are_not_what_was_written_refuse_to_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir);
    store.txn(vec![Op::create("/d", "1")]).await.expect("answers");
    let lease = store.lease_grant(3600).await.expect("answers");
    let other = store.lease_grant(60).await.expect("answers");
    store.lease_revoke(other).await.expect("answers");
    store.lease_keep_alive(lease).await.expect("answers");
    store.compact(1).await.expect("answers");
    assert!(store.verify().await.is_ok());
    drop(store);
    drop(open(&dir));
    for key in ["revision", "compacted", "whole"] {
        let put = |value| {
            let mut before = None;
            change(&dir, |txn| {
                let mut meta = txn.open_table(META).expect("a table");
                before = meta.insert(key, value).expect("written").map(|v| v.value());
            });
            before.expect("it was there")
        };
        let was = put(5);
        assert!(is_damaged(&dir), "{key}");
        put(was);
        drop(open(&dir));
    }
    let lease_as = |lease: u64, value: Option<(u64, u64)>| {
        let mut before = None;
        change(&dir, |txn| {
            let mut leases = txn.open_table(LEASES).expect("a table");
            let was = match value {
                Some(value) => leases.insert(lease, value),
                None => leases.remove(lease),
            };
            before = was.expect("written").map(|v| v.value());
        });
        before
    };
    let (seconds, expires) = lease_as(lease, None).expect("it was there");
    assert!(is_damaged(&dir), "a lease is missing");
    for value in [(seconds ^ 1, expires), (seconds, expires ^ (1 << 40))] {
        lease_as(lease, Some(value));
        assert!(is_damaged(&dir), "{value:?}");
    }
    lease_as(lease, Some((seconds, expires)));
    drop(open(&dir));
}
