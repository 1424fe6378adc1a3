//! `watch`: a stream of events. An event's object is the store's bytes with its revision put in.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::{Request, StatusCode};
use api::kinds::Kind;
use api::meta;
use api::proto::ProtoError;
use api::status::ApiError;
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, Event, Watch};
use tokio::time::Instant;

use super::list::{Filter, page};
use super::read::{is_served_as_stored, set_version};
use super::shaped;
use crate::http::accept::{Encoding, Shape};
use crate::http::body::{self, Body};
use crate::http::options::{self, ListOptions};
use crate::http::respond::{self, Answer, Form};
use crate::http::websocket;
use crate::objects::store_error;
use crate::{ApiServer, Context, encoded};

const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// So long before the end comes the last one.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Before each event in protobuf stands its length.
const LENGTH_BYTES: usize = 4;
/// Half an hour to an hour, so that clients do not all come back at once.
const TIMEOUT_MIN_SECONDS: u64 = 1800;
const TIMEOUT_MAX_SECONDS: i64 = 86_400;

/// So much is put together into one write.
const WRITE_BYTES: usize = 64 << 10;

struct Watcher {
    server: ApiServer,
    context: Context,
    filter: Filter,
    watch: Box<dyn Watch>,
    /// What there is, still to be told before what changes. Made into events one by one, as they are taken: together they
    /// may be as much as the store holds.
    initial: std::vec::IntoIter<Entry>,
    /// And that this was all of it.
    initial_end: Option<Bytes>,
    /// What has changed, shared with all who watch it, and made into frames as they are taken.
    changes: std::vec::IntoIter<Arc<Event>>,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    /// Of tables: the first says what its columns are, and that holds for all.
    headed: AtomicBool,
    next_bookmark: Instant,
    end: Instant,
    done: bool,
}

pub async fn watch(
    server: &ApiServer,
    context: &Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let options = ListOptions::parse(&context.query, true)?;
    let filter = Filter::parse(context)?;
    let objects = &server.0.objects;
    let mut ready = VecDeque::new();
    let (mut initial, mut initial_end) = (Vec::new(), None);
    let from = options::revision_of_cache(&options.resource_version)?.unwrap_or(0);
    let start = match (options.send_initial_events, from) {
        // First what there is, then what changes.
        (Some(true), _) | (None, 0) => {
            if from > 0
                && let Err(error) = objects.wait_for(from).await
            {
                // It has begun: what is wrong is an event.
                return Ok(answer(context, body::full(status_frame(context, &error))));
            }
            let page = page(server, context, &ListOptions::default(), &filter).await?;
            if options.send_initial_events == Some(true) && options.bookmarks {
                let headed = !page.entries.is_empty();
                initial_end = Some(bookmark(context, page.revision, (true, headed))?);
            }
            initial = page.entries;
            page.revision
        }
        (_, 0) => objects.store.revision(),
        // What is to come is waited for as any change is.
        (_, from) => from,
    };
    let prefix = context.kind.key(&context.target.namespace, "");
    let watch = match objects.store.watch(&prefix, start) {
        Ok(watch) => Some(watch),
        // As an event, which is where clients look for it once they watch.
        Err(error @ store::StoreError::Compacted { .. }) => {
            ready.push_back(status_frame(context, &store_error(error)));
            None
        }
        Err(error) => return Err(store_error(error)),
    };
    let random = u64::from(u16::from_le_bytes(base::id::random_bytes())) % TIMEOUT_MIN_SECONDS;
    let seconds = options.timeout_seconds.filter(|s| *s > 0).map(|s| s.min(TIMEOUT_MAX_SECONDS));
    let seconds = seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(TIMEOUT_MIN_SECONDS + random);
    let now = Instant::now();
    let end = now + Duration::from_secs(seconds);
    let watcher = Watcher {
        server: server.clone(),
        context: clone_for_stream(context),
        filter,
        done: watch.is_none(),
        watch: watch.unwrap_or_else(|| Box::new(Nothing)),
        initial: initial.into_iter(),
        initial_end,
        changes: Vec::new().into_iter(),
        ready,
        bookmarks: options.bookmarks,
        headed: AtomicBool::new(false),
        next_bookmark: next_bookmark(now, end),
        end,
    };
    if websocket::is_asked(&request) {
        let text = context.form.encoding == Encoding::Json;
        return websocket::stream(request, text, watcher.into_messages());
    }
    let frames = futures::stream::unfold(watcher, |mut watcher| async move {
        let first = watcher.next().await?;
        let frame = watcher.joined(first);
        Some((Ok(frame), watcher))
    });
    Ok(answer(context, body::stream(frames)))
}

