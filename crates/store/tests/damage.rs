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

/// A file of before there was a sum of all records.
#[tokio::test]
async fn a_file_of_before_is_opened_and_gets_its_sum() {
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("state.redb");
    let store = open(&dir);
    store.txn(vec![Op::create("/d", "1")]).await.expect("answers");
    drop(store);
    let database = redb::Database::open(&path).expect("opens");
    let txn = database.begin_write().expect("a transaction");
    assert!(txn.open_table(META).expect("a table").remove("sum").expect("removed").is_some());
    txn.commit().expect("is committed");
    drop(database);
    let store = open(&dir);
    store.txn(vec![Op::create("/e", "2")]).await.expect("answers");
    assert_eq!(store.count("/").await.expect("answers"), 2);
    drop(store);
    assert_eq!(open(&dir).count("/").await.expect("answers"), 2);
    // With one that is not its sum, something is missing.
    let database = redb::Database::open(&path).expect("opens");
    let txn = database.begin_write().expect("a transaction");
    txn.open_table(META).expect("a table").insert("sum", 7).expect("written");
    txn.commit().expect("is committed");
    drop(database);
    let damaged = Embedded::open(&path, EmbeddedOptions::default());
    assert!(matches!(damaged, Err(StoreError::Damaged { .. })));
}
