//! What is kept of one request while it is answered. The parts of the server that have something to tell find the trail
//! through the task they run in: where nothing is audited there is none, and telling costs a look.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request, StatusCode, header};
use api::status::ApiError;
use base::time::now;
use bytes::Bytes;
use futures::future::Either;
use http_body::Body as _;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::event::{AuthenticationMetadata, Event, Received, User, response_status, without_managed_fields};
use super::latency::{Latencies, Layer};
use super::policy::{Decision, Level, Stage};
use super::{Audit, Peer};
use crate::Server;
use crate::auth::rbac::Attributes;
use crate::auth::{Identity, MASTERS};
use crate::http::body::{Body, full, holding, whole};
use crate::http::query::Query;
use crate::http::request::Asked;
use crate::http::respond::Answer;

tokio::task_local! {
    static TRAIL: Arc<Trail>;
}

/// Where answers that say how it went (`Status`) are expected among those that are no failure.
const STATUS_MAX_BYTES: u64 = 16 << 10;
/// Of an answer that a policy asks for; of a larger one it is told how it ended.
const KEPT_MAX_BYTES: usize = 64 << 20;
/// Of one that is looked at for its status.
const REFUSAL_MAX_BYTES: usize = 1 << 20;
/// How long those of other servers may take to come whole.
const KEPT_WAIT: Duration = Duration::from_secs(10);

pub struct Trail {
    audit: Arc<Audit>,
    received: Received,
    /// The answer lasts as long as whoever asked wants.
    long: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    decision: Decision,
    /// None until it is known who asks, and where the policy keeps nothing.
    event: Option<Event>,
    latencies: Latencies,
    decided: bool,
    complete: bool,
}

