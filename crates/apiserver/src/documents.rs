//! OpenAPI: one document a group and version, made when it is first asked for and kept until the definitions change.

use std::sync::Arc;

use ::http::header::HeaderValue;
use ::http::{HeaderMap, StatusCode, header};
use api::openapi::{Document, OpenApi, OpenApiResource};
use api::status::ApiError;
use parking_lot::Mutex;

use crate::catalog::Kinds;
use crate::http::accept::Offer;
use crate::http::query::Query;
use crate::http::respond::{self, Answer, Form};

#[derive(Default)]
pub struct Documents {
    /// The documents and the generation of the kinds they are of.
    current: Mutex<Option<(u64, Arc<OpenApi>)>>,
}

impl Documents {
    pub fn answer(
        &self,
        kinds: &Kinds,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Answer, ApiError> {
        let documents = self.of(kinds);
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let offer = Offer { protobuf: false, shapes: false, stream: false, list: false };
        match path {
            "/openapi/v3" => Ok(respond::json(StatusCode::OK, &documents.index())),
            // The old spelling of the media type has an `@` that is not allowed in one.
            "/openapi/v2" if accept.unwrap_or_default().contains("proto-openapi.spec.v2") => {
                let Document { json, hash } = documents.v2_protobuf();
                let mut answer = respond::bytes(StatusCode::OK, "", json);
                let media_type = HeaderValue::from_static(api::openapi::protobuf::MEDIA_TYPE);
                answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
                Ok(respond::tagged(answer, &hash, headers))
            }
            "/openapi/v2" => {
                Form::parse(accept, offer)?;
                Ok(document(documents.v2(), headers))
            }
            path => {
                let inner = path.strip_prefix("/openapi/v3/");
                let Some(found) = inner.and_then(|inner| documents.v3(inner)) else {
                    return Ok(respond::page_not_found());
                };
                Form::parse(accept, offer)?;
                Ok(match query.get("hash") {
                    None => document(found, headers),
                    Some(hash) if hash == found.hash => for_ever(document(found, headers)),
                    Some(_) => moved(path, &found.hash),
                })
            }
        }
    }

    fn of(&self, kinds: &Kinds) -> Arc<OpenApi> {
        let mut current = self.current.lock();
        if let Some((generation, documents)) = &*current
            && *generation == kinds.generation
        {
            return Arc::clone(documents);
        }
        let resources = kinds.all().iter().map(|kind| OpenApiResource {
            verbs: kind.verbs.iter().map(|v| (*v).to_owned()).collect(),
            subresources: kind.subresources.iter().map(|s| s.name.to_owned()).collect(),
            schema: kind.custom.as_ref().map(|c| c.document.clone()),
            ..OpenApiResource::new(&kind.group, &kind.version, &kind.kind, &kind.plural, kind.namespaced)
        });
        let previous = current.as_ref().map(|(_, documents)| Arc::clone(documents));
        let documents = Arc::new(OpenApi::new(resources.collect(), previous.as_deref()));
        *current = Some((kinds.generation, Arc::clone(&documents)));
        documents
    }
}

fn document(document: Document, headers: &HeaderMap) -> Answer {
    let answer = respond::bytes(StatusCode::OK, "application/json", document.json);
    respond::tagged(answer, &document.hash, headers)
}

/// What is asked for by its hash never changes.
fn for_ever(mut answer: Answer) -> Answer {
    let year = jiff::SignedDuration::from_hours(365 * 24);
    let end = base::time::now().checked_add(year).unwrap_or_else(|_| base::time::now());
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    if let Ok(end) = HeaderValue::from_str(&end.strftime("%a, %d %b %Y %H:%M:%S UTC").to_string()) {
        headers.insert(header::EXPIRES, end);
    }
    answer
}

/// The document has changed since its hash was told.
fn moved(path: &str, hash: &str) -> Answer {
    let mut answer = respond::bytes(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", "");
    if let Ok(place) = HeaderValue::from_str(&format!("{path}?hash={hash}")) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    answer
}
