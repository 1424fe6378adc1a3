//! Whether remote servers answer: looked at when something that decides it has changed, and now and then, and only while
//! there are any. What they serve is learned on the same visit.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use ::http::{Method, Request, StatusCode, header};
use api::status::ApiError;
use api::weight;
use bytes::Bytes;
use serde_json::{Value, json};

use super::endpoints;
use super::local::{self, Action};
use super::{GROUP, Heard, Remote, available, condition, path};
use crate::auth::{Identity, MASTERS};
use crate::backend::{BackendError, ServiceReference};
use crate::http::body::{self, full};
use crate::{ApiServer, Server};

const PERIOD: Duration = Duration::from_secs(30);
const VISIT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT_BYTES: usize = 8 << 20;

/// Why a remote server is not available.
pub struct Fault {
    pub reason: &'static str,
    pub message: String,
}

impl ApiServer {
    /// Follows the APIServices for as long as the server is there.
    pub(crate) fn follow_services(&self) {
        let server = std::sync::Arc::downgrade(&self.0);
        let wake = std::sync::Arc::clone(&self.0.aggregation.wake);
        wake.notify_one();
        tokio::spawn(async move {
            let mut remote = false;
            loop {
                match remote {
                    // Out of time is as good as woken: both mean to look.
                    true => drop(tokio::time::timeout(PERIOD, wake.notified()).await),
                    false => wake.notified().await,
                }
                match look(&server).await {
                    Some(Ok(any)) => remote = any,
                    Some(Err(error)) => tracing::warn!(%error, "cannot follow the APIServices"),
                    None => return,
                }
            }
        });
    }
}

/// Looks at all of them once; whether there are remote ones. Nothing when the server is gone.
async fn look(server: &Weak<Server>) -> Option<Result<bool, ApiError>> {
    let server = ApiServer(server.upgrade()?);
    Some(async { settle_local(&server).await.and(visit_all(&server).await) }.await)
}

async fn settle_local(server: &ApiServer) -> Result<(), ApiError> {
    let kinds = server.0.catalog.snapshot();
    let Some(kind) = kinds.find(GROUP, "v1", "apiservices") else { return Ok(()) };
    let existing: Vec<Value> = server.0.objects.all(kind).await?;
    let now = base::time::rfc3339_seconds(base::time::now());
    for action in local::plan(&kinds, &existing, &now) {
        match action {
            Action::Create(service) => {
                let at = path(api::meta::name(&service));
                let list = at.rsplit_once('/').map_or("", |(list, _)| list).to_owned();
                write(server, Method::POST, &list, service).await?;
                write(server, Method::PATCH, &format!("{at}/status"), local::status(&now)).await?;
            }
            Action::Status(at, status) => {
                write(server, Method::PATCH, &format!("{at}/status"), status).await?
            }
            Action::Delete(at) => write(server, Method::DELETE, &at, json!({})).await?,
        }
    }
    Ok(())
}

async fn visit_all(server: &ApiServer) -> Result<bool, ApiError> {
    let remotes = server.0.remotes().await?;
    let mut heard = BTreeMap::new();
    let mut reports = Vec::new();
    for (key, remote) in &remotes.0 {
        let before = server.0.aggregation.heard(remote);
        let visited = visit(&server.0, remote).await;
        let (now, condition) = match visited {
            Ok(now) => (now, (true, "Passed", "all checks passed".to_owned())),
            // What it serves is still known, and shown as stale.
            Err(fault) => (Heard { available: false, ..before }, (false, fault.reason, fault.message)),
        };
        heard.insert(key.clone(), now);
        reports.push((remote, condition));
    }
    *server.0.aggregation.heard.write() = heard;
    // Said when it holds: whoever reads that a server is available is let through to it.
    for (remote, condition) in reports {
        report(server, remote, condition).await?;
    }
    Ok(!remotes.0.is_empty())
}

/// What is missing of a service before anybody can be asked. What cannot be read is left to whoever asks.
async fn missing(server: &Server, service: &ServiceReference) -> Option<Fault> {
    let kinds = server.catalog.snapshot();
    let services = kinds.find("", "v1", "services")?;
    let slices = kinds.find("discovery.k8s.io", "v1", "endpointslices")?;
    let (_, found) = server.objects.get(services, &service.namespace, &service.name).await.ok()??;
    let found = serde_json::from_value(found).ok()?;
    let slices = server.objects.in_namespace(slices, &service.namespace).await.ok()?;
    endpoints::missing(&found, &slices, service.port.unwrap_or(443))
}