/// The watch of what cannot be watched any more.
struct Nothing;

impl Watch for Nothing {
    fn next(&mut self) -> futures::future::BoxFuture<'_, store::Result<Vec<Arc<Event>>>> {
        Box::pin(std::future::ready(Err(store::StoreError::Closed)))
    }

    fn progress(&self) -> store::Revision {
        0
    }
}

/// Every minute, and once more before the end: whoever comes back goes on from there.
fn next_bookmark(now: Instant, end: Instant) -> Instant {
    let last = end - LAST_BOOKMARK;
    let next = now + BOOKMARK_PERIOD;
    if now < last { next.min(last) } else { next }
}

fn answer(context: &Context, body: Body) -> Answer {
    let mut answer = ::http::Response::new(body);
    *answer.status_mut() = StatusCode::OK;
    // JSON is what a client that knows nothing of streams calls it.
    let media_type = match context.form.encoding {
        Encoding::Json => "application/json",
        other => other.stream_type().unwrap_or_default(),
    };
    let media_type = ::http::HeaderValue::from_static(media_type);
    answer.headers_mut().insert(::http::header::CONTENT_TYPE, media_type);
    answer
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
    /// Each frame as a message of its own.
    fn into_messages(self) -> impl futures::Stream<Item = Bytes> + Send + 'static {
        futures::stream::unfold(self, |mut watcher| async move {
            let frame = watcher.next().await?;
            let protobuf = watcher.context.form.encoding == Encoding::Protobuf;
            // A message has a length of its own.
            let message = if protobuf { frame.slice(LENGTH_BYTES..) } else { frame };
            Some((message, watcher))
        })
    }

    /// The next frame; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.at_hand() {
                return Some(frame);
            }
            if self.done {
                return None;
            }
            tokio::select! {
                events = self.watch.next() => self.take(events).await,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = next_bookmark(Instant::now(), self.end);
                    let headed = self.headed.swap(true, Ordering::Relaxed);
                    match bookmark(&self.context, self.watch.progress(), (false, headed)) {
                        Ok(frame) => self.ready.push_back(frame),
                        Err(error) => self.fail(&error),
                    }
                }
                () = tokio::time::sleep_until(self.end) => return None,
            }
        }
    }

    /// The next frame that nobody has to be waited for.
    fn at_hand(&mut self) -> Option<Bytes> {
        match self.made() {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => self.ready.pop_front(),
            Err(error) => {
                self.initial = Vec::new().into_iter();
                self.initial_end = None;
                self.changes = Vec::new().into_iter();
                self.done = true;
                Some(status_frame(&self.context, &error))
            }
        }
    }

    /// The next frame of what there was and what has changed since.
    fn made(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(entry) = self.initial.next() {
            return self.frame("ADDED", &entry, entry.mod_revision).map(Some);
        }
        if let Some(end) = self.initial_end.take() {
            self.headed.store(true, Ordering::Relaxed);
            return Ok(Some(end));
        }
        while let Some(event) = self.changes.next() {
            if let Some(frame) = self.event(&event)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Several that are at hand, in one write.
    fn joined(&mut self, first: Bytes) -> Bytes {
        if first.len() >= WRITE_BYTES {
            return first;
        }
        let Some(second) = self.at_hand() else { return first };
        let mut out = Vec::from(first);
        out.extend_from_slice(&second);
        while out.len() < WRITE_BYTES {
            let Some(frame) = self.at_hand() else { break };
            out.extend_from_slice(&frame);
        }
        Bytes::from(out)
    }

    async fn take(&mut self, events: store::Result<Vec<Arc<Event>>>) {
        let changes = match events {
            Ok(events) => match self.server.0.objects.unlock_events(&events).await {
                Ok(()) => self.server.0.served_events(&self.context.kind, events).await,
                Err(error) => Err(error),
            },
            Err(store::StoreError::Closed) => {
                self.done = true;
                return;
            }
            Err(error) => Err(store_error(error)),
        };
        match changes {
            Ok(changes) => self.changes = changes.into_iter(),
            Err(error) => self.fail(&error),
        }
    }

    /// Says why it ends.
    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(status_frame(&self.context, error));
        self.done = true;
    }

    /// What this watcher is told of a change: objects come into view and leave it as they match the filter.
    fn event(&self, event: &Event) -> Result<Option<Bytes>, ApiError> {
        let kind = &self.context.kind;
        let objects = &self.server.0.objects;
        let matches = |entry: &Entry| -> Result<bool, ApiError> {
            if let Some(matches) = self.filter.matches_key(kind, &entry.key) {
                return Ok(matches);
            }
            // What was converted for this watch is nobody else's.
            let object = match is_served_as_stored(kind) {
                true => objects.look(entry)?,
                false => Arc::new(objects.decode(entry)?),
            };
            Ok(self.filter.matches(kind, &object))
        };
        let before = event.previous.as_ref().map(matches).transpose()?.unwrap_or(false);
        let after = !event.deleted && matches(&event.entry)?;
        let gone = event.previous.as_ref().unwrap_or(&event.entry);
        Ok(match (before, after) {
            (false, true) => Some(self.frame("ADDED", &event.entry, event.revision)?),
            (true, true) => Some(self.frame("MODIFIED", &event.entry, event.revision)?),
            (true, false) => Some(self.frame("DELETED", gone, event.revision)?),
            (false, false) => None,
        })
    }
}

