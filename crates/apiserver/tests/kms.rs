//! Keys that a plugin keeps, behind a real socket: what is written and read with them, what happens when the plugin has
//! another key, is gone, or does not answer, and that all is well again by itself when it is back.

mod world;

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use apiserver::cipher::kms::Times;
use serde_json::{Value, json};
use store::Store;
use world::World;
use world::kms::{Plugin, QUICK, configuration};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETBOX: &str =
    "{secretbox: {keys: [{name: old, secret: YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}}";
const LIMIT: Duration = Duration::from_secs(20);
const SEALED: &[u8] = b"k8s:enc:kms:v2:mine:";

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "aGlkZGVuLXdvcmRz"}})
}

async fn stored(world: &World, name: &str) -> Vec<u8> {
    let found = world.store.get(&format!("/registry/secrets/default/{name}")).await.expect("reads");
    found.0.expect("an entry").value.to_vec()
}

fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

async fn get(world: &World, path: &str) -> (u16, Value) {
    world.json("GET", path, Value::Null).await
}

async fn probe(world: &World, path: &str) -> (u16, String) {
    let (code, _, body) = world.send("GET", path, &[], "").await;
    (code, String::from_utf8_lossy(&body).into_owned())
}

/// Asks until the answer is as it should be.
async fn until<T: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        let answer = ask().await;
        if is_right(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "the last answer was {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes a secret as it is, and says whether that changed what is stored.
async fn again(world: &World, name: &str) -> bool {
    let (_, found) = get(world, &format!("{SECRETS}/{name}")).await;
    let (code, put) = world.json("PUT", &format!("{SECRETS}/{name}"), found.clone()).await;
    assert_eq!(code, 200, "{put}");
    found["metadata"]["resourceVersion"] != put["metadata"]["resourceVersion"]
}

#[tokio::test]
async fn objects_are_sealed_with_a_key_that_a_plugin_keeps() {
    let plugin = Plugin::started();
    let settings = || plugin.settings(&plugin.provider(), QUICK);
    let world = World::encrypting(settings()).await;
    for name in ["a", "b", "c"] {
        world.grant(SECRETS, secret(name)).await;
        let stored = stored(&world, name).await;
        assert!(
            stored.starts_with(SEALED) && holds(&stored, "key-1"),
            "{}",
            String::from_utf8_lossy(&stored)
        );
    }
    assert!(!holds(&world.on_disk(), "aGlkZGVuLXdvcmRz") && !holds(&world.on_disk(), "hidden-words"));
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.1["data"], secret("a")["data"]);
    assert!(!again(&world, "a").await, "nothing to do");
    {
        let says = plugin.says.lock();
        assert_eq!((says.sealed, says.opened), (1, 0), "one seed for all, and it is known here");
    }
    assert_eq!(probe(&world, "/readyz/kms-providers").await, (200, "ok".into()));
    // Another server has to have the seed opened, once.
    let world = world.restarted(settings()).await;
    let (code, list) = get(&world, SECRETS).await;
    assert_eq!((code, &list["items"][2]["data"]), (200, &secret("c")["data"]), "{list}");
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.1["data"], secret("a")["data"]);
    {
        let says = plugin.says.lock();
        assert_eq!((says.sealed, says.opened), (2, 1));
    }
    // It has a seed of its own, but the key is the same.
    assert!(!again(&world, "a").await, "nothing to do");
}

#[tokio::test]
async fn another_key_is_taken_up_and_what_was_sealed_before_is_read() {
    let plugin = Plugin::started();
    let world = World::encrypting(plugin.settings(&plugin.provider(), QUICK)).await;
    world.grant(SECRETS, secret("a")).await;
    // It must seal with the key that it says it has.
    {
        let mut says = plugin.says.lock();
        says.key_id = "key-2";
        says.seals_with = Some("key-3");
    }
    let ill = until(async || probe(&world, "/readyz/kms-providers").await, |(code, _)| *code == 500).await;
    assert!(
        ill.1.contains("kms-provider-0: KMS provider \"mine\": ") && ill.1.contains("another key"),
        "{ill:?}"
    );
    world.grant(SECRETS, secret("b")).await;
    assert!(holds(&stored(&world, "b").await, "key-1"), "the old one is good for a while");
    plugin.says.lock().seals_with = None;
    until(async || probe(&world, "/readyz/kms-providers").await, |(code, _)| *code == 200).await;
    world.grant(SECRETS, secret("c")).await;
    assert!(holds(&stored(&world, "c").await, "key-2"));
    assert!(holds(&stored(&world, "a").await, "key-1"));
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.0, 200);
    assert!(again(&world, "a").await, "sealed anew by a write that changes nothing");
    assert!(holds(&stored(&world, "a").await, "key-2"));
    assert!(!again(&world, "a").await, "once is enough");
    assert_eq!(plugin.says.lock().opened, 0, "what was made here is remembered");
}