async fn visit(server: &Server, remote: &Remote) -> Result<Heard, Fault> {
    if let Some(fault) = missing(server, &remote.service).await {
        return Err(fault);
    }
    let service = &remote.service;
    let place = format!("service/{} in {:?}", service.name, service.namespace);
    let backend = remote
        .backend
        .as_ref()
        .map_err(|e| Fault { reason: "FailedDiscoveryCheck", message: e.to_string() })?;
    let group_version = format!("/apis/{}/{}", remote.group, remote.version);
    let failed = |error: BackendError| match error {
        BackendError::NoService(_) => {
            Fault { reason: "ServiceNotFound", message: format!("{place} is not present") }
        }
        BackendError::NoPort { port, .. } => {
            Fault { reason: "ServicePortError", message: format!("{place} is not listening on port {port}") }
        }
        BackendError::NoAddress(_) => {
            Fault { reason: "MissingEndpoints", message: format!("endpoints for {place} have no addresses") }
        }
        other => Fault {
            reason: "FailedDiscoveryCheck",
            message: format!("failing or missing response from {}{group_version}: {other}", backend.url("")),
        },
    };
    let get = async |path: &str, accept: &str| -> Result<(StatusCode, Bytes), BackendError> {
        let request = Request::get(path)
            .header(header::ACCEPT, accept)
            .header("x-remote-user", "system:kube-aggregator")
            .header("x-remote-group", MASTERS)
            .body(full(Bytes::new()))
            .map_err(|e| BackendError::Http(e.to_string()))?;
        let work = async {
            let answer = backend.send(server, request).await?;
            let code = answer.status();
            let read = body::read(body::boxed(answer.into_body()), ANSWER_LIMIT_BYTES).await;
            let bytes = read.map_err(|_| BackendError::TooLarge)?;
            weight::bounded(weight::of_json(&bytes)).map_err(|e| BackendError::Http(e.to_string()))?;
            Ok((code, bytes))
        };
        tokio::time::timeout(VISIT_TIMEOUT, work).await.unwrap_or(Err(BackendError::Timeout))
    };
    let (code, list) = get(&group_version, "application/json").await.map_err(failed)?;
    if !code.is_success() {
        return Err(failed(BackendError::Http(format!("bad status from the server: {}", code.as_u16()))));
    }
    let list = serde_json::from_slice(&list).map_err(|e| failed(BackendError::Http(e.to_string())))?;
    let index = get("/openapi/v3", "application/json").await.ok().filter(|(code, _)| code.is_success());
    let index: Value = index.and_then(|(_, bytes)| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let openapi = index["paths"][&group_version[1..]]["serverRelativeURL"].as_str().map(str::to_owned);
    Ok(Heard { available: true, discovery: Some(super::merge::discovered(&list, remote)), openapi })
}

/// Says it in the status, if it is news.
async fn report(
    server: &ApiServer,
    remote: &Remote,
    (ok, reason, message): (bool, &'static str, String),
) -> Result<(), ApiError> {
    let kinds = server.0.catalog.snapshot();
    let Some(kind) = kinds.find(GROUP, "v1", "apiservices") else { return Ok(()) };
    let Some((_, service)) = server.0.objects.get(kind, "", &remote.name).await? else { return Ok(()) };
    let before = available(&service);
    let same = |field: &str, value: &str| before.is_some_and(|c| c[field] == value);
    let status = if ok { "True" } else { "False" };
    if same("status", status) && same("reason", reason) && same("message", &message) {
        return Ok(());
    }
    let since = before.filter(|_| same("status", status)).and_then(|c| c["lastTransitionTime"].as_str());
    let now = base::time::rfc3339_seconds(base::time::now());
    let condition = condition(ok, reason, &message, since.unwrap_or(&now));
    let patch = json!({"status": {"conditions": [condition]}});
    write(server, Method::PATCH, &format!("{}/status", path(&remote.name)), patch).await
}

/// A write through the pipeline, as anybody's. What is gone meanwhile, or there already, is no error.
async fn write(server: &ApiServer, method: Method, path: &str, body: Value) -> Result<(), ApiError> {
    let form = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder()
        .method(method)
        .uri(format!("{path}?fieldManager=kube-apiserver"))
        .header(header::CONTENT_TYPE, form)
        .body(full(body.to_string()))
        .map_err(ApiError::internal)?;
    let who = Identity::new("system:apiserver", &[MASTERS]);
    let answer = server.handle(request, Some(who)).await;
    match answer.status() {
        code if code.is_success() => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(()),
        code => Err(ApiError::internal(format!("{path}: {code}"))),
    }
}