impl Watcher {
    fn frame(&self, kind: &'static str, entry: &Entry, revision: u64) -> Result<Bytes, ApiError> {
        let headed = self.headed.swap(true, Ordering::Relaxed);
        frame(&self.server, &self.context, kind, (entry, revision), headed)
    }
}

/// `headed`: whether the columns of a table have been told already.
fn frame(
    server: &ApiServer,
    context: &Context,
    kind: &'static str,
    (entry, revision): (&Entry, u64),
    headed: bool,
) -> Result<Bytes, ApiError> {
    let (of, objects) = (&context.kind, &server.0.objects);
    if context.form.is_plain_protobuf() && of.custom.is_none() {
        let bare = match revision == entry.mod_revision {
            true => server.0.encoded.bare(of, objects, entry),
            false => encoded::bare(of, objects, entry, revision),
        }?;
        let whole = api::proto::whole(&of.api_version(), &of.kind, &bare).map_err(ApiError::internal)?;
        return Ok(measured(&api::proto::event(kind, &whole)));
    }
    if context.form.is_plain_json() && is_served_as_stored(of) {
        return server.0.encoded.frame((of, kind, context.form.lean), objects, entry, revision);
    }
    let plain = objects.plain(entry)?;
    if context.form.is_plain_metadata() && is_served_as_stored(of) {
        let mut out = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
        let shown = if context.form.lean { meta::lean(&plain) } else { (&*plain).into() };
        if meta::write_partial(&mut out, &shown, revision, context.form.meta_version) {
            out.extend_from_slice(b"}\n");
            return Ok(Bytes::from(out));
        }
    }
    let mut object = meta::from_stored(&plain, revision).map_err(ApiError::internal)?;
    set_version(&context.kind, &mut object);
    encode(context.form, kind, &event_object(context, &object, headed)).map_err(ApiError::internal)
}

/// What an event is about in the form asked for.
fn event_object<'a>(context: &Context, object: &'a Value, headed: bool) -> Cow<'a, Value> {
    let mut shown = shaped(context, object);
    if headed && context.form.shape == Shape::Table {
        shown.to_mut()["columnDefinitions"] = Value::Null;
    }
    shown
}

fn bookmark(
    context: &Context,
    revision: u64,
    (ends_initial, headed): (bool, bool),
) -> Result<Bytes, ApiError> {
    let kind: &Kind = &context.kind;
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if ends_initial {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let mut object = json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": metadata});
    super::input::canonicalize(kind, &mut object);
    encode(context.form, "BOOKMARK", &event_object(context, &object, headed)).map_err(ApiError::internal)
}

fn status_frame(context: &Context, error: &ApiError) -> Bytes {
    // A refusal has a form in every encoding.
    encode(context.form, "ERROR", &respond::status(error)).unwrap_or_default()
}

fn encode(form: Form, kind: &str, object: &Value) -> Result<Bytes, ProtoError> {
    if form.encoding != Encoding::Protobuf {
        return Ok(Bytes::from(format!("{}\n", json!({"type": kind, "object": object}))));
    }
    Ok(measured(&api::proto::watch_event(kind, object)?))
}

/// An event with its length before it.
fn measured(event: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(event.len() + LENGTH_BYTES);
    // Far below the limit: objects are bounded.
    out.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(event);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookmarks_come_each_minute_and_before_the_end() {
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        let check = |end: u64, expected: u64| {
            assert_eq!(next_bookmark(now, after(end)), after(expected), "ends after {end} s");
        };
        check(3600, 60);
        check(62, 60);
        check(61, 59);
        check(30, 28);
        // The last one has been; the end comes first.
        check(2, 60);
        check(1, 60);
    }
}