impl Trail {
    pub fn begin(audit: &Arc<Audit>, request: &Request<Body>, audit_id: &str) -> Arc<Self> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let asked = Asked::parse(request.method(), request.uri().path(), &query);
        let (api_version, long) = match &asked {
            Asked::Resource(target) => (target.version.clone(), target.verb == "watch" || target.streams()),
            Asked::Path(_) => (String::new(), false),
        };
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        let received = Received {
            audit_id: audit_id.to_owned(),
            uri: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            user_agent: user_agent.unwrap_or_default().to_owned(),
            source_ips: sources(request.headers(), request.extensions().get::<Peer>()),
            api_version,
            what: asked.attributes(request.method()),
            at: now(),
        };
        Arc::new(Self { audit: Arc::clone(audit), received, long, state: Mutex::default() })
    }

    /// Has the policy decide; says whether anything is kept.
    fn decide(&self, who: Option<&Identity>) -> bool {
        let mut state = self.state.lock();
        state.decided = true;
        state.decision = self.audit.decide(who, &self.received.what);
        let level = state.decision.level;
        if level == Level::None {
            return false;
        }
        let mut event = Event::new(&self.received, level);
        event.user = who.map(User::from).unwrap_or_default();
        state.event = Some(event);
        true
    }

    fn change(&self, change: impl FnOnce(&mut Event)) {
        if let Some(event) = &mut self.state.lock().event {
            change(event);
        }
    }

    /// The event as it is now, unless the policy leaves this stage out.
    fn line(&self, stage: Stage) -> Option<Bytes> {
        let mut state = self.state.lock();
        if matches!(stage, Stage::ResponseComplete | Stage::Panic) {
            state.complete = true;
        }
        if state.decision.omit_stages.contains(&stage) {
            return None;
        }
        let State { event, latencies, .. } = &mut *state;
        let event = event.as_mut()?;
        if stage == Stage::ResponseComplete {
            let total = Duration::try_from(now().duration_since(self.received.at)).unwrap_or_default();
            event.annotations.extend(latencies.annotations(total));
        }
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = base::time::rfc3339_micros(now());
        }
        event.to_json().inspect_err(|error| tracing::error!(%error, "an event cannot be written")).ok()
    }

    async fn emit(&self, stage: Stage) -> bool {
        match self.line(stage) {
            Some(line) => self.audit.take(line).await,
            None => true,
        }
    }

    /// Records the answer. One that lasts is complete when its body is gone.
    pub async fn end(self: Arc<Self>, answer: Answer) -> Answer {
        let known = self.state.lock().decided;
        if !known && !self.decide(None) {
            self.state.lock().complete = true;
            return answer;
        }
        if self.state.lock().event.is_none() {
            return answer;
        }
        let answer = self.answered(answer).await;
        if !known {
            // Nobody got in: there is nothing to complete.
            self.emit(Stage::ResponseStarted).await;
            self.state.lock().complete = true;
            return answer;
        }
        if self.long {
            self.emit(Stage::ResponseStarted).await;
            if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                return answer.map(|body| holding(body, self));
            }
        }
        self.emit(Stage::ResponseComplete).await;
        answer
    }

    /// What the answer was goes into the event.
    async fn answered(&self, answer: Answer) -> Answer {
        let code = answer.status();
        let what = &self.received.what;
        let level = self.state.lock().decision.level;
        let fails = code.is_client_error() || code.is_server_error();
        let streams = self.long && !fails;
        let keeps = level == Level::RequestResponse && what.is_resource() && !streams;
        let small = answer.body().size_hint().exact().is_some_and(|n| n <= STATUS_MAX_BYTES);
        let may_tell = matches!(&*what.verb, "delete" | "create") && small;
        if streams || !(keeps || fails || may_tell) {
            self.change(|event| event.response_status = Some(response_status(code.as_u16(), None)));
            return answer;
        }
        let (parts, body) = answer.into_parts();
        // Others' answers may have no end, and are not waited for without one.
        let limit_bytes = if keeps { KEPT_MAX_BYTES } else { REFUSAL_MAX_BYTES };
        let bytes = match whole(body, limit_bytes, tokio::time::Instant::now() + KEPT_WAIT).await {
            Ok(bytes) => bytes,
            Err(body) => {
                self.change(|event| event.response_status = Some(response_status(code.as_u16(), None)));
                return Answer::from_parts(parts, body);
            }
        };
        let media = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let tells = fails || bytes.starts_with(br#"{"#) && small || !media.contains("json") && small;
        let value = if keeps || tells { value(&bytes, media) } else { None };
        let omits = self.state.lock().decision.omit_managed_fields;
        // What is wrong with a Secret is often told with what is in it, which no policy has asked for here.
        let wrong = matches!(code.as_u16(), 400 | 422 | 500);
        let hides = wrong && level == Level::Metadata && what.group.is_empty() && what.resource == "secrets";
        self.change(|event| {
            let mut status = response_status(code.as_u16(), value.as_ref());
            if let Some(status) = status.as_object_mut().filter(|_| hides) {
                status.remove("message");
                status.remove("details");
            }
            event.response_status = Some(status);
            event.response_object = value.filter(|_| keeps).and_then(|value| raw(value, omits));
        });
        Answer::from_parts(parts, full(bytes))
    }

    pub async fn panicked(&self) {
        let error = ApiError::internal("the request's handler panicked");
        let status = crate::http::respond::status(&error);
        self.change(|event| event.response_status = Some(response_status(500, Some(&status))));
        self.emit(Stage::Panic).await;
    }

    fn request_object(&self, value: &Value, is_whole: bool) {
        let (level, omits) = {
            let state = self.state.lock();
            (state.decision.level, state.decision.omit_managed_fields)
        };
        self.change(|event| {
            if let Some(reference) = event.object_ref.as_mut().filter(|_| is_whole) {
                let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
                for (held, field) in [
                    (&mut reference.namespace, "namespace"),
                    (&mut reference.name, "name"),
                    (&mut reference.uid, "uid"),
                    (&mut reference.resource_version, "resourceVersion"),
                ] {
                    if held.is_empty() {
                        *held = text(field);
                    }
                }
            }
            if level >= Level::Request && event.request_object.is_none() {
                event.request_object = raw(value.clone(), omits);
            }
        });
    }
}

/// A request that nobody waits for any more, and an answer that has lasted, end here.
impl Drop for Trail {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.complete || !state.decided {
            return;
        }
        if let Some(event) = &mut state.event
            && event.response_status.is_none()
        {
            let mut status = response_status(200, None);
            status["status"] = "Success".into();
            status["message"] = "Connection closed early".into();
            event.response_status = Some(status);
        }
        let Some(line) = self.line(Stage::ResponseComplete) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let audit = Arc::clone(&self.audit);
            runtime.spawn(async move { audit.take(line).await });
        }
    }
}

