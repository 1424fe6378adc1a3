//! `list`: pages of objects, mostly copied from the store's bytes without being parsed.

use ::http::StatusCode;
use api::kinds::Kind;
use api::meta;
use api::selector::{FieldSelector, Selector};
use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Entry, RangeRequest};

use crate::http::respond::{self, Answer, Form};
use crate::objects::store_error;
use crate::{ApiServer, Context, table};

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
        let labels =
            labels.map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields = FieldSelector::parse(context.query.get("fieldSelector").unwrap_or_default());
        let fields = fields.map_err(|e| ApiError::bad_request(e.to_string()))?;
        for term in &fields.terms {
            let known = matches!(term.field.as_str(), "metadata.name" | "metadata.namespace")
                || kind.selectable.iter().any(|s| *s == term.field);
            if !known {
                return Err(ApiError::bad_request(format!("field label not supported: {}", term.field)));
            }
        }
        let name = (!context.target.name.is_empty()).then(|| context.target.name.clone());
        Ok(Self { labels, fields, name })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything() && self.name.is_none()
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

/// Where a list goes on: the revision it is of, and the last key that was sent.
#[derive(Serialize, Deserialize)]
struct Continue {
    rv: u64,
    start: String,
}

/// The entries that a request is about and how the list goes on.
pub struct Page {
    pub entries: Vec<Entry>,
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

pub async fn page(server: &ApiServer, context: &Context, filter: &Filter) -> Result<Page, ApiError> {
    let kind = &context.kind;
    let objects = &server.0.objects;
    let limit = context.query.number("limit").and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
    let prefix = kind.key(&context.target.namespace, "");
    let mut request = RangeRequest { prefix: prefix.clone(), ..Default::default() };
    if let Some(token) = context.query.get("continue") {
        let broken = || ApiError::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| broken())?;
        let token: Continue = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        request.after = Some(format!("{prefix}{}", token.start));
        request.revision = Some(token.rv);
    } else if let Some(version) = context.query.get("resourceVersion").filter(|v| *v != "0") {
        let version: u64 = version.parse().map_err(|_| {
            ApiError::bad_request(format!("Invalid value: {version:?}: invalid resource version"))
        })?;
        let current = objects.store.revision();
        if version > current {
            return Err(ApiError::future_resource_version(version, current));
        }
        if context.query.get("resourceVersionMatch") == Some("Exact") {
            request.revision = Some(version);
        }
    }
    // Without a filter the store does the paging; with one, all must be looked at.
    if filter.is_everything() {
        request.limit = limit;
        let range = objects.store.range(request).await.map_err(page_error)?;
        let remaining = (range.remaining > 0).then_some(range.remaining);
        let token = remaining.and(range.entries.last()).map(|last| token(&prefix, range.revision, last));
        return Ok(Page {
            entries: range.entries,
            revision: range.revision,
            continue_token: token,
            remaining,
        });
    }
    let range = objects.store.range(request).await.map_err(page_error)?;
    let mut entries = Vec::new();
    let mut more = None;
    for entry in range.entries {
        if filter.matches(kind, &objects.decode(&entry)?) {
            if limit > 0 && entries.len() == limit {
                more = entries.last().map(|last| token(&prefix, range.revision, last));
                break;
            }
            entries.push(entry);
        }
    }
    Ok(Page { entries, revision: range.revision, continue_token: more, remaining: None })
}

fn page_error(error: store::StoreError) -> ApiError {
    match error {
        store::StoreError::Compacted { .. } => ApiError::expired_continue(),
        other => store_error(other),
    }
}

fn token(prefix: &str, revision: u64, last: &Entry) -> String {
    let start = last.key.strip_prefix(prefix).unwrap_or(&last.key).to_owned();
    let token = json!({"rv": revision, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

pub async fn list(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let filter = Filter::parse(context)?;
    let page = page(server, context, &filter).await?;
    let kind = &context.kind;
    let metadata = list_metadata(&page);
    let objects = &server.0.objects;
    if context.form == Form::Json && super::read::is_served_as_stored(kind) {
        let mut out =
            Vec::with_capacity(256 + page.entries.iter().map(|e| e.value.len() + 40).sum::<usize>());
        let head = json!({"apiVersion": kind.api_version(), "kind": &*kind.list_kind, "metadata": metadata})
            .to_string();
        out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
        out.extend_from_slice(b",\"items\":[");
        for (i, entry) in page.entries.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            meta::write_served(&mut out, &objects.plain(entry)?, entry.mod_revision);
        }
        out.extend_from_slice(b"]}\n");
        return Ok(respond::bytes(StatusCode::OK, "application/json", Bytes::from(out)));
    }
    let mut items = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let mut object = objects.decode(entry)?;
        super::read::set_version(kind, &mut object);
        items.push(object);
    }
    Ok(match context.form {
        Form::Table => {
            let rows: Vec<&Value> = items.iter().collect();
            respond::json(StatusCode::OK, &table::table(kind, &context.query, &rows, "", Some(metadata)))
        }
        Form::Metadata => {
            let items: Vec<Value> = items.iter().map(table::partial).collect();
            let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": metadata, "items": items});
            respond::json(StatusCode::OK, &list)
        }
        form => {
            let list = json!({"apiVersion": kind.api_version(), "kind": &*kind.list_kind, "metadata": metadata, "items": items});
            respond::object(StatusCode::OK, form, &list)
        }
    })
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(token) = &page.continue_token {
        metadata["continue"] = token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}
