//! What pods, services and nodes serve, as it is seen through the server: over TLS too, with links and redirects that lead
//! back through it, and with nothing told of who asks.

mod world;

use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;

use apiserver::auth::certificates::Usage;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use testkit::certificate::Certificate;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use world::World;
use world::served::{Served, client};

const NAMESPACE: &str = "/api/v1/namespaces/default";
const PAGE: &str = "<a href=\"/x\"><a href=\"y\">";

/// What the server behind answers.
fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    let mut set =
        |name, value: &'static str| drop(answer.headers_mut().insert(name, HeaderValue::from_static(value)));
    let body = match request.uri().path() {
        "/page" => {
            set(CONTENT_TYPE, "text/html; charset=utf-8");
            Bytes::from(PAGE)
        }
        "/packed" => {
            set(CONTENT_TYPE, "text/html");
            set(CONTENT_ENCODING, "gzip");
            let mut packed = Vec::new();
            let mut encoder = flate2::read::GzEncoder::new(PAGE.as_bytes(), flate2::Compression::best());
            encoder.read_to_end(&mut packed).expect("packs");
            Bytes::from(packed)
        }
        "/containerLogs/default/web/c"
            if request.uri().query().is_some_and(|q| q.contains("previous=true")) =>
        {
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            Bytes::from("previous terminated container \"c\" in pod \"web\" not found\n")
        }
        "/containerLogs/default/web/c" => Bytes::from("one\ntwo\n"),
        "/moved" => {
            set(LOCATION, "/there?a=b");
            *answer.status_mut() = StatusCode::FOUND;
            Bytes::new()
        }
        _ => {
            set(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
            let told = |name: &str| request.headers().get(name).map(|v| v.to_str().expect("text").to_owned());
            let names = [
                "host",
                "authorization",
                "x-remote-user",
                "impersonate-user",
                "x-forwarded-uri",
                "x-forwarded-for",
            ];
            let mut said = json!({"path": request.uri().to_string(), "method": request.method().as_str()});
            names.iter().for_each(|name| said[*name] = told(name).into());
            Bytes::from(said.to_string())
        }
    };
    *answer.body_mut() = Full::new(body);
    answer
}

/// A server on loopback, with a certificate that nobody knows or without one.
async fn backend(secure: bool) -> u16 {
    let acceptor: Option<TlsAcceptor> = secure.then(|| Certificate::of(&["somebody.example"]).acceptor());
    let (listener, port) = listener().await;
    serve(listener, acceptor);
    port
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let service = service_fn(async |request| Ok::<_, std::convert::Infallible>(answer(&request)));
                let http = hyper::server::conn::http1::Builder::new();
                match acceptor {
                    None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                    Some(acceptor) => {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            });
        }
    });
}

