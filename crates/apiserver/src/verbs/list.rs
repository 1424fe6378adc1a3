//! `list`: pages of objects, mostly copied from the store's bytes without being parsed.

use ::http::StatusCode;
use api::kinds::Kind;
use api::meta;
use api::proto::{self, ProtoError};
use api::selector::{FieldSelector, Selector};
use api::status::ApiError;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use bytes::Bytes;
use serde_json::{Value, json};
use store::{Entry, RangeRequest};

use super::read::{is_served_as_stored, set_version};
use crate::audit::{Layer, timed};
use crate::http::accept::Shape;
use crate::http::options::{self, ListOptions};
use crate::http::pieces::Pieces;
use crate::http::respond::{self, Answer};
use crate::objects::store_error;
use crate::{ApiServer, Context, aside, table};

/// Entries looked at in one step where a selector decides which of them count.
const CHUNK: usize = 1000;
/// How many times as long decoding and encoding takes as copying.
const COPIES_TO_DECODING: usize = 64;

/// Which objects a request is about.
pub struct Filter {
    labels: Selector,
    fields: FieldSelector,
    /// The one name that the request is about, if it names one.
    name: Option<String>,
}

impl Filter {
    pub fn parse(context: &Context) -> Result<Self, ApiError> {
        let kind = &context.kind;
        let labels = Selector::parse(context.query.get("labelSelector").unwrap_or_default());
        let labels = labels.map_err(|e| ApiError::bad_request(e.to_string()))?;
        let fields = FieldSelector::parse(context.query.get("fieldSelector").unwrap_or_default());
        let fields = fields.map_err(|e| ApiError::bad_request(e.to_string()))?;
        for term in &fields.terms {
            let known = match term.field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => !kind.rules.no_namespace_field,
                field => kind.selectable.iter().any(|s| s == field),
            };
            if !known {
                return Err(unknown_field(kind, &term.field));
            }
        }
        let target = &context.target;
        let name = (!target.name.is_empty()).then(|| target.name.clone());
        if name.is_some() && !fields.is_everything() && target.selected != target.name {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        let name = name.or_else(|| Some(target.selected.clone()).filter(|n| !n.is_empty()));
        Ok(Self { labels, fields, name })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
    }

    /// What the key alone tells, where it does: whether the object is the one that is asked for by name.
    pub fn matches_key(&self, kind: &Kind, key: &str) -> Option<bool> {
        if self.is_everything() {
            return Some(true);
        }
        let mut parts = key.rsplit('/');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let namespace = if kind.namespaced { namespace } else { "" };
        let of_key = |field: &str| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            _ => None,
        };
        let named = self.name.as_deref().is_none_or(|wanted| wanted == name);
        let told =
            self.labels.is_everything() && self.fields.terms.iter().all(|t| of_key(&t.field).is_some());
        match (named, told) {
            (false, _) => Some(false),
            (true, true) => Some(self.fields.matches(of_key)),
            (true, false) => None,
        }
    }

    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        if self.name.as_deref().is_some_and(|name| name != meta::name(object)) {
            return false;
        }
        let labels = meta::metadata(object).get("labels");
        if !self.labels.matches_by(|key| labels?.get(key)?.as_str()) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        let own = kind.behaviour.fields(object);
        self.fields.matches(|field| match field {
            "metadata.name" => Some(meta::name(object)),
            "metadata.namespace" => Some(meta::namespace(object)),
            field => own.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str()),
        })
    }
}

/// A field that this kind's objects cannot be selected by.
fn unknown_field(kind: &Kind, field: &str) -> ApiError {
    let wording = kind.rules.unknown_field;
    ApiError::bad_request(match kind.selectable.is_empty() && kind.custom.is_none() {
        _ if !wording.is_empty() => wording.replace("{}", field),
        true => {
            format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        false => format!("field label not supported: {field}"),
    })
}

/// Where a list goes on. On the wire it is what the original makes of it, so that nobody depends on what it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    /// `None` is as of now: what is left of a list whose own revision is gone.
    revision: Option<u64>,
    /// The last key that was sent, below the list's prefix.
    last: String,
}

