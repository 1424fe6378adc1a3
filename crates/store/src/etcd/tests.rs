//! What only etcd's engine has to show: that it is lost and comes back, that others write beside it, that it asks to
//! be convinced of who we are.

use std::time::{Duration, Instant};

use prost::Message;
use testkit::Certificate;

use super::*;
use crate::Op;

async fn open(server: &testkit::Etcd) -> Etcd {
    Etcd::open(options(server)).await.expect("opens")
}

fn options(server: &testkit::Etcd) -> EtcdOptions {
    EtcdOptions::new(EtcdAddress::parse(&format!("etcd://{}", server.address)).expect("an address"))
}

async fn committed(store: &dyn Store, op: Op) -> u64 {
    match store.txn(vec![op]).await.expect("answers") {
        TxnResponse::Committed { revision } => revision,
        conflict => panic!("{conflict:?}"),
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 30 s"),
    }
}

/// Until it answers again.
async fn well(store: &Etcd) {
    let back = async { while store.get("/registry/a").await.is_err() {} };
    soon("etcd is back", back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = testkit::Etcd::required(dir.path());
    let store = open(&server).await;
    let mut watch = store.watch("/registry/", store.revision()).expect("watches");
    committed(&store, Op::create("/registry/a", "1")).await;
    let snapshot = store.revision();
    for _ in 0..2 {
        server.kill();
        let since = Instant::now();
        let write = vec![Op::put("/registry/b", "1", Expect::Anything)];
        let (read, written, counted) =
            tokio::join!(store.get("/registry/a"), store.txn(write), store.count("/registry/"));
        assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
        assert!(matches!(written, Err(StoreError::Unavailable { .. } | StoreError::Uncertain { .. })));
        assert!(counted.is_err());
        assert!(since.elapsed() < 2 * client::REQUEST_LIMIT, "{:?}", since.elapsed());
        // What was at a revision is known, etcd or not.
        let past =
            RangeRequest { prefix: "/registry/".into(), revision: Some(snapshot), ..Default::default() };
        assert_eq!(store.range(past).await.expect("is known").entries.len(), 1);
        server.launch();
        well(&store).await;
        committed(&store, Op::put("/registry/a", "2", Expect::Present)).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(soon("events", watch.next()).await.expect("no gap"));
    }
    let versions: Vec<u64> = seen.iter().map(|e| e.entry.version).collect();
    assert_eq!(versions, [1, 2, 3], "nothing lost, nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_in_its_place_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = testkit::Etcd::required(dir.path());
    let store = open(&server).await;
    for n in 0..20 {
        committed(&store, Op::create(format!("/registry/{n}"), "x")).await;
    }
    let mut watch = store.watch("/registry/", store.revision()).expect("watches");
    server.kill();
    server.forget();
    server.launch();
    well(&store).await;
    assert_eq!(store.count("/registry/").await.expect("answers"), 0, "nothing of the old one is shown");
    assert!(matches!(soon("the end", watch.next()).await, Err(StoreError::Compacted { .. })));
    committed(&store, Op::create("/registry/new", "x")).await;
    assert_eq!(store.count("/registry/").await.expect("answers"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_of_an_etcd_that_has_gone_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let store = open(&server).await;
    let (client, keys) = (&store.client, &store.keys);
    // What has been read is ahead of etcd, and nobody has noticed.
    let mirror = mirror::Mirror::new(keys.clone(), History::default(), 1 << 20);
    let now = mirror::now(client, keys).await.expect("answers");
    mirror.seen.send_modify(|seen| (seen.cluster, seen.revision) = (now.cluster, now.revision + 1000));
    let read = store.fresh.wait(client, &mirror, keys);
    tokio::pin!(read);
    tokio::select! {
        answer = &mut read => panic!("it is answered from what was: {answer:?}"),
        () = mirror.doubted.notified() => {}
    }
    tokio::select! {
        answer = soon("it is read anew", &mut read) => assert!(answer.is_ok(), "{answer:?}"),
        () = mirror.run(client) => {}
    }
    let seen = *mirror.seen.borrow();
    assert!(seen.loads == 1 && seen.revision < now.revision + 1000, "{seen:?}");
}

#[tokio::test]
async fn revisions_of_others_do_not_hold_up_reads() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let (ours, other) = (open(&server).await, open(&server).await);
    let beside = PutRequest { key: b"/elsewhere".to_vec(), ..Default::default() };
    for n in 0..5 {
        let _: Done =
            other.client.call("/etcdserverpb.KV/Put", &beside, Again::Safe).await.expect("is written");
        let since = Instant::now();
        assert_eq!(ours.count("/registry/").await.expect("answers"), n);
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        // What one server has written, the other reads at once.
        let revision = committed(&other, Op::create(format!("/registry/{n}"), "x")).await;
        let (entry, _) = ours.get(&format!("/registry/{n}")).await.expect("answers");
        assert_eq!(entry.map(|e| e.mod_revision), Some(revision));
    }
    let everything = ours.range(RangeRequest::default()).await.expect("answers");
    assert_eq!(everything.entries.len(), 5, "what helps the reads is not shown");
}

#[tokio::test]
async fn prefixes_part_clusters() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let of = |prefix: &str| {
        let address = EtcdAddress::parse(&format!("etcd://{}{prefix}", server.address)).expect("an address");
        Etcd::open(EtcdOptions::new(address))
    };
    let (one, two) = (of("/one").await.expect("opens"), of("/two").await.expect("opens"));
    committed(&one, Op::create("/registry/a", "1")).await;
    committed(&two, Op::create("/registry/a", "2")).await;
    let (entry, _) = one.get("/registry/a").await.expect("answers");
    assert_eq!(entry.map(|e| e.value), Some("1".into()));
    assert_eq!(two.count("/").await.expect("answers"), 1);
}

#[tokio::test]
async fn servers_compact_once_a_period() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let (a, b) = (open(&server).await, open(&server).await);
    let mut turns = [compaction::Turn::default(); 2];
    let mut compacted = Vec::new();
    let first = committed(&a, Op::create("/registry/a", "0")).await;
    for n in 1..=4 {
        for (store, turn) in [&a, &b].into_iter().zip(&mut turns) {
            let (next, done) =
                compaction::take_turn(&store.client, &store.keys, *turn).await.expect("a turn");
            *turn = next;
            compacted.extend(done);
        }
        committed(&a, Op::put("/registry/a", n.to_string(), Expect::Anything)).await;
    }
    assert_eq!(compacted.len(), 3, "once in each period but the first: {compacted:?}");
    assert!(compacted.windows(2).all(|pair| pair[0] < pair[1]) && compacted[0] > first, "{compacted:?}");
}

#[tokio::test]
async fn a_gap_in_history_is_told_and_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let store = open(&server).await;
    let mut watch = store.watch("/registry/", store.revision()).expect("watches");
    // The watch is away for long: what comes next has been compacted when it is back.
    store.tasks[0].abort();
    let other = open(&server).await;
    for n in 0..3 {
        committed(&other, Op::put("/registry/a", n.to_string(), Expect::Anything)).await;
    }
    other.compact(other.revision()).await.expect("compacts");
    let (mirror, client) = (Arc::clone(&store.mirror), Arc::clone(&store.client));
    let following = tokio::spawn(async move { mirror.run(&client).await });
    assert!(matches!(soon("the end", watch.next()).await, Err(StoreError::Compacted { .. })));
    let (entry, _) = store.get("/registry/a").await.expect("answers");
    assert_eq!(entry.map(|e| e.value), Some("2".into()));
    following.abort();
}

