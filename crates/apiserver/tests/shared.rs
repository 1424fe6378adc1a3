//! Two servers on one etcd are one cluster: what one has written the other acts on, and nothing that may be had once
//! is given out twice.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::auth::Identity;
use apiserver::auth::certificates::{Authority, Usage};
use apiserver::http::body::{full, read};
use apiserver::{ApiServer, Config, Dial, StartError};
use futures::future::{BoxFuture, join_all};
use http::Request;
use serde_json::{Value, json};
use store::{Etcd, EtcdAddress, EtcdOptions};
use tokio::net::TcpStream;

struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        Box::pin(async { Err(std::io::Error::other("there are no nodes here")) })
    }
}

async fn start(server: &testkit::Etcd, folder: &Path) -> Result<ApiServer, StartError> {
    let address = EtcdAddress::parse(&format!("etcd://{}", server.address)).expect("an address");
    let store = Etcd::open(EtcdOptions::new(address)).await.expect("opens");
    let authority = Authority::open(folder).expect("an authority");
    let config = Config {
        folder: folder.to_owned(),
        advertise: SocketAddr::from((Ipv4Addr::new(10, 44, 0, 1), 6443)),
        service_cidr: "10.43.0.0/16".into(),
        dns_address: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
        node_client: authority.issue("x", Usage::Client { group: "g".into() }).expect("issues"),
        authority: authority.certificate.clone(),
        dial: Arc::new(Nowhere),
        authentication: Default::default(),
        requests: Default::default(),
        audit: Default::default(),
        encryption: Default::default(),
    };
    ApiServer::open(config, Arc::new(store)).await
}

