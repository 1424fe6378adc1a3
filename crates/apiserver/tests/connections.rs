//! The server as a stranger on the network meets it: certificates that prove nothing, requests that are not what they
//! seem, and bodies made to take more than they should. Real connections over loopback.

mod world;

use std::time::Instant;

use apiserver::auth::authentication::Authentication;
use apiserver::auth::certificates::{Authority, Credential};
use apiserver::auth::request_header::RequestHeader;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use world::World;
use world::served::{LIMIT, Served, client, server_certificate};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

impl Served {
    /// The code, and who the server holds the client for; no code where the door stays shut.
    async fn who(&self, shown: Option<&Credential>, headers: &str) -> (Option<u16>, String) {
        let request = format!(
            "POST {REVIEW} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{headers}\r\n{{}}"
        );
        let Ok(answer) = self.raw(shown, request.as_bytes()).await else { return (None, String::new()) };
        let body: Value = answer
            .split_once("\r\n\r\n")
            .and_then(|(_, body)| serde_json::from_str(body).ok())
            .unwrap_or_default();
        (code(&answer), body["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_owned())
    }
}

fn code(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn stranger() -> (tempfile::TempDir, Authority) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::open(folder.path()).expect("made");
    (folder, authority)
}

#[tokio::test]
async fn a_certificate_opens_only_if_our_authority_signed_it_and_it_is_good() {
    let served = Served::new(World::new().await).await;
    let ours = &served.world.authority;
    let (_folder, theirs) = stranger();
    assert_eq!(served.who(None, "").await, (Some(401), String::new()), "nothing is shown");
    assert_eq!(served.who(Some(&client(ours, "jane", "devs", 1000)), "").await, (Some(201), "jane".into()));
    assert_eq!(
        served.who(Some(&client(&theirs, "jane", "system:masters", 1000)), "").await.0,
        None,
        "another authority"
    );
    assert_eq!(served.who(Some(&client(ours, "jane", "devs", -100)), "").await.0, None, "expired");
    // What is for serving is not for asking.
    assert_eq!(served.who(Some(&server_certificate(ours)), "").await.0, None);
    let anonymous = b"GET /api/v1/secrets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(code(&served.raw(None, anonymous).await.expect("an answer")), Some(401));
    let version = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(code(&served.raw(None, version).await.expect("an answer")), Some(401), "only probes are open");
    let health = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(code(&served.raw(None, health).await.expect("an answer")), Some(200));
}

#[tokio::test]
async fn only_a_proxy_that_was_named_speaks_for_others() {
    let (_folder, proxies) = stranger();
    let header = RequestHeader {
        authority: proxies.certificate.clone(),
        allowed_names: vec!["front".into()],
        ..Default::default()
    };
    let world = World::believing(Authentication { request_header: Some(header), ..Default::default() }).await;
    let served = Served::new(world).await;
    let claim = "X-Remote-User: boss\r\nX-Remote-Group: system:masters\r\n";
    let front = client(&proxies, "front", "g", 1000);
    assert_eq!(served.who(Some(&front), claim).await, (Some(201), "boss".into()));
    assert_eq!(served.who(Some(&front), "").await.0, Some(401), "it is nobody itself");
    let ours = client(&served.world.authority, "jane", "devs", 1000);
    assert_eq!(
        served.who(Some(&ours), claim).await,
        (Some(201), "jane".into()),
        "headers of a user are forged"
    );
    let named = client(&served.world.authority, "front", "devs", 1000);
    assert_eq!(
        served.who(Some(&named), claim).await,
        (Some(201), "front".into()),
        "also under the proxy's name"
    );
    assert_eq!(served.who(Some(&client(&proxies, "other", "g", 1000)), claim).await.0, Some(401));
    assert_eq!(served.who(None, claim).await.0, Some(401));
}

#[tokio::test]
async fn certificates_are_replaced_while_the_server_runs() {
    let served = Served::new(World::new().await).await;
    let shown = async || {
        let stream = served.connect(None).await.expect("connects");
        stream.get_ref().1.peer_certificates().expect("a chain")[0].as_ref().to_vec()
    };
    let before = shown().await;
    let mut open = served.connect(None).await.expect("connects");
    served.serving.replace(&server_certificate(&served.world.authority)).expect("replaces");
    assert_ne!(shown().await, before);
    // Who was there stays.
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .expect("sends");
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.expect("reads");
    assert_eq!(code(&answer), Some(200));
}

#[tokio::test]
async fn a_request_has_one_length() {
    let served = Served::new(World::new().await).await;
    let root = client(&served.world.authority, "root", "system:masters", 1000);
    let maps = "/api/v1/namespaces/default/configmaps";
    let create = |name: &str, more: &str| {
        let body = json!({"metadata": {"name": name}}).to_string();
        format!(
            "POST {maps} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{more}\r\n{body}",
            body.len()
        )
    };
    // Two that are what they seem both count: what follows would tell if the second were taken for one.
    let both = format!("{}{}", create("plain-1", ""), create("plain-2", "Connection: close\r\n"));
    let answer = served.raw(Some(&root), both.as_bytes()).await.expect("an answer");
    assert_eq!(answer.matches("HTTP/1.1 201").count(), 2, "{answer}");
    let smuggled = create("smuggled-1", "");
    for (what, framing) in [
        ("both", format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + smuggled.len())),
        ("two lengths", format!("Content-Length: 5\r\nContent-Length: {}\r\n", 5 + smuggled.len())),
        ("obscured", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("negative", "Content-Length: -1\r\n".to_owned()),
        ("spaced", "Content-Length : 5\r\n".to_owned()),
        ("folded", "X-A: b\r\n Content-Length: 5\r\n".to_owned()),
    ] {
        let request = format!(
            "POST {REVIEW} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}\r\n0\r\n\r\n{smuggled}"
        );
        let answer = served.raw(Some(&root), request.as_bytes()).await;
        let (code, _) = served.world.json("GET", &format!("{maps}/smuggled-1"), Value::Null).await;
        // Chunked wins over a length, and then what follows is a request of its own on a connection that must end.
        let refused =
            answer.as_ref().is_err() || answer.as_ref().is_ok_and(|a| a.matches("HTTP/1.1").count() <= 1);
        assert!(code == 404 && refused, "{what}: {answer:?}");
    }
}

/// As heard from the original: what could be read in two ways is not read, and ends its connection.
#[tokio::test]
async fn what_is_framed_oddly_is_refused_as_by_the_original() {
    let served = Served::new(World::new().await).await;
    let root = client(&served.world.authority, "root", "system:masters", 1000);
    let host = "Host: localhost\r\n";
    let next = format!("GET /version HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    let encoded = |encoding: &str| {
        format!("POST {REVIEW} HTTP/1.1\r\n{host}Transfer-Encoding: {encoding}\r\n\r\n0\r\n\r\n")
    };
    let get = |headers: &str| format!("GET /livez HTTP/1.1\r\n{headers}\r\n");
    for (request, expected) in [
        (encoded("gzip, chunked"), "HTTP/1.1 501 Not Implemented"),
        (encoded("identity, chunked"), "HTTP/1.1 501 Not Implemented"),
        (encoded("chunked, chunked"), "HTTP/1.1 501 Not Implemented"),
        (encoded("chunked\r\nTransfer-Encoding: chunked"), "HTTP/1.1 501 Not Implemented"),
        (encoded("gzip\r\nTransfer-Encoding: chunked"), "HTTP/1.1 501 Not Implemented"),
        (get(""), "HTTP/1.1 400 Bad Request"),
        (get("Host: a\r\nHost: b\r\n"), "HTTP/1.1 400 Bad Request"),
        (get("Host: a/b@c d\r\n"), "HTTP/1.1 400 Bad Request"),
        (format!("GET livez HTTP/1.1\r\n{host}\r\n"), "HTTP/1.1 400 Bad Request"),
        ("GET https://other/livez HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request"),
        (get(&format!("{host}Expect: x\r\n")), "HTTP/1.1 417 Expectation Failed"),
        (get(&format!("{host}X-A : b\r\n")), "HTTP/1.1 400 Bad Request"),
        ("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n".to_owned(), "HTTP/1.1 404 Not Found"),
    ] {
        let answer = served.raw(Some(&root), format!("{request}{next}").as_bytes()).await.expect("an answer");
        assert!(answer.starts_with(expected), "{request:?}: {answer}");
        let refused = request.starts_with("CONNECT") || answer.matches("HTTP/1.1").count() == 1;
        assert!(refused, "{request:?}: {answer}");
    }
    // What can be read in one way only is followed by the next.
    for request in [encoded("Chunked"), get(&format!("{host}Expect: 100-continue\r\n"))] {
        let answer = served.raw(Some(&root), format!("{request}{next}").as_bytes()).await.expect("an answer");
        assert_eq!(answer.matches("HTTP/1.1").count(), 2, "{request:?}: {answer}");
    }
}

/// What is too large is refused, and the connection that it came by serves on, whatever it speaks.
#[tokio::test]
async fn a_body_that_is_too_large_leaves_its_connection_usable() {
    let served = Served::new(World::new().await).await;
    let shown = client(&served.world.authority, "root", "system:masters", 600);
    let expected = [201, 413, 201, 413, 413, 201];
    for protocol in ["http/1.1", "h2"] {
        let name = protocol.replace('/', "-");
        let requests = expected.iter().enumerate().map(|(i, code)| {
            let size = if *code == 413 { 5 << 20 } else { 1 << 10 };
            let map = json!({"metadata": {"name": format!("{name}-{i}")}, "data": {"a": "x".repeat(size)}});
            let place = if protocol == "h2" { "https://localhost" } else { "" };
            Request::post(format!("{place}/api/v1/namespaces/default/configmaps"))
                .header("host", "localhost")
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(map.to_string())))
                .expect("a request")
        });
        let stream = TokioIo::new(served.connect_for(Some(&shown), protocol).await.expect("connects"));
        let codes = match protocol {
            "h2" => over_http2(stream, requests.collect()).await,
            _ => over_http1(stream, requests.collect()).await,
        };
        assert_eq!(codes, expected, "{protocol}");
    }
}

