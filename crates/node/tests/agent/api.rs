//! As much of an API server as a node needs, in memory: objects as JSON, lists, watches, patches of the kinds a node
//! sends. It stands in for the real one so that the node's own behaviour is what is tested.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// `(resource, namespace, name)`
type Key = (String, String, String);

#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    objects: Mutex<(u64, BTreeMap<Key, Value>)>,
    events: broadcast::Sender<(Key, &'static str, Value)>,
}

struct Path {
    resource: String,
    namespace: String,
    name: String,
    subresource: String,
}

fn parse(path: &str) -> Path {
    let mut parts = path.split('/').skip(1).map(str::to_owned).peekable();
    let groups = if parts.next().as_deref() == Some("apis") { 2 } else { 1 };
    let mut parts = parts.skip(groups).peekable();
    let mut namespace = String::new();
    if parts.peek().is_some_and(|part| part == "namespaces") {
        parts.next();
        namespace = parts.next().unwrap_or_default();
    }
    let mut next = || parts.next().unwrap_or_default();
    Path { resource: next(), namespace, name: next(), subresource: next() }
}

fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}

fn reply(code: u16, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *reply.status_mut() = http::StatusCode::from_u16(code).expect("a status");
    reply
}

fn failure(code: u16, reason: &str) -> Reply {
    reply(
        code,
        &json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}),
    )
}

impl Api {
    pub fn new() -> Self {
        let inner = Inner { objects: Mutex::default(), events: broadcast::Sender::new(4096) };
        Self(Arc::new(inner))
    }

