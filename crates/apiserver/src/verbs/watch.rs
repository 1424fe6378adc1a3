//! `watch`: a stream of events. An event's object is the store's bytes with its revision put in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use api::kinds::Kind;
use api::meta;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, Event, Watch};
use tokio::time::Instant;

use super::list::{Filter, page};
use super::read::set_version;
use crate::http::body;
use crate::http::respond::{Answer, Form};
use crate::objects::store_error;
use crate::{ApiServer, Context, table};

const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Half an hour to an hour, so that clients do not all come back at once.
const TIMEOUT_MIN_SECONDS: u64 = 1800;
const TIMEOUT_MAX_SECONDS: i64 = 86_400;

struct Watcher {
    server: ApiServer,
    context: Context,
    filter: Filter,
    watch: Box<dyn Watch>,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    done: bool,
}

pub async fn watch(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let filter = Filter::parse(context)?;
    let query = &context.query;
    let version = query.get("resourceVersion").unwrap_or_default();
    let wants_initial = query.get("sendInitialEvents") == Some("true");
    let bookmarks = query.flag("allowWatchBookmarks");
    let from: u64 = version.parse().or(if version.is_empty() { Ok(0) } else { Err(()) }).map_err(|()| {
        ApiError::bad_request(format!("Invalid value: {version:?}: invalid resource version"))
    })?;
    let objects = &server.0.objects;
    let prefix = context.kind.key(&context.target.namespace, "");
    let mut ready = VecDeque::new();
    let start = match from {
        // From now: first what there is, then what changes.
        from if from == 0 && query.get("sendInitialEvents") != Some("false") || wants_initial => {
            let current = objects.store.revision();
            if from > current {
                return Err(ApiError::future_resource_version(from, current));
            }
            let page = page(server, &listing(context), &filter).await?;
            for entry in &page.entries {
                ready.push_back(frame(server, context, "ADDED", entry, entry.mod_revision)?);
            }
            if wants_initial && bookmarks {
                ready.push_back(bookmark(context, page.revision, true));
            }
            page.revision
        }
        0 => objects.store.revision(),
        from => {
            let current = objects.store.revision();
            if from > current {
                return Err(ApiError::future_resource_version(from, current));
            }
            from
        }
    };
    let watch = match objects.store.watch(&prefix, start) {
        Ok(watch) => watch,
        // As an event, which is where clients look for it once they watch.
        Err(error @ store::StoreError::Compacted { .. }) => {
            let body = body::full(status_frame(&store_error(error)));
            return Ok(answer(body));
        }
        Err(error) => return Err(store_error(error)),
    };
    let random = u64::from(u16::from_le_bytes(base::id::random_bytes())) % TIMEOUT_MIN_SECONDS;
    let seconds = query
        .number("timeoutSeconds")
        .filter(|s| *s > 0)
        .map(|s| s.min(TIMEOUT_MAX_SECONDS))
        .and_then(|s| u64::try_from(s).ok())
        .unwrap_or(TIMEOUT_MIN_SECONDS + random);
    let now = Instant::now();
    let watcher = Watcher {
        server: server.clone(),
        context: clone_for_stream(context),
        filter,
        watch,
        ready,
        bookmarks,
        next_bookmark: now + BOOKMARK_PERIOD,
        end: now + Duration::from_secs(seconds),
        done: false,
    };
    let frames = futures::stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok(frame), watcher))
    });
    Ok(answer(body::stream(frames)))
}

fn answer(body: body::Body) -> Answer {
    let mut answer = ::http::Response::new(body);
    *answer.status_mut() = StatusCode::OK;
    let json = ::http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(::http::header::CONTENT_TYPE, json);
    answer
}

/// The same request as a list of everything.
fn listing(context: &Context) -> Context {
    let mut listing = clone_for_stream(context);
    listing.query = Default::default();
    listing
}

