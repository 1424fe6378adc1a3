//! Clients that stop half way, over real connections: whatever they leave open ends, and what was held for them is given
//! back. The limits are those of `ConnectionLimits`, made short.

mod world;

use std::time::{Duration, Instant};

use apiserver::RequestLimits;
use apiserver::auth::certificates::Credential;
use apiserver::http::serve::ConnectionLimits;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use world::World;
use world::served::{LIMIT, Served, client};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LONG: Duration = Duration::from_secs(600);

/// Limits that no test meets by chance.
fn patient() -> ConnectionLimits {
    ConnectionLimits {
        connections: 100,
        handshake: LONG,
        head: LONG,
        idle: LONG,
        idle_min: Duration::from_millis(200),
        stall: LONG,
    }
}

const SHORT: Duration = Duration::from_millis(500);

/// How long it takes until the server ends a connection.
async fn ended(mut stream: impl AsyncReadExt + Unpin) -> Duration {
    let begun = Instant::now();
    let mut read = Vec::new();
    // Some end without saying so.
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut read)).await.expect("the connection ends");
    drop(end);
    begun.elapsed()
}

fn root(served: &Served) -> Credential {
    client(&served.world.authority, "root", "system:masters", 1000)
}

async fn is_served(served: &Served) {
    let health = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = served.raw(None, health).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends() {
    let served = Served::within(World::new().await, ConnectionLimits { handshake: SHORT, ..patient() }).await;
    let silent = TcpStream::connect(served.address).await.expect("connects");
    let mut begun = TcpStream::connect(served.address).await.expect("connects");
    begun.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("sends");
    let (a, b) = tokio::join!(ended(silent), ended(begun));
    assert!(a < LIMIT / 2 && b < LIMIT / 2, "{a:?} {b:?}");
    is_served(&served).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let served = Served::within(World::new().await, ConnectionLimits { head: SHORT, ..patient() }).await;
    let silent = served.connect(None).await.expect("connects");
    let mut half = served.connect(None).await.expect("connects");
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.expect("sends");
    let silent_http2 = served.connect_for(None, "h2").await.expect("connects");
    let (a, b, c) = tokio::join!(ended(silent), ended(half), ended(silent_http2));
    assert!(a < LIMIT / 2 && b < LIMIT / 2 && c < LIMIT / 2, "{a:?} {b:?} {c:?}");
    is_served(&served).await;
}

#[tokio::test]
async fn connections_that_nobody_uses_end() {
    let served = Served::within(World::new().await, ConnectionLimits { idle: SHORT, ..patient() }).await;
    let mut http1 = served.connect(None).await.expect("connects");
    http1.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("sends");
    // One that has agreed on HTTP/2 and says nothing, one that has begun to, and one that has once asked.
    let silent = served.connect_for(None, "h2").await.expect("connects");
    let mut half = served.connect_for(None, "h2").await.expect("connects");
    half.write_all(b"PRI * HTTP/2").await.expect("sends");
    let used = async {
        let stream = served.connect_for(None, "h2").await.expect("connects");
        let (mut sender, connection) = shake(stream, http2::Builder::new(TokioExecutor::new())).await;
        let begun = Instant::now();
        let answer = sender.send_request(get("/livez")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        drop(answer);
        tokio::time::timeout(LIMIT, connection).await.expect("it ends").expect("and did not panic");
        begun.elapsed()
    };
    let (a, b, c, d) = tokio::join!(ended(http1), ended(silent), ended(half), used);
    // A farewell is waited for.
    assert!(a < LIMIT / 2 && b < LIMIT / 2 && c < LIMIT / 2 && d < LIMIT / 2, "{a:?} {b:?} {c:?} {d:?}");
    is_served(&served).await;
}

#[tokio::test]
async fn idle_connections_make_room_and_used_ones_keep_their_place() {
    let limits = ConnectionLimits { connections: 4, ..patient() };
    let served = Served::within(World::new().await, limits).await;
    let root = root(&served);
    let mut watching = served.connect(Some(&root)).await.expect("connects");
    let watch = format!(
        "GET {MAPS}?watch=1&resourceVersion=0&allowWatchBookmarks=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
    );
    watching.write_all(watch.as_bytes()).await.expect("sends");
    let mut first = vec![0; 16];
    watching.read_exact(&mut first).await.expect("an answer");
    let mut idle = Vec::new();
    for _ in 0..20 {
        // Each takes a place and keeps it, without asking for anything.
        let connected = tokio::time::timeout(LIMIT, served.connect(None)).await.expect("there is room");
        idle.push(connected.expect("connects"));
    }
    is_served(&served).await;
    served.world.grant(MAPS, json!({"metadata": {"name": "news"}})).await;
    let mut read = String::new();
    let work = async {
        let mut piece = vec![0; 4096];
        while !read.contains("\"news\"") {
            let length = watching.read(&mut piece).await.expect("reads");
            assert!(length > 0, "the watch was ended: {read}");
            read += &String::from_utf8_lossy(&piece[..length]);
        }
    };
    tokio::time::timeout(LIMIT, work).await.expect("the watch goes on");
}

/// Whoever takes all places with the beginning of a handshake keeps nobody out.
#[tokio::test]
async fn handshakes_that_are_not_finished_make_room() {
    let limits = ConnectionLimits { connections: 4, ..patient() };
    let served = Served::within(World::new().await, limits).await;
    let mut hellos = Vec::new();
    for _ in 0..20 {
        let mut hello = TcpStream::connect(served.address).await.expect("connects");
        hello.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("sends");
        hellos.push(hello);
    }
    tokio::time::timeout(LIMIT, is_served(&served)).await.expect("there is room");
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const TEXT_BYTES: usize = 900 << 10;
/// Whatever is shorter than this is not all of it.
const WHOLE_BYTES: usize = NAMES.len() * TEXT_BYTES;

const HALF: usize = 200;

/// All places are taken by those that stop half way, in the handshake or in the head of a request: a node renews its lease all the same, on
/// a connection that it has and on a new one.
#[tokio::test]
async fn half_open_connections_hold_up_no_lease() {
    let limits = ConnectionLimits { connections: 2 * HALF, ..patient() };
    let served = Served::within(World::new().await, limits).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let (code, answer) = served
        .world
        .json("POST", "/api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}}))
        .await;
    assert!(matches!(code, 201 | 409), "{answer}");
    let node = client(&served.world.authority, "system:node:n", "system:nodes", 1000);
    let lease = |seconds: i32| {
        json!({"metadata": {"name": "n"}, "spec": {"holderIdentity": "n", "leaseDurationSeconds": seconds}})
            .to_string()
    };
    // As agents do it: a connection of many streams, with a watch on it.
    let stream = served.connect_for(Some(&node), "h2").await.expect("connects");
    let (mut held, _connection) = shake_full(stream).await;
    let own_pods = "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn";
    let watch = held.send_request(whole("GET", own_pods, String::new())).await.expect("an answer");
    assert_eq!(watch.status(), 200);
    let made = held.send_request(whole("POST", leases, lease(1))).await.expect("an answer");
    assert_eq!(made.status(), 201);

    let mut heads = Vec::new();
    for _ in 0..HALF {
        let mut head = served.connect(None).await.expect("connects");
        head.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.expect("sends");
        heads.push(head);
    }
    let mut hellos = Vec::new();
    for _ in 0..HALF {
        let mut hello = TcpStream::connect(served.address).await.expect("connects");
        hello.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.expect("sends");
        hellos.push(hello);
    }
    let path = format!("{leases}/n");
    let renewing = async {
        for round in 2..6 {
            let renewed = held.send_request(whole("PATCH", &path, lease(round))).await.expect("an answer");
            assert_eq!(renewed.status(), 200, "on the connection that it has");
            let body = lease(round + 10);
            let request = format!(
                "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/merge-patch+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let answer = served.raw(Some(&node), request.as_bytes()).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    };
    tokio::time::timeout(LIMIT, renewing).await.expect("there is room");
    let (_, kept) = served.world.json("GET", &path, Value::Null).await;
    assert_eq!(kept["spec"]["leaseDurationSeconds"], 15, "{kept}");
}

fn whole(method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = request.header("content-type", kind);
    request.body(Full::new(Bytes::from(body))).expect("a request")
}

async fn shake_full(
    stream: TlsStream<TcpStream>,
) -> (http2::SendRequest<Full<Bytes>>, tokio::task::JoinHandle<hyper::Result<()>>) {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a connection");
    (sender, tokio::spawn(connection))
}

/// A hundred streams of a connection are served at once; the next one has its turn when one of them ends.
#[tokio::test]
async fn more_streams_than_there_may_be_wait_their_turn() {
    let served = Served::within(World::new().await, patient()).await;
    let root = root(&served);
    let stream = served.connect_for(Some(&root), "h2").await.expect("connects");
    let (mut sender, _connection) = shake_full(stream).await;
    // What the server allows is known once it has answered.
    let first = sender.send_request(whole("GET", "/livez", String::new())).await.expect("an answer");
    first.into_body().collect().await.expect("a body");
    let path = format!("{MAPS}?watch=1");
    let mut watches = Vec::new();
    for _ in 0..100 {
        let watch = sender.send_request(whole("GET", &path, String::new())).await.expect("an answer");
        assert_eq!(watch.status(), 200);
        watches.push(watch);
    }
    let mut next = std::pin::pin!(sender.send_request(whole("GET", "/livez", String::new())));
    // Others are answered meanwhile.
    tokio::select! {
        biased;
        answer = &mut next => panic!("a stream too many was served: {answer:?}"),
        () = async { for _ in 0..5 { is_served(&served).await } } => {}
    }
    watches.pop();
    let answer = tokio::time::timeout(LIMIT, next).await.expect("it has its turn").expect("an answer");
    assert_eq!(answer.status(), 200);
}

/// A server whose list is some megabytes, and one seat for `jane` who reads it.
async fn large(limits: ConnectionLimits, requests: RequestLimits) -> (Served, Credential) {
    let world = World::limited(requests).await;
    let text = "x".repeat(TEXT_BYTES);
    for name in NAMES {
        world.grant(MAPS, json!({"metadata": {"name": name}, "data": {"text": text}})).await;
    }
    let subject = json!({"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "jane"}, "roleRef": role, "subjects": [subject]});
    world.grant(&format!("{}/clusterrolebindings", world::RBAC), binding).await;
    let jane = client(&world.authority, "jane", "devs", 1000);
    (Served::within(world, limits).await, jane)
}

/// Seats that lists are being read from.
async fn seats_in_use(served: &Served) -> i64 {
    let (_, _, text) = served.world.send("GET", "/metrics", &[], "").await;
    let text = String::from_utf8_lossy(&text).into_owned();
    const NAME: &str = "apiserver_flowcontrol_current_executing_seats{flow_schema=\"global-default\"";
    let line = text.lines().find(|l| l.starts_with(NAME)).expect("a line");
    line.rsplit_once(' ').and_then(|(_, n)| n.parse().ok()).expect("a number")
}

async fn until_seats(served: &Served, wanted: impl Fn(i64) -> bool) -> Duration {
    let begun = Instant::now();
    loop {
        let seats = seats_in_use(served).await;
        if wanted(seats) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LIMIT, "{seats} seats are in use");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://localhost{path}")).body(Empty::new()).expect("a request")
}

type Sender = http2::SendRequest<Empty<Bytes>>;

async fn shake(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    builder: http2::Builder<TokioExecutor>,
) -> (Sender, tokio::task::JoinHandle<()>) {
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
    // However it ends.
    (sender, tokio::spawn(async move { drop(connection.await) }))
}

#[tokio::test]
async fn a_list_that_is_not_read_gives_its_seats_back() {
    let limits = ConnectionLimits { stall: SHORT, ..patient() };
    let (served, jane) = large(limits, RequestLimits { seats: Some(100), ..RequestLimits::default() }).await;
    // HTTP/1.1: the connection ends.
    let mut lazy = served.connect(Some(&jane)).await.expect("connects");
    lazy.write_all(format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .await
        .expect("sends");
    until_seats(&served, |seats| seats > 0).await;
    until_seats(&served, |seats| seats == 0).await;
    let mut read = Vec::new();
    drop(tokio::time::timeout(LIMIT, lazy.read_to_end(&mut read)).await.expect("it ends"));
    assert!(read.len() < WHOLE_BYTES, "it was read to its end: {}", read.len());
    // HTTP/2: only the stream ends, others of the connection go on.
    let stream = served.connect_for(Some(&jane), "h2").await.expect("connects");
    let (mut sender, _connection) = shake(stream, http2::Builder::new(TokioExecutor::new())).await;
    let lazy = sender.send_request(get(MAPS)).await.expect("an answer");
    until_seats(&served, |seats| seats > 0).await;
    until_seats(&served, |seats| seats == 0).await;
    let read = lazy.into_body().collect().await;
    assert!(read.is_err(), "it was read to its end");
    assert_eq!(sender.send_request(get("/version")).await.expect("an answer").status(), 200);
}

/// Frames of HTTP/2 that ask for all of these at once and open every window as wide as it goes: by hand, as clients that are
/// written well read what comes.
fn asking(paths: &[String]) -> Vec<u8> {
    const WIDE: u32 = 1 << 30;
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        out.extend_from_slice(&u32::try_from(payload.len()).expect("short").to_be_bytes()[1..]);
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
    };
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    const HEADERS: u8 = 1;
    // The window that each stream begins with.
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &WIDE.to_be_bytes()].concat());
    frame(WINDOW_UPDATE, 0, 0, &(WIDE - 65_535).to_be_bytes());
    for (stream, path) in (1..).step_by(2).zip(paths) {
        let text = |text: &str| [&[u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat();
        // A GET over HTTPS, then the names of an authority and a path with their values.
        let head = [&[0x82, 0x87, 0x01][..], &text("localhost"), &[0x04], &text(path)].concat();
        frame(HEADERS, 0x5, stream, &head);
    }
    out
}

/// One that takes nothing at all from its connection, after having opened many streams.
#[tokio::test]
async fn a_connection_that_is_not_read_ends_with_all_its_streams() {
    const WATCHES: usize = 50;
    let limits = ConnectionLimits { stall: SHORT, ..patient() };
    let (served, jane) = large(limits, RequestLimits { seats: Some(100), ..RequestLimits::default() }).await;
    let watching = async || -> i64 {
        let (_, _, text) = served.world.send("GET", "/metrics", &[], "").await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text.lines().filter(|l| l.starts_with("apiserver_longrunning_requests{"));
        lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<i64>().ok()).sum()
    };
    let until = async |wanted: i64| {
        let begun = Instant::now();
        loop {
            let open = watching().await;
            if open == wanted {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{open} are watching");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut stream = served.connect_for(Some(&jane), "h2").await.expect("connects");
    let watch = format!("{MAPS}?watch=1&resourceVersion=0");
    let paths = [vec![MAPS.to_owned()], vec![watch; WATCHES]].concat();
    stream.write_all(&asking(&paths)).await.expect("sends");
    stream.flush().await.expect("sends");
    until(WATCHES as i64).await;
    until(0).await;
    until_seats(&served, |seats| seats == 0).await;
    is_served(&served).await;
    drop(stream);
}

#[tokio::test]
async fn a_list_that_is_read_drop_by_drop_has_as_long_as_a_request_has() {
    let requests = RequestLimits { seats: Some(100), timeout: Duration::from_secs(3) };
    let (served, jane) = large(patient(), requests).await;
    let mut slow = served.connect(Some(&jane)).await.expect("connects");
    slow.write_all(format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
        .await
        .expect("sends");
    let begun = Instant::now();
    let (mut piece, mut read) = (vec![0; 64 << 10], 0);
    loop {
        match tokio::time::timeout(LIMIT, slow.read(&mut piece)).await.expect("it goes on or ends") {
            Ok(0) | Err(_) => break,
            Ok(length) => read += length,
        }
        // It goes on, but to its end would take most of a minute.
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    assert!(read < WHOLE_BYTES && begun.elapsed() < LIMIT, "{read} bytes in {:?}", begun.elapsed());
    until_seats(&served, |seats| seats == 0).await;
    // Read at once, it comes whole.
    let whole = format!("GET {MAPS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(served.raw(Some(&jane), whole.as_bytes()).await.expect("an answer").len() > WHOLE_BYTES);
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_in_the_time_a_request_has() {
    let requests = RequestLimits { seats: None, timeout: Duration::from_secs(2) };
    let served = Served::within(World::limited(requests).await, patient()).await;
    let root = root(&served);
    let begun = Instant::now();
    let request = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    let mut stream = served.connect(Some(&root)).await.expect("connects");
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = vec![0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");
    assert!(begun.elapsed() < LIMIT / 2);
    let (code, list) = served.world.json("GET", MAPS, Value::Null).await;
    assert_eq!((code, list["items"].as_array().map(Vec::len)), (200, Some(0)));
}

#[tokio::test]
async fn watchers_that_do_not_read_are_cut_and_others_are_not() {
    let (served, jane) =
        large(ConnectionLimits { stall: SHORT, ..patient() }, RequestLimits::default()).await;
    let path = format!("{MAPS}?watch=1&resourceVersion=0");
    // Eleven megabytes of first events, of which nothing is taken.
    let stream = served.connect_for(Some(&jane), "h2").await.expect("connects");
    let (mut sender, _connection) = shake(stream, http2::Builder::new(TokioExecutor::new())).await;
    let lazy = sender.send_request(get(&path)).await.expect("an answer");
    let attentive = sender.send_request(get(&path)).await.expect("an answer");
    let count = async |mut body: hyper::body::Incoming, enough: usize| {
        let mut read = 0;
        while read < enough {
            match tokio::time::timeout(LIMIT, body.frame()).await.expect("it goes on or ends") {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                _ => break,
            }
        }
        read
    };
    assert!(count(attentive.into_body(), WHOLE_BYTES).await >= WHOLE_BYTES);
    let (watching, begun) = ("apiserver_longrunning_requests{", Instant::now());
    loop {
        let (_, _, text) = served.world.send("GET", "/metrics", &[], "").await;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text.lines().filter(|l| l.starts_with(watching) && l.contains("\"configmaps\""));
        let open: i64 = lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<i64>().ok()).sum();
        if open == 0 {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{open} are watching");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(count(lazy.into_body(), WHOLE_BYTES).await < WHOLE_BYTES);
}
