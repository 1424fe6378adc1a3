//! API aggregation: groups and versions that other servers answer for. An APIService names the server; requests are
//! passed on with who asks in headers that only our own client certificate makes credible.

mod availability;
mod endpoints;
mod local;
mod merge;
mod passing;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::{HeaderMap, header};
use api::meta;
use api::status::ApiError;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::Server;
use crate::auth::certificates::{Authority, Credential, PkiError, Usage};
use crate::backend::{Backend, BackendError, ServiceReference};
use crate::http::request::Asked;
use crate::reloaded::Reloaded;

pub const GROUP: &str = "apiregistration.k8s.io";
/// Who we are to aggregated servers; the ConfigMap that they read names it.
const CLIENT_NAME: &str = "front-proxy-client";

/// A group and version that another server answers for.
pub struct Remote {
    pub name: String,
    pub group: String,
    pub version: String,
    pub group_priority: i32,
    pub version_priority: i32,
    service: ServiceReference,
    backend: Result<Backend, BackendError>,
}

/// By group and version.
#[derive(Default)]
pub struct Remotes(BTreeMap<(String, String), Arc<Remote>>);

impl Remotes {
    pub fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&(group.to_owned(), version.to_owned()))
    }
}

impl Remotes {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was last heard of a remote server.
#[derive(Clone, Default, PartialEq)]
pub struct Heard {
    pub available: bool,
    /// Its entry in aggregated discovery: `{version, resources, …}`.
    pub discovery: Option<Value>,
    /// Where its OpenAPI v3 document is, with the hash.
    pub openapi: Option<String>,
}

pub struct Aggregation {
    pub remotes: Reloaded<Remotes>,
    heard: RwLock<BTreeMap<(String, String), Heard>>,
    /// Told when there is something to look at.
    wake: Arc<Notify>,
    client: RwLock<Credential>,
    /// Signs our client certificate, and nothing else.
    authority: Authority,
}

impl Aggregation {
    pub fn open(folder: &std::path::Path) -> Result<Self, PkiError> {
        let folder = folder.join("front-proxy");
        std::fs::create_dir_all(&folder).map_err(|source| PkiError::File { path: folder.clone(), source })?;
        let authority = Authority::open(&folder)?;
        let client = RwLock::new(Self::issue(&authority)?);
        Ok(Self {
            remotes: Reloaded::default(),
            heard: RwLock::default(),
            wake: Arc::default(),
            client,
            authority,
        })
    }

    fn issue(authority: &Authority) -> Result<Credential, PkiError> {
        authority.issue(CLIENT_NAME, Usage::Client { group: "system:front-proxy".into() })
    }

    /// Other servers are shown a new certificate from now on.
    pub fn renew(&self) -> Result<(), PkiError> {
        *self.client.write() = Self::issue(&self.authority)?;
        self.remotes.outdate();
        Ok(())
    }

    /// To be called after each write of what availability follows from.
    pub fn look(&self) {
        self.wake.notify_one();
    }

    pub fn heard(&self, remote: &Remote) -> Heard {
        let key = (remote.group.clone(), remote.version.clone());
        self.heard.read().get(&key).cloned().unwrap_or_default()
    }

    /// Each remote server by the name of its APIService, and whether it is out of reach.
    pub fn unavailable<'a>(&self, remotes: &'a Remotes) -> impl Iterator<Item = (&'a str, bool)> {
        remotes.0.values().map(|remote| (remote.name.as_str(), !self.heard(remote).available))
    }

    /// What aggregated servers are to know of whom to believe, as the ConfigMap that they read.
    pub fn authentication(&self, client_authority: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {
                "client-ca-file": client_authority,
                "requestheader-client-ca-file": self.authority.certificate,
                "requestheader-allowed-names": json!([CLIENT_NAME]).to_string(),
                "requestheader-extra-headers-prefix": json!(["X-Remote-Extra-"]).to_string(),
                "requestheader-group-headers": json!(["X-Remote-Group"]).to_string(),
                "requestheader-uid-headers": json!(["X-Remote-Uid"]).to_string(),
                "requestheader-username-headers": json!(["X-Remote-User"]).to_string(),
            },
        })
    }
}