type Plain = TokioIo<TlsStream<TcpStream>>;

async fn over_http1(stream: Plain, requests: Vec<Request<Full<Bytes>>>) -> Vec<u16> {
    let (mut sender, connection) = http1::handshake(stream).await.expect("a connection");
    tokio::spawn(connection);
    let mut codes = Vec::new();
    for request in requests {
        sender.ready().await.expect("the connection stands");
        let answer = sender.send_request(request).await.expect("an answer");
        codes.push(answer.status().as_u16());
        answer.into_body().collect().await.expect("a body");
    }
    codes
}

async fn over_http2(stream: Plain, requests: Vec<Request<Full<Bytes>>>) -> Vec<u16> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), stream).await.expect("a connection");
    tokio::spawn(connection);
    let mut codes = Vec::new();
    for request in requests {
        sender.ready().await.expect("the connection stands");
        let answer = sender.send_request(request).await.expect("an answer");
        codes.push(answer.status().as_u16());
        answer.into_body().collect().await.expect("a body");
    }
    codes
}

#[tokio::test]
async fn what_is_too_large_or_too_deep_is_refused_early() {
    let served = Served::new(World::new().await).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let ask = async |content_type: &str, body: Vec<u8>| {
        let begun = Instant::now();
        let (code, _, answer) =
            served.world.send("POST", maps, &[("content-type", content_type)], body).await;
        assert!(begun.elapsed() < LIMIT, "{content_type} took {:?}", begun.elapsed());
        (code, String::from_utf8_lossy(&answer).into_owned())
    };
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(4 << 20)}}).to_string();
    assert_eq!(ask("application/json", large.into_bytes()).await.0, 413);
    let deep = format!(
        "{{\"metadata\":{{\"name\":\"deep\"}},\"data\":{}1{}}}",
        "{\"a\":".repeat(200_000),
        "}".repeat(200_000)
    );
    assert_eq!(ask("application/json", deep.into_bytes()).await.0, 400, "deep JSON");
    let brackets = format!("[{}", "[".repeat(1_000_000));
    assert_eq!(ask("application/json", brackets.into_bytes()).await.0, 400, "brackets");
    let nested =
        format!("metadata: {{name: deep}}\ndata: {}1{}", "{a: ".repeat(100_000), "}".repeat(100_000));
    assert_eq!(ask("application/yaml", nested.into_bytes()).await.0, 400, "deep YAML");
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, of) in ('b'..='j').zip('a'..) {
        laughs.push_str(&format!(
            "{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n"
        ));
    }
    let (status, answer) = ask("application/yaml", laughs.into_bytes()).await;
    assert_eq!(status, 400, "a billion laughs: {answer}");
    let protobuf = [&b"k8s\0"[..], &[0x0a; 3 << 19]].concat();
    assert_eq!(ask("application/vnd.kubernetes.protobuf", protobuf).await.0, 400, "protobuf");
    let header = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = served.raw(None, header.as_bytes()).await.unwrap_or_default();
    assert_ne!(code(&answer), Some(200), "a header without end");
}