    pub fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        Client::new(service, "default")
    }

    fn store(&self, key: Key, kind: &'static str, mut object: Value) -> Value {
        let mut objects = self.0.objects.lock();
        objects.0 += 1;
        object["metadata"]["resourceVersion"] = json!(objects.0.to_string());
        object["metadata"]["name"] = json!(key.2);
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = json!(key.1);
        }
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(base::id::uuid());
        }
        if kind == "DELETED" {
            objects.1.remove(&key);
        } else {
            objects.1.insert(key.clone(), object.clone());
        }
        // Nobody may be watching.
        drop(self.0.events.send((key, kind, object.clone())));
        object
    }

    pub fn put(&self, resource: &str, name: &str, object: Value) {
        let key = (resource.to_owned(), "default".to_owned(), name.to_owned());
        let kind = if self.0.objects.lock().1.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.store(key, kind, object);
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let objects = self.0.objects.lock();
        objects.1.iter().find(|(key, _)| key.0 == resource && key.2 == name).map(|(_, value)| value.clone())
    }

    /// A pod bound to the node.
    pub fn run(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("n");
        self.put("pods", name, json!({"metadata": {}, "spec": spec, "status": {"phase": "Pending"}}));
    }

    /// What `kubectl delete pod` does.
    pub fn delete(&self, name: &str, grace_seconds: i64) {
        let mut pod = self.get("pods", name).expect("the pod");
        let at = jiff::Timestamp::now()
            .checked_add(jiff::SignedDuration::from_secs(grace_seconds))
            .expect("in range");
        pod["metadata"]["deletionTimestamp"] = json!(base::time::rfc3339_seconds(at));
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        self.put("pods", name, pod);
    }

    /// Takes a pod away without anybody being told.
    pub fn forget(&self, name: &str) {
        self.0.objects.lock().1.retain(|key, _| key.0 != "pods" || key.2 != name);
    }

    pub fn names(&self, resource: &str) -> Vec<String> {
        self.0.objects.lock().1.keys().filter(|key| key.0 == resource).map(|key| key.2.clone()).collect()
    }

    /// Reasons of the events about a pod.
    pub fn reasons(&self, pod: &str) -> Vec<(String, String)> {
        let objects = self.0.objects.lock();
        let of = |event: &Value| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            (event["involvedObject"]["name"] == pod).then(|| (text("reason"), text("message")))
        };
        objects.1.iter().filter(|(key, _)| key.0 == "events").filter_map(|(_, event)| of(event)).collect()
    }

    /// Waits until an object is as expected; says what it was otherwise.
    pub async fn until(
        &self,
        resource: &str,
        name: &str,
        what: &str,
        expected: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut events = self.0.events.subscribe();
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let found = self.get(resource, name);
            if expected(found.as_ref()) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, events.recv()).await.is_err() {
                let events = self.reasons(name);
                panic!("{name} is not {what}: {:#} {events:#?}", found.unwrap_or_default()["status"]);
            }
        }
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let path = parse(request.uri().path());
        let query = request.uri().query().unwrap_or_default().to_owned();
        let method = request.method().clone();
        let key = (path.resource.clone(), path.namespace.clone(), path.name.clone());
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if method == Method::GET && path.name.is_empty() {
            let selector = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector="));
            let name = selector.and_then(|s| s.strip_prefix("metadata.name%3D")).map(str::to_owned);
            let wanted = move |other: &Key| {
                other.0 == key.0
                    && (key.1.is_empty() || key.1 == other.1)
                    && name.as_ref().is_none_or(|name| *name == other.2)
            };
            return if query.contains("watch=true") { self.watch(&query, wanted) } else { self.list(wanted) };
        }
        let found = self.0.objects.lock().1.get(&key).cloned();
        match (method, found) {
            (Method::GET, Some(object)) => reply(200, &object),
            (Method::POST, _) if path.subresource == "token" => {
                let until =
                    base::time::rfc3339_seconds(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1));
                reply(
                    201,
                    &json!({"spec": body["spec"], "status": {"token": "t0k3n", "expirationTimestamp": until}}),
                )
            }
            (Method::POST, _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (key.0, key.1, name);
                if self.0.objects.lock().1.contains_key(&key) {
                    return failure(409, "AlreadyExists");
                }
                reply(201, &self.store(key, "ADDED", body))
            }
            (Method::PATCH, Some(mut object)) => {
                merge(&mut object, &body);
                reply(200, &self.store(key, "MODIFIED", object))
            }
            (Method::DELETE, Some(object)) => {
                assert_eq!(body["gracePeriodSeconds"], 0, "a node only says that a pod is gone");
                assert_eq!(body["preconditions"]["uid"], object["metadata"]["uid"]);
                reply(200, &self.store(key, "DELETED", object))
            }
            _ => failure(404, "NotFound"),
        }
    }

    fn list(&self, wanted: impl Fn(&Key) -> bool) -> Reply {
        let objects = self.0.objects.lock();
        let items: Vec<&Value> =
            objects.1.iter().filter(|(key, _)| wanted(key)).map(|(_, value)| value).collect();
        reply(200, &json!({"metadata": {"resourceVersion": objects.0.to_string()}, "items": items}))
    }

    fn watch(&self, query: &str, wanted: impl Fn(&Key) -> bool + Send + 'static) -> Reply {
        let since: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap_or(0);
        // Subscribed before looking: what was stored since the list is sent first, what comes twice is dropped.
        let events = self.0.events.subscribe();
        let version = |object: &Value| -> u64 {
            object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0)
        };
        let objects = self.0.objects.lock();
        let missed: Vec<(Key, &'static str, Value)> = objects
            .1
            .iter()
            .filter(|(_, value)| version(value) > since)
            .map(|(key, value)| (key.clone(), "MODIFIED", value.clone()))
            .collect();
        let sent = objects.0.max(since);
        drop(objects);
        let live = futures::stream::unfold(events, |mut events| async move {
            events.recv().await.ok().map(|event| (event, events))
        });
        let live = live.filter(move |event| std::future::ready(version(&event.2) > sent));
        let stream = futures::stream::iter(missed).chain(live).filter_map(move |(key, kind, object)| {
            let line = wanted(&key).then(|| format!("{}\n", json!({"type": kind, "object": object})));
            std::future::ready(line.map(|line| Ok(Frame::data(Bytes::from(line)))))
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)))
    }
}
