//! A server in this process, and ways to ask it.
#![allow(dead_code)]

pub mod kms;
pub mod served;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use apiserver::auth::Identity;
use apiserver::auth::authentication::Authentication;
use apiserver::auth::certificates::{Authority, Usage};
use apiserver::http::body::{Body, full, read};
use apiserver::{ApiServer, Config, Dial, RequestLimits};
use apiserver::{audit, cipher};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use serde_json::Value;
use store::{Embedded, EmbeddedOptions, Store};
use tokio::net::TcpStream;

struct Nowhere;

/// Every address of the cluster is this port of loopback.
struct ToLoopback(u16);

impl Dial for ToLoopback {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        let port = self.0;
        Box::pin(async move { TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await })
    }
}

impl Dial for Nowhere {
    fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        Box::pin(async { Err(std::io::Error::other("there are no nodes here")) })
    }
}

pub struct World {
    pub server: ApiServer,
    pub store: Arc<dyn Store>,
    /// What signs the certificates of the cluster's users.
    pub authority: Authority,
    _folder: Arc<tempfile::TempDir>,
}

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// How a server is made, where it is not as usual.
#[derive(Default)]
struct Unusual {
    options: EmbeddedOptions,
    /// The port of loopback at which all Services end; nothing can be reached otherwise.
    reaching: Option<u16>,
    authentication: Authentication,
    requests: RequestLimits,
    audit: audit::Settings,
    encryption: cipher::Settings,
}

impl World {
    pub async fn new() -> Self {
        Self::made(Unusual::default()).await
    }

    /// One whose Services all end at a port of loopback.
    pub async fn reaching(port: u16) -> Self {
        Self::made(Unusual { reaching: Some(port), ..Default::default() }).await
    }

    pub async fn with(options: EmbeddedOptions) -> Self {
        Self::made(Unusual { options, ..Default::default() }).await
    }

    /// One that believes more than its own certificates and tokens.
    pub async fn believing(authentication: Authentication) -> Self {
        Self::made(Unusual { authentication, ..Default::default() }).await
    }

    /// One that answers so many requests at once.
    pub async fn seating(seats: u32) -> Self {
        Self::limited(RequestLimits { seats: Some(seats), ..RequestLimits::default() }).await
    }

    pub async fn limited(requests: RequestLimits) -> Self {
        Self::made(Unusual { requests, ..Default::default() }).await
    }

    /// One that keeps what it is asked.
    pub async fn audited(audit: audit::Settings) -> Self {
        Self::made(Unusual { audit, ..Default::default() }).await
    }

    /// One that encrypts as a file says.
    pub async fn encrypting(encryption: cipher::Settings) -> Self {
        Self::made(Unusual { encryption, ..Default::default() }).await
    }

    async fn made(unusual: Unusual) -> Self {
        let Unusual { options, reaching, authentication, requests, audit, encryption } = unusual;
        let dial: Arc<dyn Dial> = match reaching {
            Some(port) => Arc::new(ToLoopback(port)),
            None => Arc::new(Nowhere),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let store = Embedded::open(&folder.path().join("state"), options).expect("opens");
        Self::over(Arc::new(store), Arc::new(folder), (dial, authentication, requests), (audit, encryption))
            .await
    }

    /// One over a store that is there already.
    pub async fn on(store: Arc<dyn Store>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::second(store, Arc::new(folder), cipher::Settings::default()).await
    }

    /// Another server in place of this one, over what it has stored, that encrypts as a file says.
    pub async fn restarted(self, encryption: cipher::Settings) -> Self {
        let Self { server, store, _folder, .. } = self;
        drop(server);
        Self::second(store, _folder, encryption).await
    }

    /// Another server beside this one, over the same store.
    pub async fn beside(&self, encryption: cipher::Settings) -> Self {
        Self::second(Arc::clone(&self.store), Arc::clone(&self._folder), encryption).await
    }

    async fn second(
        store: Arc<dyn Store>,
        folder: Arc<tempfile::TempDir>,
        encryption: cipher::Settings,
    ) -> Self {
        let rest = (Arc::new(Nowhere) as Arc<dyn Dial>, Authentication::default(), RequestLimits::default());
        Self::over(store, folder, rest, (audit::Settings::default(), encryption)).await
    }

    async fn over(
        store: Arc<dyn Store>,
        folder: Arc<tempfile::TempDir>,
        (dial, authentication, requests): (Arc<dyn Dial>, Authentication, RequestLimits),
        (audit, encryption): (audit::Settings, cipher::Settings),
    ) -> Self {
        let authority = Authority::open(folder.path()).expect("an authority");
        let config = Config {
            folder: folder.path().to_owned(),
            advertise: SocketAddr::from((Ipv4Addr::new(10, 44, 0, 1), 6443)),
            service_cidr: "10.43.0.0/16".into(),
            dns_address: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
            node_client: authority.issue("x", Usage::Client { group: "g".into() }).expect("issues"),
            authority: authority.certificate.clone(),
            dial,
            authentication,
            requests,
            audit,
            encryption,
        };
        let server = ApiServer::open(config, store.clone()).await.expect("starts");
        Self { server, store, authority, _folder: folder }
    }

    /// Code and body of a request as some user.
    pub async fn ask(&self, who: &Identity, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content_type =
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path)
            .header("content-type", content_type)
            .body(full(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("a request");
        let answer = self.server.handle(request, Some(who.clone())).await;
        let code = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 24).await else { panic!("{method} {path}: no body") };
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Code and body of a server-side apply as some user.
    pub async fn apply(&self, who: &Identity, path: &str, object: &Value) -> (u16, Value) {
        let request = Request::patch(format!("{path}?fieldManager=test&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(full(object.to_string()))
            .expect("a request");
        let answer = self.server.handle(request, Some(who.clone())).await;
        let code = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 24).await else { panic!("{path}: no body") };
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The answer as it is, to a request with these headers.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(full(body)).expect("a request");
        self.server.handle(request, Some(master())).await
    }

    /// Code, headers and whole body.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (u16, HeaderMap, Bytes) {
        let (parts, body) = self.raw(method, path, headers, body).await.into_parts();
        let Ok(bytes) = read(body, 1 << 26).await else { panic!("{method} {path}: no body") };
        (parts.status.as_u16(), parts.headers, bytes)
    }

    /// Code and body of a request that carries these headers and nothing else to say who sent it.
    pub async fn unknown(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if method == "POST" { "{}" } else { "" };
        let answer = self.server.handle(request.body(full(body)).expect("a request"), None).await;
        let code = answer.status().as_u16();
        let Ok(bytes) = read(answer.into_body(), 1 << 24).await else { panic!("{method} {path}: no body") };
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Who the server holds the bearer of a token for.
    pub async fn bearer(&self, token: &str) -> (u16, Value) {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let (code, answer) =
            self.unknown("POST", path, &[("authorization", &format!("Bearer {token}"))]).await;
        (code, answer["status"]["userInfo"].clone())
    }

    /// As the master, in JSON.
    pub async fn json(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.ask(&master(), method, path, body).await
    }

    /// Where its keys are.
    pub fn keys(&self) -> &std::path::Path {
        self._folder.path()
    }

    /// Everything that is on disk of the state.
    pub fn on_disk(&self) -> Vec<u8> {
        std::fs::read(self._folder.path().join("state")).expect("a file")
    }

    pub async fn grant(&self, path: &str, object: Value) {
        let (code, answer) = self.ask(&master(), "POST", path, object).await;
        assert_eq!(code, 201, "{answer}");
    }
}

pub fn master() -> Identity {
    Identity::new("root", &["system:masters"])
}
