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