#[tokio::test]
async fn certificates_are_asked_for_and_shown() {
    let dir = tempfile::tempdir().expect("a folder");
    let certificate = Certificate::of(&["localhost", "127.0.0.1"]);
    let server = testkit::Etcd::with_tls(dir.path(), &certificate);
    let address = EtcdAddress::parse(&format!("etcds://{}", server.address)).expect("an address");
    let pem = |text: &str| Some(text.as_bytes().to_vec());
    let mut options = EtcdOptions::new(address);
    options.tls = EtcdTls { authority: pem(&certificate.authority), ..Default::default() };
    assert!(Etcd::open(options.clone()).await.is_err(), "nobody without a certificate");
    options.tls.certificate = pem(&certificate.certificate);
    assert!(matches!(Connector::new(&options.address, &options.tls), Err(AddressError::Half)));
    options.tls.key = pem(&certificate.key);
    let store = Etcd::open(options.clone()).await.expect("opens");
    committed(&store, Op::create("/registry/a", "1")).await;
    options.tls.authority = pem(&Certificate::new().authority);
    assert!(Etcd::open(options).await.is_err(), "an authority that has not signed it");
}

#[tokio::test]
async fn members_that_are_away_are_passed_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let nobody = testkit::etcd::free_port();
    let text = format!("etcd://127.0.0.1:{nobody},{}", server.address);
    let store =
        Etcd::open(EtcdOptions::new(EtcdAddress::parse(&text).expect("an address"))).await.expect("opens");
    committed(&store, Op::create("/registry/a", "1")).await;
    drop(server);
    let nobody = EtcdAddress::parse(&format!("etcd://127.0.0.1:{nobody}")).expect("an address");
    match Etcd::open(EtcdOptions::new(nobody)).await {
        Err(error @ StoreError::Unreachable { .. }) => {
            assert!(error.to_string().contains("cannot reach etcd"))
        }
        _ => panic!("it opened"),
    }
}