#[tokio::test]
async fn no_name_leads_out_of_its_place() {
    let world = World::new().await;
    let binding = json!({"metadata": {"name": "all"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    world.grant("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding).await;
    let secret = json!({"metadata": {"name": "hidden"}, "stringData": {"a": "treasure"}});
    world.grant("/api/v1/namespaces/kube-system/secrets", secret).await;
    let jane = apiserver::auth::Identity::new("jane", &[]);
    for path in [
        "/api/v1/namespaces/default/../kube-system/secrets/hidden",
        "/api/v1/namespaces/default%2F..%2Fkube-system/secrets/hidden",
        "/api/v1/namespaces/default/secrets/..%2F..%2Fkube-system%2Fsecrets%2Fhidden",
        "/api/v1/namespaces/default/secrets/..%2Fkube-system%2Fhidden",
        "/api/v1/namespaces/default/secrets/%2e%2e/%2e%2e/kube-system/secrets/hidden",
        "/api/v1//namespaces/kube-system/secrets/hidden",
        "/api/v1/namespaces/default//kube-system/secrets/hidden",
        "/api/v1/namespaces/default/secrets/hidden%00",
        "/api/v1/namespaces/default/services/x/proxy/../../../../kube-system/secrets/hidden",
        "/api/v1/namespaces/default/pods/..%2f..%2f..%2fnodes/proxy/configz",
        "/livez/../api/v1/namespaces/kube-system/secrets/hidden",
        "/readyz/%2e%2e/api/v1/secrets",
    ] {
        let (code, answer) = world.ask(&jane, "GET", path, Value::Null).await;
        let text = answer.to_string();
        assert!(code >= 400 && !text.contains("dHJlYXN1cmU"), "{path}: {code} {text}");
        let (code, answer) = world.unknown("GET", path, &[]).await;
        assert!(code >= 400, "{path}: {code} {answer}");
    }
    for name in ["..", ".", "a/b", "a%2Fb", "a\u{0}b", "../x"] {
        let (code, answer) = world
            .json("POST", "/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": name}}))
            .await;
        assert_eq!(code, 422, "{name:?}: {answer}");
    }
}

#[tokio::test]
async fn patterns_and_expressions_of_users_are_bounded() {
    let world = World::new().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = |plural: &str, spec: Value| {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        json!({"metadata": {"name": format!("{plural}.bombs.example")}, "spec": {"group": "bombs.example", "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural, "kind": format!("K{plural}"), "listKind": format!("L{plural}")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    let begun = Instant::now();
    let text = |pattern: &str| json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}});
    let (code, answer) = world.json("POST", crds, definition("slow", text("^(a+)+$"))).await;
    assert_eq!(code, 201, "{answer}");
    let object = json!({"apiVersion": "bombs.example/v1", "kind": "Kslow", "metadata": {"name": "x"}, "spec": {"a": format!("{}!", "a".repeat(100_000))}});
    let (code, _) = world.json("POST", "/apis/bombs.example/v1/namespaces/default/slow", object).await;
    assert_eq!(code, 422, "a pattern that others take ages over");
    let (code, answer) = world.json("POST", crds, definition("huge", text("((a{1000}){1000}){1000}"))).await;
    assert!(code == 422 || code == 201, "{answer}");
    let list = json!({"type": "array", "items": {"type": "integer"}});
    let rule = "self.a.all(x, self.a.all(y, self.a.all(z, x + y + z >= 0)))";
    let costly =
        json!({"type": "object", "properties": {"a": list}, "x-kubernetes-validations": [{"rule": rule}]});
    let (code, answer) = world.json("POST", crds, definition("costly", costly)).await;
    assert_eq!(code, 422, "what a rule may cost is known before: {answer}");
    assert!(begun.elapsed() < LIMIT, "took {:?}", begun.elapsed());
}