struct World {
    servers: [ApiServer; 2],
    folder: tempfile::TempDir,
    etcd: testkit::Etcd,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let etcd = testkit::Etcd::required(folder.path());
        let first = start(&etcd, folder.path()).await.expect("starts");
        let second = start(&etcd, folder.path()).await.expect("starts beside it");
        Self { servers: [first, second], folder, etcd }
    }

    async fn ask(&self, server: usize, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask_as(&Identity::new("admin", &["system:masters"]), server, method, path, body).await
    }

    async fn ask_as(
        &self,
        who: &Identity,
        server: usize,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(full(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("a request");
        let answer = self.servers[server % 2].handle(request, Some(who.clone())).await;
        let code = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 24).await else { panic!("{method} {path}: no body") };
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Until a server answers with this code.
    async fn becomes(&self, who: &Identity, server: usize, path: &str, wanted: u16) {
        let look = async {
            while self.ask_as(who, server, "GET", path, Value::Null).await.0 != wanted {
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(10), look).await;
        assert!(done.is_ok(), "{path} does not become {wanted} on server {server}");
    }
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    service["spec"]["ports"] = json!([{"port": 80}]);
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_and_ports_are_given_out_once() {
    let world = World::new().await;
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let mut made = 0;
    for round in 0..4 {
        let creations = (0..24).map(|n| {
            let object = service(&format!("s-{round}-{n}"), json!({"type": "NodePort"}));
            world.ask(n, "POST", SERVICES, object)
        });
        for (code, answer) in join_all(creations).await {
            assert_eq!(code, 201, "{answer}");
            made += 1;
            assert!(addresses.insert(answer["spec"]["clusterIP"].to_string()), "{answer}");
            assert!(ports.insert(answer["spec"]["ports"][0]["nodePort"].to_string()), "{answer}");
        }
        // The same address and port asked for at both servers at once: one gets them.
        let free = (32_000..32_767).find(|port| !ports.contains(&port.to_string())).expect("a free port");
        ports.insert(free.to_string());
        for spec in [json!({"clusterIP": format!("10.43.0.{}", 100 + round)}), json!({"type": "NodePort"})] {
            let fight = (0..8).map(|n| {
                let mut object = service(&format!("f-{round}-{n}-{}", spec["type"].is_null()), spec.clone());
                if spec["type"] == "NodePort" {
                    object["spec"]["ports"][0]["nodePort"] = json!(free);
                }
                world.ask(n, "POST", SERVICES, object)
            });
            let codes: Vec<(u16, Value)> = join_all(fight).await;
            let won = codes.iter().filter(|(code, _)| *code == 201).count();
            assert_eq!(won, 1, "{codes:#?}");
            let lost = codes.iter().find(|(code, _)| *code != 201).expect("seven of them");
            assert!(lost.0 == 422 && lost.1["message"].to_string().contains("already allocated"), "{lost:?}");
        }
    }
    assert_eq!(made, 96);
    // Each address is an object, as in the original.
    let path = "/apis/networking.k8s.io/v1/ipaddresses";
    let (_, list) = world.ask(0, "GET", path, Value::Null).await;
    let claimed: BTreeSet<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| format!("\"{}\"", item["metadata"]["name"].as_str().unwrap_or_default()))
        .collect();
    assert!(claimed.is_superset(&addresses));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_may_be_had_at_the_other() {
    let world = World::new().await;
    for n in 0..6 {
        let object = service(&format!("s-{n}"), json!({"type": "NodePort", "clusterIP": "10.43.0.77"}));
        let (code, answer) = world.ask(n, "POST", SERVICES, object).await;
        assert_eq!(code, 201, "{n}: {answer}");
        let (code, answer) = world.ask(n + 1, "DELETE", &format!("{SERVICES}/s-{n}"), Value::Null).await;
        assert_eq!(code, 200, "{answer}");
        // The next one to ask is the other server, which hears of it by its watch.
        let freed = async {
            loop {
                let mut trial = service("trial", json!({"clusterIP": "10.43.0.77"}));
                trial["metadata"]["name"] = "trial".into();
                let (code, _) = world.ask(n + 1, "POST", &format!("{SERVICES}?dryRun=All"), trial).await;
                if code == 201 {
                    break;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), freed).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_and_kinds_follow_the_other_server() {
    let world = World::new().await;
    let jane = Identity::new("jane", &["system:authenticated"]);
    let path = "/api/v1/namespaces/default/configmaps";
    assert_eq!(world.ask_as(&jane, 1, "GET", path, Value::Null).await.0, 403);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({"metadata": {"name": "jane"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    assert_eq!(world.ask(0, "POST", bindings, binding).await.0, 201);
    world.becomes(&jane, 1, path, 200).await;
    assert_eq!(world.ask(0, "DELETE", &format!("{bindings}/jane"), Value::Null).await.0, 200);
    world.becomes(&jane, 1, path, 403).await;

    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "things.example.org"}, "spec": {"group": "example.org", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let (code, answer) = world.ask(1, "POST", definitions, definition).await;
    assert_eq!(code, 201, "{answer}");
    let admin = Identity::new("admin", &["system:masters"]);
    world.becomes(&admin, 0, "/apis/example.org/v1/namespaces/default/things", 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_not_exceeded_by_asking_both() {
    let world = World::new().await;
    let namespace = json!({"metadata": {"name": "limited"}});
    assert_eq!(world.ask(0, "POST", "/api/v1/namespaces", namespace).await.0, 201);
    let quotas = "/api/v1/namespaces/limited/resourcequotas";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "5"}}});
    assert_eq!(world.ask(0, "POST", quotas, quota).await.0, 201);
    // As the controller counts it.
    let status = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "5"}},
        "status": {"hard": {"count/configmaps": "5"}, "used": {"count/configmaps": "0"}}});
    assert_eq!(world.ask(0, "PUT", &format!("{quotas}/q/status"), status).await.0, 200);
    let path = "/api/v1/namespaces/limited/configmaps";
    let asked = (0..20).map(|n| world.ask(n, "POST", path, json!({"metadata": {"name": format!("m-{n}")}})));
    let codes: Vec<u16> = join_all(asked).await.into_iter().map(|(code, _)| code).collect();
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_read_by_the_other_and_by_nobody_with_another_key() {
    let world = World::new().await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    assert_eq!(world.ask(0, "POST", "/api/v1/namespaces/default/secrets", secret).await.0, 201);
    let (code, read) = world.ask(1, "GET", "/api/v1/namespaces/default/secrets/s", Value::Null).await;
    assert_eq!((code, &read["data"]["a"]), (200, &json!("Yg==")));
    let other = tempfile::tempdir().expect("a folder");
    match start(&world.etcd, other.path()).await {
        Err(error @ StartError::OtherKeys(_)) => assert!(error.to_string().contains("copy the folder `pki`")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it started"),
    }
    assert!(start(&world.etcd, world.folder.path()).await.is_ok(), "a third with the same keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_it_is_not_ready_and_then_it_is() {
    let mut world = World::new().await;
    let admin = Identity::new("admin", &["system:masters"]);
    world.becomes(&admin, 0, "/readyz", 200).await;
    world.etcd.kill();
    let request = Request::get("/readyz?verbose").body(full("")).expect("a request");
    let answer = world.servers[0].handle(request, Some(admin.clone())).await;
    assert_eq!(answer.status(), 500);
    let Ok(text) = read(answer.into_body(), 1 << 16).await else { panic!("no body") };
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
    let (code, answer) = world.ask(0, "GET", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!((code, answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
    assert!(answer["message"].to_string().contains("etcd cannot be reached"), "{answer}");
    world.etcd.launch();
    world.becomes(&admin, 0, "/readyz", 200).await;
    world.becomes(&admin, 1, "/api/v1/namespaces/default", 200).await;
}