#[derive(Clone, PartialEq, Message)]
struct Grant {
    #[prost(string, tag = "1")]
    user: String,
    /// The password, or the role.
    #[prost(string, tag = "2")]
    what: String,
}

#[tokio::test]
async fn names_and_passwords_are_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = testkit::Etcd::required(dir.path());
    let admin = open(&server).await;
    let grant = |what: &str| Grant { user: "root".into(), what: what.into() };
    for (method, request) in
        [("UserAdd", grant("secret")), ("UserGrantRole", grant("root")), ("AuthEnable", Grant::default())]
    {
        let path = format!("/etcdserverpb.Auth/{method}");
        let _: Done = admin.client.call(&path, &request, Again::Safe).await.expect(method);
    }
    let with = |password: &str| {
        let user = Some(("root".to_owned(), password.to_owned()));
        Etcd::open(EtcdOptions { user, ..options(&server) })
    };
    assert!(Etcd::open(options(&server)).await.is_err(), "nobody without a name");
    assert!(with("wrong").await.is_err());
    let store = with("secret").await.expect("opens");
    committed(&store, Op::create("/registry/a", "1")).await;
    // A token that etcd has forgotten is fetched anew.
    let stale = store.client.forget_token("stale");
    assert!(stale.is_some_and(|token| !token.is_empty()));
    committed(&store, Op::create("/registry/b", "1")).await;
    assert_eq!(store.count("/registry/").await.expect("answers"), 2);
}

#[test]
fn versions_that_will_do() {
    for (version, will_do) in
        [("3.4.23", true), ("3.5.0", true), ("4.0.1", true), ("3.3.27", false), ("x", false)]
    {
        assert_eq!(is_new_enough(version), will_do, "{version}");
    }
}

#[test]
fn all_of_ours_and_nothing_else() {
    let keys = Keys { prefix: "/a".into(), root: "/registry/".into() };
    assert_eq!(keys.all(), (b"/a/registry/".to_vec(), b"/a/registry0".to_vec()));
    let kv = |key: &'static str| KeyValue { key: key.into(), ..Default::default() };
    assert_eq!(keys.entry(kv("/a/registry/x")).map(|e| e.key.to_string()), Some("/registry/x".into()));
    assert!(keys.entry(kv("/a/registry/.kedge-progress")).is_none());
}