impl Continue {
    fn encode(&self) -> String {
        let revision = self.revision.map_or_else(|| json!(-1), |r| json!(r));
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}\0", self.last)});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    pub(crate) fn decode(text: &str) -> Result<Self, ApiError> {
        let broken = |why: &str| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid{why}"))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // Letters come by four.
                _ => text.len() - text.len() % 4,
            };
            broken(&format!(": illegal base64 data at input byte {at}"))
        })?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|e| broken(&format!(": {e}")))?;
        if token["v"] != "meta.k8s.io/v1" {
            return Err(broken(": server does not recognize this encoded version"));
        }
        let revision = match token["rv"].as_i64() {
            Some(0) | None => {
                let why = ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
                return Err(broken(why));
            }
            Some(revision) => u64::try_from(revision).ok(),
        };
        let start = token["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(broken(": encoded start key empty (version meta.k8s.io/v1)"));
        }
        // The store never leaves the list's prefix; but what does not lie below it was not made by a server.
        let below = start.strip_prefix('/').unwrap_or(start);
        if !is_clean(below) {
            return Err(broken(&format!(": {start}")));
        }
        Ok(Self { revision, last: below.strip_suffix('\0').unwrap_or(below).to_owned() })
    }
}

/// Whether a key names what lies below its prefix, and nothing on the way there or back.
fn is_clean(key: &str) -> bool {
    key.is_empty() || key.split('/').all(|step| !matches!(step, "" | "." | ".."))
}

/// The entries that a request is about and how the list goes on.
pub struct Page {
    pub entries: Vec<Entry>,
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

/// What to ask the store for.
async fn start(
    server: &ApiServer,
    context: &Context,
    options: &ListOptions,
) -> Result<RangeRequest, ApiError> {
    let prefix = context.kind.key(&context.target.namespace, "");
    let mut request = RangeRequest { prefix, ..Default::default() };
    if !options.continue_token.is_empty() {
        let token = Continue::decode(&options.continue_token)?;
        if !matches!(&*options.resource_version, "" | "0") {
            let why = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(why));
        }
        request.after = Some(format!("{}{}", request.prefix, token.last));
        request.revision = token.revision;
    } else if let Some(wanted) = options.revision()?.filter(|r| *r > 0) {
        server.0.objects.wait_for(wanted).await?;
        // A limit without a match means the very version too.
        let exact = options.version_match == options::EXACT
            || (options.version_match.is_empty() && options.limit > 0);
        request.revision = exact.then_some(wanted);
    }
    Ok(request)
}

pub async fn page(
    server: &ApiServer,
    context: &Context,
    options: &ListOptions,
    filter: &Filter,
) -> Result<Page, ApiError> {
    let (kind, objects) = (&context.kind, &server.0.objects);
    let mut request = start(server, context, options).await?;
    let prefix = request.prefix.clone();
    let expired = {
        let after = request.after.clone();
        let prefix = prefix.clone();
        move |error| match (error, &after) {
            (store::StoreError::Compacted { .. }, Some(after)) => {
                let last = after.strip_prefix(&prefix).unwrap_or(after).to_owned();
                ApiError::expired_continue(Continue { revision: None, last }.encode())
            }
            (store::StoreError::Compacted { .. }, None) => ApiError::expired_list(),
            (other, _) => store_error(other),
        }
    };
    let token = |revision: u64, last: &Entry| {
        let last = last.key.strip_prefix(&prefix).unwrap_or(&last.key).to_owned();
        Continue { revision: Some(revision), last }.encode()
    };
    // The original reads pages from its store and whole lists from its cache, which it cannot fill now.
    let from_cache = options.continue_token.is_empty() && (options.limit == 0 || !filter.is_everything());
    let unread = |error: ApiError| match error.code {
        500 if from_cache => not_ready(&error, objects.cipher().locked_for()),
        _ => error,
    };
    // Without a filter the store counts what is left; with one, it is looked at as far as the page needs.
    if filter.is_everything() {
        request.limit = options.limit;
        let range = timed(Layer::Store, objects.store.range(request)).await.map_err(expired)?;
        let remaining = (range.remaining > 0).then_some(range.remaining);
        let continue_token = remaining.and(range.entries.last()).map(|last| token(range.revision, last));
        objects.unlock(&range.entries).await.map_err(unread)?;
        let entries = server.0.served_entries(kind, range.entries).await?;
        return Ok(Page { entries, revision: range.revision, continue_token, remaining });
    }
    if let (Some(name), 0) = (&filter.name, options.limit)
        && !(kind.namespaced && context.target.namespace.is_empty())
    {
        request.prefix = kind.key(&context.target.namespace, name);
    }
    let mut page = Page { entries: Vec::new(), revision: 0, continue_token: None, remaining: None };
    loop {
        request.limit = CHUNK;
        let range = timed(Layer::Store, objects.store.range(request.clone())).await.map_err(&expired)?;
        page.revision = range.revision;
        let more = range.remaining > 0;
        request.revision = Some(range.revision);
        request.after = range.entries.last().map(|last| last.key.to_string());
        objects.unlock(&range.entries).await.map_err(&unread)?;
        for entry in server.0.served_entries(kind, range.entries).await? {
            let matches = match filter.matches_key(kind, &entry.key) {
                Some(matches) => matches,
                None => filter.matches(kind, &objects.decode(&entry)?),
            };
            if !matches {
                continue;
            }
            if options.limit > 0 && page.entries.len() == options.limit {
                page.continue_token = page.entries.last().map(|last| token(page.revision, last));
                return Ok(page);
            }
            page.entries.push(entry);
        }
        if !more {
            return Ok(page);
        }
    }
}

