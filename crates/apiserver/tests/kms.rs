//! Keys that a plugin keeps, behind a real socket: what is written and read with them, what happens when the plugin has
//! another key, is gone, or does not answer, and that all is well again by itself when it is back.

mod world;

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use apiserver::cipher::kms::Times;
use serde_json::{Value, json};
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
    let settings = || plugin.settings(&plugin.patient_provider(), QUICK);
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
    world.grant(SECRETS, secret("d")).await;
    let (_, metrics) = probe(&world, "/metrics").await;
    let number = |line: &str| {
        let found = metrics.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.and_then(|n| n.parse::<f64>().ok()).unwrap_or_else(|| panic!("{line}\n{metrics}"))
    };
    let operations = |way: &str| {
        let of = format!(
            "resource=\"secrets\",status=\"OK\",transformation_type=\"{way}\",transformer_prefix=\"k8s:enc:kms:v2:mine:\""
        );
        number(&format!("apiserver_storage_transformation_operations_total{{{of}}}"))
    };
    assert!(operations("from_storage") >= 3.0 && operations("to_storage") >= 1.0, "{metrics}");
    let calls = |method: &str| {
        let of = format!(
            "grpc_status_code=\"OK\",method_name=\"/v2.KeyManagementService/{method}\",provider_name=\"mine\""
        );
        number(&format!("apiserver_envelope_encryption_kms_operations_latency_seconds_count{{{of}}}"))
    };
    assert!(calls("Status") >= 1.0);
    assert_eq!((calls("Encrypt"), calls("Decrypt")), (1.0, 1.0));
    assert_eq!(number("apiserver_storage_envelope_transformation_cache_misses_total"), 1.0);
    assert_eq!(number("apiserver_envelope_encryption_dek_source_cache_size{provider_name=\"mine\"}"), 2.0);
    // The hash of `key-1`.
    let key = "key_id_hash=\"sha256:be2974546978e3739e6d6da85c4be9f334ce32df2b9fd4b6ff1b55c0d57e9d44\"";
    let used =
        format!("apiserver_id_hash=\"\",{key},provider_name=\"mine\",transformation_type=\"to_storage\"");
    assert!(number(&format!("apiserver_envelope_encryption_key_id_hash_total{{{used}}}")) >= 1.0);
    assert!(
        number(&format!("apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds{{{used}}}")) > 1e9
    );
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
    // As the original: a page comes from the store, and what would come from its cache has to wait until there is one.
    refused(get(&world, &format!("{SECRETS}?limit=500")).await);
    for query in ["", "?labelSelector=a%3Db", "?labelSelector=a%3Db&limit=500", "?resourceVersion=0"] {
        let (code, headers, body) = world.send("GET", &format!("{SECRETS}{query}"), &[], "").await;
        let answer: Value = serde_json::from_slice(&body).expect("a Status");
        assert_eq!((code, answer["reason"].as_str()), (429, Some("TooManyRequests")), "{query}: {answer}");
        let message = answer["message"].as_str().unwrap_or_default();
        let why = "storage is (re)initializing: unable to transform key \"/registry/secrets/default/a\": ";
        assert!(message.starts_with(why) && message.contains("kms.sock"), "{query}: {message}");
        assert_eq!(answer["details"]["retryAfterSeconds"], 1, "{query}: {answer}");
        assert_eq!(headers["retry-after"], "1", "{query}");
    }
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
    let settings = || plugin.settings(&plugin.patient_provider(), QUICK);
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
    assert!(values.check(&entry).is_ok());
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

#[tokio::test]
async fn who_reads_while_a_plugin_is_configured_anew_notices_nothing() {
    let plugin = Plugin::started();
    let settings = apiserver::cipher::Settings { reload: true, ..plugin.settings(&plugin.provider(), QUICK) };
    let file = settings.configuration_file.clone().expect("a file");
    let world = World::encrypting(settings).await;
    world.grant(SECRETS, secret("a")).await;
    // What stands at the end of what is stored is what the plugin made of the seed.
    let seed = async |name: &str| {
        let stored = stored(&world, name).await;
        stored[stored.len() - 70..].to_vec()
    };
    let first = seed("a").await;
    // It opens nothing from now on: what is known must not be lost.
    plugin.says.lock().refuses = true;
    let slower = plugin.provider().replace("300ms", "400ms");
    std::fs::write(&file, configuration(&slower)).expect("writes");
    let open = std::fs::File::options().write(true).open(&file).expect("opens");
    open.set_modified(SystemTime::now() + Duration::from_secs(60)).expect("dated");
    let write = async || {
        let (code, read) = get(&world, &format!("{SECRETS}/a")).await;
        assert_eq!((code, &read["data"]), (200, &secret("a")["data"]), "{read}");
        let name = format!("n{}", base::id::uuid());
        world.grant(SECRETS, secret(&name)).await;
        seed(&name).await
    };
    until(write, |seed| *seed != first).await;
    let (code, list) = get(&world, SECRETS).await;
    assert_eq!(code, 200, "{list}");
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.0, 200);
    assert_eq!(plugin.says.lock().opened, 0, "nobody was asked");
}

#[tokio::test]
async fn a_server_whose_every_object_needs_the_plugin_starts_without_it_and_is_ready_once_it_is_there() {
    let mut plugin = Plugin::new();
    let settings = |plugin: &Plugin| {
        let settings = plugin.settings(&plugin.provider(), QUICK);
        let file = settings.configuration_file.as_ref().expect("a file");
        let all = configuration(&plugin.provider()).replace("[secrets]", "['*.*']");
        std::fs::write(file, all).expect("writes");
        settings
    };
    let world = World::encrypting(settings(&plugin)).await;
    let not_ready = async |world: &World, refusal: u16| {
        let (code, text) = probe(world, "/readyz?verbose").await;
        assert_eq!(code, 500, "{text}");
        for check in ["kms-providers", "poststarthook/rbac/bootstrap-roles"] {
            assert!(text.contains(&format!("[-]{check} failed: reason withheld\n")), "{text}");
        }
        let (_, why) = probe(world, "/readyz/kms-providers").await;
        assert!(why.contains("KMS provider \"mine\"") && why.contains("kms.sock"), "{why}");
        assert_eq!(probe(world, "/livez").await.0, 200, "to start it anew would mend nothing");
        let (code, refused) = world.json("POST", MAPS, json!({"metadata": {"name": "m"}})).await;
        assert_eq!(code, refusal, "{refused}");
    };
    // There is no namespace yet.
    not_ready(&world, 404).await;
    plugin.start();
    until(async || probe(&world, "/readyz").await, |(code, _)| *code == 200).await;
    world.server.settled().await;
    world.grant(SECRETS, secret("a")).await;
    let namespace =
        world.store.get("/registry/namespaces/default").await.expect("reads").0.expect("an entry");
    assert!(namespace.value.starts_with(SEALED));
    // The same with a cluster that is there already.
    plugin.stop().await;
    let world = world.restarted(settings(&plugin)).await;
    not_ready(&world, 500).await;
    plugin.start();
    until(async || probe(&world, "/readyz").await, |(code, _)| *code == 200).await;
    assert_eq!(get(&world, &format!("{SECRETS}/a")).await.1["data"], secret("a")["data"]);
}