fn clone_for_stream(context: &Context) -> Context {
    Context {
        who: context.who.clone(),
        query: context.query.clone(),
        headers: Default::default(),
        form: context.form,
        target: context.target.clone(),
        kind: Arc::clone(&context.kind),
        warnings: Default::default(),
    }
}

impl Watcher {
    /// The next frames as one piece; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(self.joined(frame));
            }
            if self.done {
                return None;
            }
            tokio::select! {
                events = self.watch.next() => self.take(events),
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
                    self.ready.push_back(bookmark(&self.context, self.watch.progress(), false));
                }
                () = tokio::time::sleep_until(self.end) => return None,
            }
        }
    }

    /// All that is ready, in one write.
    fn joined(&mut self, first: Bytes) -> Bytes {
        if self.ready.is_empty() {
            return first;
        }
        let mut out = Vec::from(first);
        self.ready.drain(..).for_each(|frame| out.extend_from_slice(&frame));
        Bytes::from(out)
    }

    fn take(&mut self, events: store::Result<Vec<Arc<Event>>>) {
        let frames = match events {
            Ok(events) => {
                events.iter().filter_map(|event| self.event(event).transpose()).collect::<Result<Vec<_>, _>>()
            }
            Err(store::StoreError::Closed) => {
                self.done = true;
                return;
            }
            Err(error) => Err(store_error(error)),
        };
        match frames {
            Ok(frames) => self.ready.extend(frames),
            Err(error) => {
                self.ready.push_back(status_frame(&error));
                self.done = true;
            }
        }
    }

    /// What this watcher is told of a change: objects come into view and leave it as they match the filter.
    fn event(&self, event: &Event) -> Result<Option<Bytes>, ApiError> {
        let kind = &self.context.kind;
        let objects = &self.server.0.objects;
        let matches = |entry: &Entry| -> Result<bool, ApiError> {
            Ok(self.filter.is_everything() || self.filter.matches(kind, &objects.decode(entry)?))
        };
        let before = event.previous.as_ref().map(matches).transpose()?.unwrap_or(false);
        let after = !event.deleted && matches(&event.entry)?;
        let gone = event.previous.as_ref().unwrap_or(&event.entry);
        Ok(match (before, after) {
            (false, true) => Some(frame(&self.server, &self.context, "ADDED", &event.entry, event.revision)?),
            (true, true) => {
                Some(frame(&self.server, &self.context, "MODIFIED", &event.entry, event.revision)?)
            }
            (true, false) => Some(frame(&self.server, &self.context, "DELETED", gone, event.revision)?),
            (false, false) => None,
        })
    }
}

fn frame(
    server: &ApiServer,
    context: &Context,
    kind: &str,
    entry: &Entry,
    revision: u64,
) -> Result<Bytes, ApiError> {
    let plain = server.0.objects.plain(entry)?;
    if context.form == Form::Json && context.kind.custom.is_none() {
        let mut out = Vec::with_capacity(plain.len() + 80);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        meta::write_served(&mut out, &plain, revision);
        out.extend_from_slice(b"}\n");
        return Ok(Bytes::from(out));
    }
    let mut object = meta::from_stored(&plain, revision).map_err(ApiError::internal)?;
    set_version(&context.kind, &mut object);
    Ok(encode(kind, &shaped(context, &object)))
}

fn shaped(context: &Context, object: &Value) -> Value {
    match context.form {
        Form::Table => {
            table::table(&context.kind, &context.query, &[object], meta::resource_version(object), None)
        }
        Form::Metadata => table::partial(object),
        _ => object.clone(),
    }
}

fn bookmark(context: &Context, revision: u64, ends_initial: bool) -> Bytes {
    let kind: &Kind = &context.kind;
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if ends_initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let object = json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": metadata});
    encode("BOOKMARK", &shaped(context, &object))
}

fn status_frame(error: &ApiError) -> Bytes {
    let mut status = serde_json::to_value(error.to_status()).unwrap_or_default();
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    encode("ERROR", &status)
}

fn encode(kind: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({"type": kind, "object": object})))
}