/// A list that cannot be read because those who keep its keys do not answer. The longer this lasts, the later is a client to
/// come back: as the original computes it, whose reflectors and informers go by it.
fn not_ready(error: &ApiError, lasts: std::time::Duration) -> ApiError {
    let why = error.message.strip_prefix("Internal error occurred: ").unwrap_or(&error.message);
    ApiError::too_many_requests(format!("storage is (re)initializing: {why}"), retry_after_seconds(lasts))
}

/// From a second to half a minute.
fn retry_after_seconds(lasts: std::time::Duration) -> i32 {
    (0.06 * lasts.as_secs_f64()).exp().clamp(1.0, 30.0) as i32
}

/// Many are no one object.
pub fn check_shape(context: &Context) -> Result<(), ApiError> {
    if context.form.shape != Shape::Metadata {
        return Ok(());
    }
    let why = "you requested PartialObjectMetadata, but the requested object is a list";
    Err(ApiError::not_acceptable(format!("{why} ({})", super::go_type(&context.kind, true))))
}

pub async fn list(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let options = ListOptions::parse(&context.query, false)?.as_cached();
    let filter = Filter::parse(context)?;
    check_shape(context)?;
    let page = page(server, context, &options, &filter).await?;
    let kind = &context.kind;
    let metadata = list_metadata(kind, &page, context.form.shape);
    let objects = &server.0.objects;
    if context.form.is_plain_json() && is_served_as_stored(kind) {
        let items = page.entries.iter().map(|entry| Ok((objects.plain(entry)?, entry.mod_revision)));
        let items = items.collect::<Result<Vec<_>, ApiError>>()?;
        return Ok(respond::pieces("application/json", in_json(kind, &metadata, items)));
    }
    let bytes: usize = page.entries.iter().map(|entry| entry.value.len()).sum();
    if context.form.is_plain_protobuf() && kind.custom.is_none() {
        // Most of it was encoded before, and is copied.
        aside::begin(bytes / COPIES_TO_DECODING).await;
        let items = page.entries.iter().map(|entry| server.0.encoded.bare(kind, objects, entry));
        let items = items.collect::<Result<Vec<Bytes>, _>>()?;
        let list = in_protobuf(kind, &metadata, items).map_err(ApiError::internal)?;
        return Ok(respond::pieces(context.form.encoding.media_type(), list));
    }
    // Copied at most so far; from here on it is decoded.
    aside::begin(bytes).await;
    let mut items = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let mut object = objects.decode(entry)?;
        set_version(kind, &mut object);
        items.push(object);
    }
    Ok(list_answer(context, metadata, items))
}

/// A list of stored bytes, each with its revision.
fn in_json(kind: &Kind, metadata: &Value, items: Vec<(Bytes, u64)>) -> Pieces<(Bytes, u64)> {
    let head = json!({"apiVersion": kind.api_version(), "kind": &*kind.list_kind, "metadata": metadata});
    let mut head = head.to_string().into_bytes();
    head.pop();
    head.extend_from_slice(b",\"items\":[");
    let commas = items.len().saturating_sub(1);
    let lengths = items.iter().map(|(bytes, revision)| meta::item_length(bytes, *revision));
    let items_bytes = lengths.sum::<usize>() + commas;
    let write = |out: &mut Vec<u8>, at: usize, (bytes, revision): &(Bytes, u64)| {
        if at > 0 {
            out.push(b',');
        }
        meta::write_item(out, bytes, *revision);
    };
    Pieces { head, items, write, tail: b"]}\n", items_bytes }
}