#[tokio::test]
async fn without_the_plugin_what_needs_it_fails_by_its_name_and_all_is_well_when_it_is_back() {
    let mut plugin = Plugin::started();
    let settings = |plugin: &Plugin| plugin.settings(&plugin.provider(), QUICK);
    let world = World::encrypting(settings(&plugin)).await;
    world.grant(SECRETS, secret("a")).await;
    plugin.stop().await;
    until(async || probe(&world, "/readyz").await, |(code, _)| *code == 500).await;
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.0, 200, "its seed is known");
    world.grant(SECRETS, secret("b")).await;

    let world = world.restarted(settings(&plugin)).await;
    let refused = |(code, answer): (u16, Value)| {
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!((code, answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
        assert!(message.contains("KMS provider \"mine\"") && message.contains("kms.sock"), "{message}");
    };
    refused(get(&world, &format!("{SECRETS}/a")).await);
    refused(get(&world, SECRETS).await);
    refused(get(&world, &format!("{SECRETS}?labelSelector=a%3Db")).await);
    refused(world.json("POST", SECRETS, secret("c")).await);
    world.grant(MAPS, json!({"metadata": {"name": "m"}})).await;
    for root in ["readyz", "healthz"] {
        let (code, text) = probe(&world, &format!("/{root}?verbose")).await;
        assert_eq!(code, 500);
        assert!(text.contains("[-]kms-providers failed: reason withheld\n"), "{text}");
        assert_eq!(text.matches("[-]").count(), 1, "{text}");
    }
    assert_eq!(probe(&world, "/livez").await.0, 200);
    assert_eq!(probe(&world, "/readyz?exclude=kms-providers").await.0, 200);

    plugin.start();
    until(async || world.json("POST", SECRETS, secret("c")).await, |(code, _)| *code == 201).await;
    assert_eq!(get(&world, SECRETS).await.1["items"].as_array().map(Vec::len), Some(3));
    until(async || probe(&world, "/readyz").await, |(code, _)| *code == 200).await;
}

#[tokio::test]
async fn a_key_that_may_have_been_replaced_is_not_written_with_for_long() {
    let mut plugin = Plugin::started();
    let times = Times { write_after: Duration::from_millis(500), ..QUICK };
    let world = World::encrypting(plugin.settings(&plugin.provider(), times)).await;
    world.grant(SECRETS, secret("a")).await;
    plugin.says.lock().healthz = "disk is full";
    let ill = until(async || probe(&world, "/readyz/kms-providers").await, |(code, _)| *code == 500).await;
    assert!(ill.1.contains("got unexpected healthz status: disk is full"), "{ill:?}");
    plugin.stop().await;
    let path = format!("{SECRETS}/a");
    let annotate = json!({"metadata": {"annotations": {"a": "b"}}});
    let late = until(
        async || {
            let annotate = json!({"metadata": {"annotations": {"a": base::id::uuid()}}});
            world.json("PATCH", &path, annotate).await
        },
        |(code, _)| *code == 500,
    )
    .await;
    let message = late.1["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("KMS provider \"mine\": the data key may not be written with any more"),
        "{late:?}"
    );
    assert_eq!(get(&world, &path).await.0, 200, "it is read with as ever");
    plugin.says.lock().healthz = "ok";
    plugin.start();
    until(async || world.json("PATCH", &path, annotate.clone()).await, |(code, _)| *code == 200).await;
    assert_eq!(plugin.says.lock().sealed, 1, "the key is the same, so the seed may be");
}

#[tokio::test]
async fn a_plugin_that_hangs_holds_nobody_up() {
    let plugin = Plugin::started();
    let settings = || plugin.settings(&plugin.provider(), QUICK);
    let world = World::encrypting(settings()).await;
    world.grant(SECRETS, secret("a")).await;
    plugin.says.lock().hangs = true;
    let began = Instant::now();
    let world = world.restarted(settings()).await;
    let path = format!("{SECRETS}/a");
    let reads = futures::future::join_all((0..40).map(|_| get(&world, &path)));
    let (reads, map) = futures::join!(reads, world.json("POST", MAPS, json!({"metadata": {"name": "m"}})));
    assert_eq!(map.0, 201, "others are served");
    for (code, answer) in reads {
        assert_eq!(code, 500, "{answer}");
        assert!(answer["message"].as_str().is_some_and(|m| m.contains("KMS provider \"mine\"")), "{answer}");
    }
    assert_eq!(probe(&world, "/livez").await.0, 200);
    assert_eq!(probe(&world, "/readyz/kms-providers").await.0, 500);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    plugin.says.lock().hangs = false;
    until(async || get(&world, &path).await, |(code, _)| *code == 200).await;
}

/// The events of a watch, of which several may come at once.
struct Events {
    body: apiserver::http::body::Body,
    come: VecDeque<Value>,
}