/// One writer: counts up in a key of its own for as long as it may, and keeps what was acknowledged.
async fn count_up(
    store: Arc<Etcd>,
    key: String,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> Vec<(u64, u64)> {
    let mut acknowledged = Vec::new();
    for n in 1_u64.. {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let op = Op::put(&*key, n.to_string(), Expect::Anything);
        if let Ok(TxnResponse::Committed { revision }) = store.txn(vec![op]).await {
            acknowledged.push((revision, n));
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_over_kills_under_load_tell_everything_once() {
    const KILLS: usize = 4;
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = testkit::Etcd::required(dir.path());
    let store = Arc::new(open(&server).await);
    let begin = store.revision();
    let mut watch = store.watch("/registry/", begin).expect("watches");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(count_up(Arc::clone(&store), format!("/registry/{n}"), Arc::clone(&stop))))
        .collect();
    let mut seen = Vec::new();
    for _ in 0..KILLS {
        let enough = seen.len() + 50;
        while seen.len() < enough {
            seen.extend(soon("events", watch.next()).await.expect("no gap"));
        }
        server.kill();
        server.launch();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let acknowledged = futures::future::join_all(writers).await;
    well(&store).await;
    let last = committed(&*store, Op::put("/registry/last", "x", Expect::Anything)).await;
    while seen.last().is_none_or(|event| event.revision < last) {
        seen.extend(soon("the last event", watch.next()).await.expect("no gap"));
    }
    let told = |events: &[Arc<crate::Event>]| -> Vec<(u64, String, bytes::Bytes)> {
        events.iter().map(|e| (e.revision, e.entry.key.to_string(), e.entry.value.clone())).collect()
    };
    assert!(seen.windows(2).all(|w| w[0].revision < w[1].revision), "in order, each once");
    for (n, acknowledged) in acknowledged.into_iter().enumerate() {
        for (revision, value) in acknowledged.expect("a writer") {
            let at = seen.binary_search_by_key(&revision, |event| event.revision).expect("is told");
            let event = &seen[at].entry;
            assert_eq!(
                (&*event.key, &event.value[..]),
                (&*format!("/registry/{n}"), value.to_string().as_bytes())
            );
        }
    }
    // Whoever reads etcd's history now is told the same story.
    let other = open(&server).await;
    let mut replay = other.watch("/registry/", begin).expect("watches");
    let mut again = Vec::new();
    while again.len() < seen.len() {
        again.extend(soon("the same events", replay.next()).await.expect("events"));
    }
    assert_eq!(told(&again), told(&seen));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_takes_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut members = testkit::Etcd::members(dir.path(), 3);
    let all: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
    let address = EtcdAddress::parse(&format!("etcd://{}", all.join(","))).expect("an address");
    let store = Etcd::open(EtcdOptions::new(address)).await.expect("opens");
    let mut watch = store.watch("/registry/", store.revision()).expect("watches");
    let mut expected = Vec::new();
    // Each in its turn is the one that is spoken with, or the leader.
    for (n, member) in members.iter_mut().enumerate() {
        expected.push(committed(&store, Op::put("/registry/a", "x", Expect::Anything)).await);
        member.kill();
        let written = async {
            loop {
                // One that nobody has answered may have been done: it is not done again.
                let op = Op::create(format!("/registry/after-{n}"), "x");
                match store.txn(vec![op]).await {
                    Ok(TxnResponse::Committed { revision }) => break revision,
                    Ok(TxnResponse::Conflict { current, .. }) => {
                        break current.expect("it is ours").mod_revision;
                    }
                    Err(_) => {}
                }
            }
        };
        expected.push(soon("the other members", written).await);
        member.launch();
        well(&store).await;
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(soon("events", watch.next()).await.expect("no gap").iter().map(|e| e.revision));
    }
    assert_eq!(seen, expected);
}