/// A list of objects that are encoded already.
fn in_protobuf(kind: &Kind, metadata: &Value, items: Vec<Bytes>) -> Result<Pieces<Bytes>, ProtoError> {
    let items_bytes = items.iter().map(|item| proto::list_item_length(item)).sum();
    let head = proto::list_head(&kind.api_version(), &kind.list_kind, metadata, items_bytes)?;
    let write = |out: &mut Vec<u8>, _: usize, item: &Bytes| proto::list_item(out, item);
    Ok(Pieces { head, items, write, tail: proto::LIST_TAIL, items_bytes })
}

/// A list of whole objects in the form asked for.
pub fn list_answer(context: &Context, metadata: Value, items: Vec<Value>) -> Answer {
    let (kind, form) = (&context.kind, context.form);
    let meta_version = format!("meta.k8s.io/{}", form.meta_version);
    let list = match form.shape {
        Shape::Table => {
            let rows: Vec<&Value> = items.iter().collect();
            table::table(kind, context, &rows, metadata)
        }
        Shape::Metadata | Shape::MetadataList => {
            let items: Vec<Value> =
                items.iter().map(|item| table::partial(&context.kind, item, form.meta_version)).collect();
            json!({"apiVersion": meta_version, "kind": "PartialObjectMetadataList", "metadata": metadata, "items": items})
        }
        Shape::Object => {
            let mut items = items;
            if kind.custom.is_none() {
                items.iter_mut().filter_map(Value::as_object_mut).for_each(|item| {
                    item.remove("apiVersion");
                    item.remove("kind");
                });
            }
            json!({"apiVersion": kind.api_version(), "kind": &*kind.list_kind, "metadata": metadata, "items": items})
        }
    };
    respond::object(StatusCode::OK, form, &list)
}

pub fn list_metadata(kind: &Kind, page: &Page, shape: Shape) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if kind.custom.is_some() && shape == Shape::Object {
        // Lists without a type of their own write it always.
        metadata["continue"] = "".into();
    }
    if let Some(token) = &page.continue_token {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_it_lasts_the_later_one_comes_back() {
        for (seconds, after) in [(0, 1), (10, 1), (12, 2), (30, 6), (56, 28), (60, 30), (86_400 * 365, 30)] {
            assert_eq!(retry_after_seconds(std::time::Duration::from_secs(seconds)), after, "{seconds}");
        }
    }

    #[test]
    fn tokens_come_back_as_they_were() {
        for token in [
            Continue { revision: Some(7), last: "default/a".into() },
            Continue { revision: None, last: "x".into() },
        ] {
            assert_eq!(Continue::decode(&token.encode()), Ok(token));
        }
        let told = |text: &str| Continue::decode(text).map_err(|e| e.message).err().unwrap_or_default();
        let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        const INVALID: &str = "invalid continue token: continue key is not valid";
        assert!(told("%%%").starts_with(INVALID));
        assert!(told("bm9wZQ").starts_with(INVALID));
        assert_eq!(
            told(&encoded(json!({"v": "meta.k8s.io/v2", "rv": 1, "start": "a"}))),
            format!("{INVALID}: server does not recognize this encoded version")
        );
        assert_eq!(
            told(&encoded(json!({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"}))),
            format!("{INVALID}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
        );
        for start in ["../../secrets", "..", "a/../b", "a/..", "./a", "a//b", "a/", "//a", "/../a", "a/./b"] {
            let token = encoded(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": start}));
            assert_eq!(told(&token), format!("{INVALID}: {start}"));
        }
        for start in ["a", "/a", "a/b", "/a\0", "..a", "a.."] {
            assert_eq!(
                told(&encoded(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": start}))),
                "",
                "{start}"
            );
        }
        assert_eq!(
            told(&encoded(json!({"v": "meta.k8s.io/v1", "rv": 1}))),
            format!("{INVALID}: encoded start key empty (version meta.k8s.io/v1)")
        );
    }
}