impl Events {
    async fn next(&mut self) -> Option<Value> {
        use http_body_util::BodyExt;
        while self.come.is_empty() {
            let frame = tokio::time::timeout(LIMIT, self.body.frame()).await.expect("an event or the end")?;
            let data = frame.ok().and_then(|frame| frame.into_data().ok()).expect("data");
            let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.come.extend(lines.map(|line| serde_json::from_slice::<Value>(line).expect("an event")));
        }
        self.come.pop_front()
    }
}

#[tokio::test]
async fn what_another_server_has_sealed_is_seen_by_who_watches_here() {
    let plugin = Plugin::started();
    let settings = || plugin.settings(&plugin.provider(), QUICK);
    let other = World::encrypting(settings()).await;
    let world = other.beside(settings()).await;
    let (_, list) = get(&world, SECRETS).await;
    let from = list["metadata"]["resourceVersion"].as_str().expect("a revision");
    // With a selector, which has to look into what there is, and was.
    let path = format!("{SECRETS}?watch=1&resourceVersion={from}&labelSelector=watched");
    let body = world.raw("GET", &path, &[], "").await.into_body();
    let mut watch = Events { body, come: VecDeque::new() };
    let mut watched = secret("a");
    watched["metadata"]["labels"] = json!({"watched": "yes"});
    other.grant(SECRETS, watched).await;
    let seen = watch.next().await.expect("an event");
    assert_eq!((&seen["type"], &seen["object"]["data"]), (&json!("ADDED"), &secret("a")["data"]), "{seen}");
    assert_eq!(plugin.says.lock().opened, 1);
    // A seed that nobody opens for this server ends the watch, and says why.
    {
        let mut says = plugin.says.lock();
        says.key_id = "key-2";
        says.refuses = true;
    }
    let change = async || {
        let annotations = json!({"metadata": {"annotations": {"a": base::id::uuid()}}});
        other.json("PATCH", &format!("{SECRETS}/a"), annotations).await;
        stored(&other, "a").await
    };
    until(change, |stored| holds(stored, "key-2")).await;
    let end = loop {
        let seen = watch.next().await.expect("an event");
        if seen["type"] != "MODIFIED" {
            break seen;
        }
    };
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(500)), "{end}");
    assert!(end["object"]["message"].as_str().is_some_and(|m| m.contains("KMS provider \"mine\"")), "{end}");
    assert_eq!(watch.next().await, None, "and nothing comes after it");
}

#[tokio::test]
async fn what_other_keys_have_sealed_moves_to_the_plugin_and_back() {
    let plugin = Plugin::started();
    let world = World::new().await;
    world.grant(SECRETS, secret("a")).await;
    assert!(stored(&world, "a").await.starts_with(b"k8s:enc:aesgcm:v1:kedge:"));
    let both = format!("{}, {SECRETBOX}", plugin.provider());
    let world = world.restarted(plugin.settings(&both, QUICK)).await;
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.1["data"], secret("a")["data"]);
    assert!(world.server.rotate_encryption_key().await.is_err(), "the keys are the configuration's");
    assert!(stored(&world, "a").await.starts_with(b"k8s:enc:aesgcm:v1:kedge:"), "and nothing was done");
    assert!(again(&world, "a").await);
    assert!(stored(&world, "a").await.starts_with(SEALED));
    // What is sealed by somebody else's key is no damage to who checks a store.
    let values = apiserver::values::Values::open(world.keys()).expect("opens");
    let entry = world.store.get("/registry/secrets/default/a").await.expect("reads").0.expect("an entry");
    assert_eq!(values.check(&entry), Ok(()));
    let back = format!("{SECRETBOX}, {}", plugin.provider());
    let world = world.restarted(plugin.settings(&back, QUICK)).await;
    assert!(again(&world, "a").await);
    assert!(stored(&world, "a").await.starts_with(b"k8s:enc:secretbox:v1:old:"));
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.1["data"], secret("a")["data"]);
}

#[tokio::test]
async fn a_plugin_that_is_configured_while_the_server_runs_is_taken_once_it_is_well() {
    let mut plugin = Plugin::new();
    let settings = apiserver::cipher::Settings { reload: true, ..plugin.settings(SECRETBOX, QUICK) };
    let file = settings.configuration_file.clone().expect("a file");
    let world = World::encrypting(settings).await;
    world.grant(SECRETS, secret("a")).await;
    assert_eq!(probe(&world, "/readyz/kms-providers").await.0, 200, "there is none that could be ill");
    let both = configuration(&format!("{}, {SECRETBOX}", plugin.provider()));
    std::fs::write(&file, both).expect("writes");
    let open = std::fs::File::options().write(true).open(&file).expect("opens");
    open.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("dated");
    let began = Instant::now();
    let still = async || {
        assert!(!again(&world, "a").await, "sealed as it was");
        began.elapsed()
    };
    until(still, |elapsed| *elapsed > Duration::from_millis(1500)).await;
    plugin.start();
    until(
        async || {
            again(&world, "a").await;
            stored(&world, "a").await
        },
        |stored| stored.starts_with(SEALED),
    )
    .await;
    assert_eq!(probe(&world, "/readyz/kms-providers").await, (200, "ok".into()));
}
