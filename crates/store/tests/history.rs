//! How much of what has been is kept: whoever writes one object again and again fills neither memory nor disk.

use store::{
    Embedded, EmbeddedOptions, Expect, History, Op, RangeRequest, Revision, Store, StoreError, TxnResponse,
};

const VALUE_BYTES: usize = 100_000;
const LIMIT_BYTES: usize = 2 << 20;

async fn put(store: &dyn Store, number: usize) -> Revision {
    let value = vec![u8::try_from(number % 251).expect("small"); VALUE_BYTES];
    match store.txn(vec![Op::put("/r/key".to_owned(), value, Expect::Anything)]).await {
        Ok(TxnResponse::Committed { revision }) => revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn history_is_bounded_by_bytes_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    let history = History { limit_bytes: LIMIT_BYTES, ..Default::default() };
    let options = || EmbeddedOptions { history, ..Default::default() };
    let store = Embedded::open(&path, options()).expect("opens");
    let mut revisions = Vec::new();
    for number in 0..300 {
        revisions.push(put(&store, number).await);
    }
    let read = async |store: &Embedded, number: usize| {
        let request =
            RangeRequest { prefix: "/r/".into(), revision: Some(revisions[number]), ..Default::default() };
        store.range(request).await.map(|range| range.entries[0].value[0] as usize)
    };
    // Some of what has been is there, and what is not says so.
    assert_eq!(read(&store, 299).await.expect("it is"), 299 % 251);
    assert_eq!(read(&store, 290).await.expect("a moment ago"), 290 % 251);
    let error = read(&store, 200).await.expect_err("too much came after it");
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    assert!(store.watch("/r/", revisions[290]).is_ok());
    let file_bytes = std::fs::metadata(&path).expect("a file").len();
    assert!(file_bytes < 300 * VALUE_BYTES as u64 / 2, "{file_bytes} bytes");
    // Nor does it come back with a start.
    drop(store);
    let store = Embedded::open(&path, options()).expect("opens");
    put(&store, 300).await;
    assert_eq!(read(&store, 295).await.expect("a moment ago"), 295 % 251);
    assert!(read(&store, 200).await.is_err());
}