/// A pod, a service in front of it, and a node; every address is the port of loopback.
async fn cluster(port: u16) -> World {
    let world = World::reaching(port).await;
    world.grant(&format!("{NAMESPACE}/serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    let container = json!({"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": 8080}]});
    let pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [container]}});
    world.grant(&format!("{NAMESPACE}/pods"), pod).await;
    status(
        &world,
        &format!("{NAMESPACE}/pods/web"),
        json!({"podIP": "10.42.0.5", "podIPs": [{"ip": "10.42.0.5"}]}),
    )
    .await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    world.grant(&format!("{NAMESPACE}/services"), service).await;
    slice(&world, "web", json!([{"addresses": ["10.42.0.5"], "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}}])).await;
    world.grant("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    status(&world, "/api/v1/nodes/n", json!({"addresses": [{"type": "InternalIP", "address": "10.44.0.1"}]}))
        .await;
    world
}

async fn status(world: &World, path: &str, status: Value) {
    let (code, answer) = world.json("PATCH", &format!("{path}/status"), json!({"status": status})).await;
    assert_eq!(code, 200, "{answer}");
}

async fn slice(world: &World, service: &str, endpoints: Value) {
    let labels = json!({"kubernetes.io/service-name": service});
    let slice = json!({"metadata": {"name": service, "labels": labels}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
    world.grant("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
}

async fn get(world: &World, path: &str) -> (u16, HeaderMap, String) {
    let (code, headers, body) = world.send("GET", path, &[("host", "api.example:6443")], "").await;
    (code, headers, String::from_utf8_lossy(&body).into_owned())
}

fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> String {
    headers.get(name).map_or_else(String::new, |v| v.to_str().expect("text").to_owned())
}

/// Links and redirects lead back through the path that was asked.
async fn check_pages(world: &World, below: &str) {
    let (code, headers, page) = get(world, &format!("{below}/page")).await;
    assert_eq!((code, page), (200, PAGE.replace("/x", &format!("{below}/x"))), "{below}");
    assert_eq!(text(&headers, CONTENT_TYPE), "text/html; charset=utf-8");
    let (_, headers, packed) =
        world.send("GET", &format!("{below}/packed"), &[("accept-encoding", "gzip")], "").await;
    assert_eq!(text(&headers, CONTENT_ENCODING), "gzip");
    let mut page = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut page).expect("unpacks");
    assert_eq!(page, PAGE.replace("/x", &format!("{below}/x")), "{below}");
    let (code, headers, _) = get(world, &format!("{below}/moved")).await;
    assert_eq!((code, text(&headers, LOCATION)), (302, format!("{below}/there?a=b")));
    let (code, headers, _) = get(world, &format!("{below}?a=b")).await;
    assert_eq!((code, text(&headers, LOCATION)), (301, format!("{below}/?a=b")));
    let (code, headers, said) = get(world, &format!("{below}/a%2Fb/?c=d")).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["path"]), (200, &json!("/a/b/?c=d")), "{below}");
    assert_eq!(said["x-forwarded-uri"], format!("{below}/a/b/"));
    assert_eq!(said["host"], "api.example:6443");
    assert_eq!(text(&headers, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn pods_services_and_nodes() {
    let world = cluster(backend(false).await).await;
    for place in
        ["pods/web", "pods/web:8080", "pods/web:web", "pods/http:web:", "services/web", "services/web:80"]
    {
        // A service without a port means the port without a name, of which this one has none.
        if place != "services/web" {
            check_pages(&world, &format!("{NAMESPACE}/{place}/proxy")).await;
        }
    }
    check_pages(&world, &format!("{NAMESPACE}/services/web:http/proxy")).await;
    check_pages(&world, "/api/v1/nodes/n:9100/proxy").await;
}

#[tokio::test]
async fn backends_that_speak_tls_with_whatever_certificate() {
    let world = cluster(backend(true).await).await;
    for place in
        ["pods/https:web:8080", "pods/https:web:", "services/https:web:80", "services/https:web:http"]
    {
        check_pages(&world, &format!("{NAMESPACE}/{place}/proxy")).await;
    }
    check_pages(&world, "/api/v1/nodes/https:n:9100/proxy").await;
}

#[tokio::test]
async fn what_cannot_be_reached() {
    let check = async |world: &World, place: &str, expected: (u16, &str)| {
        let (code, answer) = world.json("GET", &format!("/api/v1/{place}/proxy/x"), Value::Null).await;
        let said = answer["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((code, said.as_str()), expected, "{place}");
    };
    let plain = cluster(backend(false).await).await;
    let service = "error trying to reach service: http: server gave HTTP response to HTTPS client";
    check(&plain, "namespaces/default/pods/https:web:8080", (503, service)).await;
    check(&plain, "namespaces/default/services/web", (503, "no endpoints available for service \"web\""))
        .await;
    check(
        &plain,
        "namespaces/default/services/web:81",
        (503, "no service port 81 found for service \"web\""),
    )
    .await;
    check(&plain, "namespaces/default/services/ftp:web:80", (400, "invalid service request \"ftp:web:80\""))
        .await;
    check(&plain, "namespaces/default/pods/a:b:c:d", (400, "invalid pod request \"a:b:c:d\"")).await;
    check(&plain, "nodes/ftp:n:80", (400, "invalid node request \"ftp:n:80\"")).await;
    let nobody =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port").local_addr().expect("an address");
    let silent = cluster(nobody.port()).await;
    let refused = "error trying to reach service: dial tcp 10.42.0.5:8080: connect: connection refused";
    check(&silent, "namespaces/default/pods/web:8080", (503, refused)).await;
}

/// Endpoints that somebody wrote lead to no address that no pod of theirs has, and pods to nothing of this machine.
#[tokio::test]
async fn nobody_is_led_elsewhere() {
    let world = cluster(backend(false).await).await;
    let service = json!({"metadata": {"name": "odd"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    world.grant(&format!("{NAMESPACE}/services"), service).await;
    let of_pod = |ip: &str, pod: &str| json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"}});
    let endpoints =
        json!([{"addresses": ["10.42.0.5"]}, of_pod("10.42.0.6", "web"), of_pod("10.42.0.5", "none")]);
    slice(&world, "odd", endpoints).await;
    let (code, _, said) = get(&world, &format!("{NAMESPACE}/services/odd:80/proxy/x")).await;
    assert_eq!((code, said.contains("no endpoints available for service")), (503, true), "{said}");
    for (place, path) in
        [("pods/web", format!("{NAMESPACE}/pods/web")), ("nodes/n", "/api/v1/nodes/n".to_owned())]
    {
        let local = json!({"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]});
        let of = |names: &[&str]| {
            Value::Object(names.iter().map(|n| ((*n).to_owned(), local[*n].clone())).collect())
        };
        let own = if place == "nodes/n" { of(&["addresses"]) } else { of(&["podIP", "podIPs"]) };
        status(&world, &path, own).await;
        let (code, _, said) = get(&world, &format!("{path}:8080/proxy/x")).await;
        assert_eq!((code, said.contains("address not allowed")), (400, true), "{place}: {said}");
    }
}

/// However a path climbs, what is asked is that pod or service, below its own root, by the right to its proxy and no other.
#[tokio::test]
async fn no_path_leads_out_through_a_proxy() {
    let served = Served::new(cluster(backend(false).await).await).await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods/proxy", "services/proxy"], "verbs": ["get"]}]);
    let subjects = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    let of_role = json!({"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    served.world.grant(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let binding = json!({"metadata": {"name": "r"}, "roleRef": of_role, "subjects": subjects});
    served.world.grant(&format!("{rbac}/rolebindings"), binding).await;
    let jane = client(&served.world.authority, "jane", "devs", 600);
    let ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n");
        let answer = served.raw(Some(&jane), request.as_bytes()).await.expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let code: u16 = head[9..12].parse().expect("a code");
        let said: Value = serde_json::from_str(body).unwrap_or_default();
        (code, said["path"].as_str().map(str::to_owned), answer.clone())
    };
    for place in ["pods/web", "services/web:http"] {
        let below = format!("{NAMESPACE}/{place}/proxy");
        for (path, asked) in [
            ("/a/../b", "/b"),
            ("/..", "/"),
            ("/../../../../secrets", "/secrets"),
            ("/../../../../../../openid/v1/jwks", "/openid/v1/jwks"),
            ("/%2e%2e/%2e%2e/x", "/x"),
            ("/..%2f..%2fx", "/x"),
            ("//other.example/x", "/other.example/x"),
            ("/http://other.example/x", "/http:/other.example/x"),
            ("/@other.example/x", "/@other.example/x"),
            ("/%00x", "/%00x"),
        ] {
            let (code, found, answer) = ask(&format!("{below}{path}")).await;
            assert_eq!((code, found.as_deref()), (200, Some(asked)), "{place}{path}: {answer}");
        }
    }
    // Nor does anything lead to a proxy, or from one name to another, that is not the path itself.
    for path in [
        format!("{NAMESPACE}/pods/web/../../secrets"),
        format!("{NAMESPACE}/secrets/x/../../pods/web/proxy/x"),
        format!("{NAMESPACE}/pods/..%2fservices%2fweb/proxy/x"),
        format!("{NAMESPACE}/pods/web%2fproxy/x"),
        "/api/v1/namespaces/default/../kube-system/pods/web/proxy/x".to_owned(),
        "/api/v1/nodes/n/proxy/x".to_owned(),
        "/api/v1/nodes/..%2fnamespaces%2fdefault%2fpods%2fweb/proxy/x".to_owned(),
    ] {
        let (code, found, answer) = ask(&path).await;
        assert!(matches!(code, 301 | 400 | 403 | 404) && found.is_none(), "{path}: {answer}");
    }
}

#[tokio::test]
async fn who_asks_is_not_told() {
    let served = Served::new(cluster(backend(false).await).await).await;
    let shown = client(&served.world.authority, "root", "system:masters", 600);
    let request = format!(
        "GET {NAMESPACE}/pods/web/proxy/told HTTP/1.1\r\nhost: api.example\r\nx-forwarded-for: 192.0.2.7\r\n\
         x-remote-user: somebody\r\nimpersonate-user: root\r\nimpersonate-group: system:masters\r\nconnection: close\r\n\r\n"
    );
    let answer = served.raw(Some(&shown), request.as_bytes()).await.expect("an answer");
    let said = answer.split_once("\r\n\r\n").expect("a body").1;
    let said: Value = serde_json::from_str(said).expect(&answer);
    assert_eq!(said["x-forwarded-for"], "192.0.2.7, 127.0.0.1");
    assert_eq!(said[HOST.as_str()], "api.example");
    for name in ["authorization", "x-remote-user", "impersonate-user"] {
        assert_eq!(said[name], Value::Null, "{name}");
    }
}

/// Logs come in messages where a WebSocket is asked for, as bytes or in base64.
#[tokio::test]
async fn logs_over_a_websocket() {
    let (listener, port) = listener().await;
    let world = cluster(port).await;
    let addresses = vec![Ipv4Addr::new(10, 44, 0, 1).into()];
    let usage = Usage::Server { names: vec!["n".into()], addresses };
    let (chain, key) = world.authority.issue("n", usage).expect("issues").parse().expect("parses");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    serve(listener, Some(Arc::new(config).into()));
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    world.grant(&format!("{NAMESPACE}/pods/web/binding"), binding).await;
    let served = Served::new(world).await;
    let shown = client(&served.world.authority, "root", "system:masters", 600);
    for (protocol, expected) in [
        ("", [Message::binary(Bytes::new()), Message::binary("one\ntwo\n")]),
        ("binary.k8s.io", [Message::binary(Bytes::new()), Message::binary("one\ntwo\n")]),
        ("base64.binary.k8s.io", [Message::text(""), Message::text("b25lCnR3bwo=")]),
    ] {
        let url = format!("wss://localhost{NAMESPACE}/pods/web/log");
        let mut request = url.into_client_request().expect("a request");
        if !protocol.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a name"));
        }
        let stream = served.connect(Some(&shown)).await.expect("connects");
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("an upgrade");
        for expected in expected {
            assert_eq!(socket.next().await.expect("a message").expect("is whole"), expected, "{protocol}");
        }
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))), "{protocol}");
    }
    // What a node says against it is told as clients read it.
    let path = format!("{NAMESPACE}/pods/web/log?previous=true");
    let (code, refusal) = served.world.json("GET", &path, Value::Null).await;
    assert_eq!(
        (code, &refusal["kind"], &refusal["reason"], &refusal["message"]),
        (
            400,
            &"Status".into(),
            &"BadRequest".into(),
            &"previous terminated container \"c\" in pod \"web\" not found".into()
        )
    );
}