fn value(bytes: &[u8], media: &str) -> Option<Value> {
    match media {
        _ if media.contains("json") => serde_json::from_slice(bytes).ok(),
        _ if media.starts_with("application/vnd.kubernetes.protobuf") => api::proto::decode(bytes).ok(),
        _ if media.contains("yaml") => api::yaml::parse_one(std::str::from_utf8(bytes).ok()?).ok(),
        _ => None,
    }
}

fn raw(mut value: Value, without_owners: bool) -> Option<Box<RawValue>> {
    if without_owners {
        without_managed_fields(&mut value);
    }
    to_raw_value(&value).ok()
}

/// Where a request comes from: as proxies say, and who holds the connection.
fn sources(headers: &HeaderMap, peer: Option<&Peer>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let mut out: Vec<_> = text("x-forwarded-for").split(',').filter_map(address).collect();
    if let Some(real) = address(text("x-real-ip")).filter(|real| !out.contains(real)) {
        out.push(real);
    }
    if let Some(Peer(peer)) = peer.filter(|Peer(peer)| out.last() != Some(peer)) {
        out.push(*peer);
    }
    out.iter().map(ToString::to_string).collect()
}

/// Runs what answers a request where its trail can be found.
pub fn within<F: Future>(trail: Option<Arc<Trail>>, work: F) -> impl Future<Output = F::Output> {
    match trail {
        Some(trail) => Either::Left(TRAIL.scope(trail, work)),
        None => Either::Right(work),
    }
}

fn with<T>(tell: impl FnOnce(&Arc<Trail>) -> T) -> Option<T> {
    TRAIL.try_with(tell).ok()
}

/// It is known who asks.
pub async fn received(who: &Identity) -> Result<(), ApiError> {
    let Some(trail) = with(Arc::clone) else { return Ok(()) };
    if trail.decide(Some(who)) && !trail.emit(Stage::RequestReceived).await && trail.audit.is_strict() {
        trail.audit.rejected();
        return Err(ApiError::internal("failed to store audit event"));
    }
    Ok(())
}

/// Somebody is spoken for, by a right that has this name unless it is that of old.
pub fn impersonated(who: &Identity, constraint: Option<String>) {
    with(|trail| {
        trail.change(|event| {
            event.impersonated_user = Some(User::from(who));
            event.authentication_metadata = constraint
                .map(|impersonation_constraint| AuthenticationMetadata { impersonation_constraint });
        });
    });
}

/// Whether they may, and why.
pub async fn decided(server: &Server, who: &Identity, what: &Attributes, outcome: &Result<(), ApiError>) {
    if with(|trail| trail.state.lock().event.is_some()) != Some(true) {
        return;
    }
    let reason = match outcome {
        Ok(()) if !who.is_in(MASTERS) => match server.rbac().await {
            Ok(rbac) => rbac.why(who, what).unwrap_or_default(),
            Err(_) => String::new(),
        },
        _ => String::new(),
    };
    annotate("authorization.k8s.io/decision", if outcome.is_ok() { "allow" } else { "forbid" });
    annotate("authorization.k8s.io/reason", reason);
}

/// What admission and others have to say of the request. What was said first stands.
pub fn annotate(key: impl Into<String>, value: impl Into<String>) {
    with(|trail| {
        trail.change(|event| {
            event.annotations.entry(key.into()).or_insert_with(|| value.into());
        });
    });
}

/// The same of what only an event of this level or a higher one may say.
pub fn annotate_from(level: Level, key: impl Into<String>, value: impl FnOnce() -> String) {
    if with(|trail| trail.state.lock().decision.level >= level) == Some(true) {
        annotate(key, value());
    }
}

/// Does a part of what a request takes, and notes how long that was.
pub async fn timed<F: Future>(layer: Layer, work: F) -> F::Output {
    let begun = with(|_| Instant::now());
    let output = work.await;
    if let Some(begun) = begun {
        with(|trail| trail.state.lock().latencies.add(layer, begun.elapsed()));
    }
    output
}

/// The object that a request brings. `is_whole`: it is of the resource's own kind, and may say more of which it is.
pub fn request_object(value: &Value, is_whole: bool) {
    with(|trail| trail.request_object(value, is_whole));
}

/// Whether the answer is to be kept, and so must be readable.
pub fn keeps_answer() -> bool {
    with(|trail| trail.state.lock().decision.level == Level::RequestResponse).unwrap_or_default()
}
