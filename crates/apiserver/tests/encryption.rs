//! What is on disk: nothing of what is to be encrypted, with which key, and when that changes.

mod world;

use std::time::{Duration, SystemTime};

use apiserver::cipher::Settings;
use serde_json::{Value, json};
use world::World;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const KEY: &str = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";

fn secret() -> Value {
    json!({"metadata": {"name": "s"}, "data": {"k": "aGlkZGVuLXdvcmRz"}})
}

fn is_on_disk(world: &World, text: &str) -> bool {
    world.on_disk().windows(text.len()).any(|window| window == text.as_bytes())
}

async fn stored(world: &World, key: &str) -> Vec<u8> {
    world.store.get(key).await.expect("reads").0.expect("an entry").value.to_vec()
}

#[tokio::test]
async fn secrets_are_not_on_disk_and_a_new_key_takes_over_while_they_are_served() {
    let world = World::new().await;
    world.grant(SECRETS, secret()).await;
    world.grant(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "plain-words"}})).await;
    assert!(is_on_disk(&world, "plain-words"), "the test looks where things are");
    assert!(!is_on_disk(&world, "aGlkZGVuLXdvcmRz") && !is_on_disk(&world, "hidden-words"));
    let before = stored(&world, "/registry/secrets/default/s").await;
    let done = world.server.rotate_encryption_key().await.expect("rotates");
    assert_eq!((done.entries >= 1, done.keys), (true, 1), "{done:?}");
    assert_ne!(stored(&world, "/registry/secrets/default/s").await, before);
    let (code, found) = world.json("GET", &format!("{SECRETS}/s"), Value::Null).await;
    assert_eq!((code, &found["data"]), (200, &secret()["data"]));
    let again = world.server.rotate_encryption_key().await.expect("rotates");
    assert_eq!(again, done, "as often as one likes");
}

fn configuration(provider: &str) -> String {
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets, configmaps, widgets.example.com], \
         providers: [{provider}, {{secretbox: {{keys: [{{name: old, secret: {KEY}}}]}}}}, {{identity: {{}}}}]}}]}}"
    )
}

#[tokio::test]
async fn a_file_says_what_is_encrypted_and_writing_again_brings_it_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    let first = format!("{{aescbc: {{keys: [{{name: one, secret: {KEY}}}]}}}}");
    std::fs::write(&file, configuration(&first)).expect("writes");
    let world = World::encrypting(Settings {
        configuration_file: Some(file.clone()),
        reload: true,
        ..Default::default()
    })
    .await;
    world.grant(SECRETS, secret()).await;
    world.grant(MAPS, json!({"metadata": {"name": "m"}, "data": {"k": "plain-words"}})).await;
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    world.grant("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"k": "custom-words"}});
    world.grant("/apis/example.com/v1/namespaces/default/widgets", widget).await;
    for words in ["aGlkZGVuLXdvcmRz", "plain-words", "custom-words"] {
        assert!(!is_on_disk(&world, words), "{words}");
    }
    let place = "/registry/secrets/default/s";
    assert!(stored(&world, place).await.starts_with(b"k8s:enc:aescbc:v1:one:"));
    let (_, list) = world.json("GET", MAPS, Value::Null).await;
    assert_eq!(list["items"][0]["data"]["k"], "plain-words", "read as ever: {list}");

    let again = async || {
        let (_, found) = world.json("GET", &format!("{SECRETS}/s"), Value::Null).await;
        let (code, put) = world.json("PUT", &format!("{SECRETS}/s"), found.clone()).await;
        assert_eq!(code, 200, "{put}");
        (found["metadata"]["resourceVersion"].clone(), put["metadata"]["resourceVersion"].clone())
    };
    let (before, after) = again().await;
    assert_eq!(before, after, "nothing to do");
    let second = format!("{{secretbox: {{keys: [{{name: new, secret: {KEY}}}]}}}}, {first}");
    std::fs::write(&file, configuration(&second)).expect("writes");
    let open = std::fs::File::options().write(true).open(&file).expect("opens");
    open.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("dated");
    let changed = async {
        while !stored(&world, place).await.starts_with(b"k8s:enc:secretbox:v1:new:") {
            again().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), changed)
        .await
        .expect("sealed anew by a write that changes nothing");
    let (before, after) = again().await;
    assert_eq!(before, after, "once is enough");
    assert!(world.server.rotate_encryption_key().await.is_err(), "the keys are the file's");
}

#[tokio::test]
async fn a_check_without_the_configuration_calls_nothing_damaged_that_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encryption.yaml");
    std::fs::write(&file, configuration(&format!("{{aescbc: {{keys: [{{name: one, secret: {KEY}}}]}}}}")))
        .expect("writes");
    let world =
        World::encrypting(Settings { configuration_file: Some(file), reload: false, ..Default::default() })
            .await;
    world.grant(SECRETS, secret()).await;
    let values = apiserver::values::Values::open(world.keys()).expect("opens");
    let entry = world.store.get("/registry/secrets/default/s").await.expect("reads").0.expect("an entry");
    assert!(values.check(&entry).is_ok());
    let own = World::new().await;
    own.grant(SECRETS, secret()).await;
    let mut entry = own.store.get("/registry/secrets/default/s").await.expect("reads").0.expect("an entry");
    let values = apiserver::values::Values::open(own.keys()).expect("opens");
    assert!(values.check(&entry).is_ok());
    let without = apiserver::values::Values::open(folder.path()).expect("opens");
    assert!(matches!(without.check(&entry), Err(apiserver::values::Unreadable::NoKey)), "nor without a key");
    let mut damaged = entry.value.to_vec();
    damaged.pop();
    entry.value = damaged.into();
    assert!(values.check(&entry).is_err(), "of its own key it can tell");
}

/// How many secrets were decrypted so far, which is told as the original tells it.
async fn decrypted(world: &World) -> u64 {
    let (_, _, told) = world.send("GET", "/metrics", &[], "").await;
    let told = String::from_utf8(told.to_vec()).expect("text");
    let counts = told.lines().filter(|line| {
        line.starts_with("apiserver_storage_transformation_operations_total{")
            && line.contains("from_storage")
            && line.contains("secrets")
    });
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Also what is large, which is weighed before it is decoded.
#[tokio::test]
async fn what_is_sealed_is_opened_once_for_each_time_it_is_asked_for() {
    let world = World::new().await;
    for (name, length) in [("small", 8), ("large", 64 << 10)] {
        let data = json!({"k": "A".repeat(length)});
        world.grant(SECRETS, json!({"metadata": {"name": name}, "data": data})).await;
        let path = format!("{SECRETS}/{name}");
        for (verb, body) in [("GET", Value::Null), ("PATCH", json!({"metadata": {"labels": {"a": name}}}))] {
            let before = decrypted(&world).await;
            let (code, found) = world.json(verb, &path, body).await;
            assert_eq!((code, &found["data"]), (200, &data));
            assert_eq!(decrypted(&world).await - before, 1, "{verb} {name}");
        }
    }
}
