//! What the original has stored is served as the original serves it, from the keys where it lies. `original.tsv` holds
//! keys and values as kube-apiserver v1.36.2 stored objects that it was sent (`K`), and its answers to a `GET` of
//! each in every version (`G`). All of it on either engine: kube-apiserver itself knows etcd only.

#[path = "../world/mod.rs"]
mod world;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use store::{Etcd, EtcdAddress, EtcdOptions, Op, TxnResponse};
use world::World;

const RECORDED: &str = include_str!("original.tsv");

enum Row<'a> {
    Stored { key: &'a str, value: Vec<u8> },
    Served { path: &'a str, object: Value },
}

fn rows() -> impl Iterator<Item = Row<'static>> {
    RECORDED.lines().map(|line| {
        let mut cells = line.splitn(3, '\t');
        let mut cell = || cells.next().expect("three cells");
        match (cell(), cell(), cell()) {
            ("K", key, value) => Row::Stored { key, value: STANDARD.decode(value).expect("base64") },
            ("G", path, object) => Row::Served { path, object: serde_json::from_str(object).expect("JSON") },
            other => panic!("{other:?}"),
        }
    })
}

async fn put(world: &World, key: &str, value: Vec<u8>) -> u64 {
    match world.store.txn(vec![Op::put(key, value, store::Expect::Anything)]).await.expect("answers") {
        TxnResponse::Committed { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

/// Servers that have what the original stored, and in what.
struct Filled {
    embedded: World,
    on_etcd: World,
    _etcd: testkit::Etcd,
    _folder: tempfile::TempDir,
}

impl Filled {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let etcd = testkit::Etcd::required(folder.path());
        let address = EtcdAddress::parse(&format!("etcd://{}", etcd.address)).expect("an address");
        let store = Etcd::open(EtcdOptions::new(address)).await.expect("opens");
        let on_etcd = World::on(Arc::new(store)).await;
        let embedded = World::new().await;
        fill(&embedded).await;
        fill(&on_etcd).await;
        Self { embedded, on_etcd, _etcd: etcd, _folder: folder }
    }

    fn each(&self) -> [(&'static str, &World); 2] {
        [("embedded", &self.embedded), ("etcd", &self.on_etcd)]
    }
}

async fn fill(world: &World) {
    for row in rows() {
        if let Row::Stored { key, value } = row {
            put(world, key, value).await;
        }
    }
    // Definitions that came by another way than a request of ours.
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.kept.io";
    let (code, mut definition) = world.ask(&world::master(), "GET", path, Value::Null).await;
    assert_eq!(code, 200, "{definition}");
    definition["metadata"]["labels"]["a"] = "b".into();
    let (code, answer) = world.ask(&world::master(), "PUT", path, definition).await;
    assert_eq!(code, 200, "{answer}");
}

fn without_version(mut object: Value) -> Value {
    api::meta::unset(&mut object, "resourceVersion");
    object
}

#[tokio::test]
async fn what_the_original_stored_is_served_as_it_serves_it() {
    let filled = Filled::new().await;
    for (engine, world) in filled.each() {
        is_served(engine, world).await;
    }
}

async fn is_served(engine: &str, world: &World) {
    let (mut faults, mut count) = (Vec::new(), 0);
    for row in rows() {
        let Row::Served { path, object } = row else { continue };
        if path.ends_with("/customresourcedefinitions/things.kept.io") {
            continue;
        }
        count += 1;
        let (code, ours) = world.ask(&world::master(), "GET", path, Value::Null).await;
        if code != 200 || without_version(ours.clone()) != without_version(object.clone()) {
            faults.push(format!("{path}: {code}\n  ours: {ours}\n  original's: {object}"));
        }
    }
    assert!(count > 60, "only {count}");
    assert!(faults.is_empty(), "{engine}: {} of {count} differ:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn it_is_listed_watched_and_written_again_at_its_key() {
    let filled = Filled::new().await;
    for (engine, world) in filled.each() {
        is_listed(engine, world).await;
        is_written_again(engine, world).await;
    }
}

async fn is_listed(engine: &str, world: &World) {
    for row in rows() {
        let Row::Served { path, .. } = row else { continue };
        let (list, name) = path.rsplit_once('/').expect("a path");
        let (code, objects) = world.ask(&world::master(), "GET", list, Value::Null).await;
        let names: Vec<&str> =
            objects["items"].as_array().into_iter().flatten().map(api::meta::name).collect();
        assert!(code == 200 && names.contains(&name), "{engine}: {list}: {code} {names:?}");
    }
}

async fn is_written_again(engine: &str, world: &World) {
    for row in rows() {
        let Row::Stored { key, value } = row else { continue };
        let (before, _) = world.store.get(key).await.expect("answers");
        let revision = world.store.revision();
        let Some(path) = path_of(key) else { continue };
        let labels = serde_json::json!({"metadata": {"labels": {"written": "again"}}});
        let (code, answer) = world.ask(&world::master(), "PATCH", &path, labels).await;
        assert_eq!(code, 200, "{engine}: {path}: {answer}");
        let (after, _) = world.store.get(key).await.expect("answers");
        let (before, after) = (before.expect("was there"), after.expect("is there"));
        assert!(
            after.mod_revision > revision && after.create_revision == before.create_revision,
            "{engine}: {key}"
        );
        assert!(
            after.value.starts_with(b"{\"apiVersion\":") || key.contains("/secrets/"),
            "{engine}: {key}: in our form"
        );
        put(world, key, value).await;
    }
}

/// The last path that serves what lies at a key, as the rows beside it say: that of the newest version.
fn path_of(key: &str) -> Option<String> {
    let beside =
        rows().skip_while(|row| !matches!(row, Row::Stored { key: this, .. } if *this == key)).skip(1);
    let paths = beside.map_while(|row| match row {
        Row::Served { path, .. } => Some(path.to_owned()),
        Row::Stored { .. } => None,
    });
    paths.last()
}