impl Server {
    pub(crate) async fn remotes(&self) -> Result<Arc<Remotes>, ApiError> {
        self.aggregation.remotes.get(|| self.load_remotes()).await
    }

    async fn load_remotes(&self) -> Result<Remotes, ApiError> {
        let kinds = self.catalog.snapshot();
        let Some(kind) = kinds.find(GROUP, "v1", "apiservices") else { return Ok(Remotes::default()) };
        let services: Vec<APIService> = self.objects.all(kind).await?;
        let remotes = services.into_iter().filter_map(|service| self.remote(service));
        Ok(Remotes(remotes.map(|r| ((r.group.clone(), r.version.clone()), Arc::new(r))).collect()))
    }

    fn remote(&self, service: APIService) -> Option<Remote> {
        let spec = service.spec?;
        let reference = spec.service?;
        let reference = ServiceReference {
            namespace: reference.namespace.unwrap_or_default(),
            name: reference.name.unwrap_or_default(),
            port: reference.port,
            path: None,
        };
        let bundle = spec.ca_bundle.as_ref().map(|b| b.0.as_slice());
        let insecure = spec.insecure_skip_tls_verify == Some(true);
        let certificate = self.aggregation.client.read().parse().ok();
        Some(Remote {
            backend: Backend::new(None, Some(reference.clone()), bundle, insecure, certificate),
            service: reference,
            name: service.metadata.name.unwrap_or_default(),
            group: spec.group.unwrap_or_default(),
            version: spec.version.unwrap_or_default(),
            group_priority: spec.group_priority_minimum,
            version_priority: spec.version_priority,
        })
    }
}

/// The remote server that a request is about: one for a resource of its, its version's discovery or its OpenAPI.
pub fn asked<'a>(remotes: &'a Remotes, asked: &Asked) -> Option<&'a Arc<Remote>> {
    if remotes.0.is_empty() {
        return None;
    }
    match asked {
        Asked::Resource(target) => remotes.find(&target.group, &target.version),
        Asked::Path(path) => {
            let path = path.trim_matches('/');
            let inner = path.strip_prefix("openapi/v3/").unwrap_or(path).strip_prefix("apis/")?;
            let (group, version) = inner.split_once('/')?;
            remotes.find(group, version)
        }
    }
}

/// Whether what we answer to a path is not all there is to it.
pub fn is_merged(remotes: &Remotes, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let group = path.strip_prefix("/apis/").is_some_and(|rest| !rest.contains('/'));
    !remotes.0.is_empty() && (group || matches!(path, "/apis" | "/openapi/v3"))
}

/// The headers of a request whose answer is to be read and added to: plain JSON.
pub fn mergeable(given: &HeaderMap) -> HeaderMap {
    let mut headers = given.clone();
    headers.remove(header::ACCEPT_ENCODING);
    let accept = given.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let json: Vec<&str> = accept.split(',').map(str::trim).filter(|media| media.contains("json")).collect();
    let json = if json.is_empty() { "application/json".to_owned() } else { json.join(",") };
    if let Ok(json) = header::HeaderValue::from_str(&json) {
        headers.insert(header::ACCEPT, json);
    }
    headers
}

/// The `Available` condition of a status; `since` is when it became so.
fn condition(status: bool, reason: &str, message: &str, since: &str) -> Value {
    let status = if status { "True" } else { "False" };
    json!({"type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
}

/// The condition that an APIService has now.
fn available(service: &Value) -> Option<&Value> {
    let conditions = service.get("status").and_then(|s| s.get("conditions")).and_then(Value::as_array);
    conditions?.iter().find(|c| c["type"] == "Available")
}

/// Where an APIService is, for requests to ourselves.
fn path(name: &str) -> String {
    format!("/apis/{GROUP}/v1/apiservices/{name}")
}

fn automanaged(service: &Value) -> Option<&str> {
    meta::pairs(service, "labels").find(|(k, _)| *k == local::AUTOMANAGED).map(|(_, v)| v)
}
