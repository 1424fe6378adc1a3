//! OpenAPI: one document a group and version, made when it is first asked for and kept until the definitions change.

use std::sync::Arc;

use ::http::header::{ETAG, HeaderValue};
use ::http::{HeaderMap, StatusCode, header};
use api::openapi::{Document, OpenApi, OpenApiResource};
use api::status::ApiError;
use parking_lot::Mutex;

use crate::catalog::Kinds;
use crate::http::respond::{self, Answer};

#[derive(Default)]
pub struct Documents {
    /// The documents and the generation of the kinds they are of.
    current: Mutex<Option<(u64, Arc<OpenApi>)>>,
}

impl Documents {
    pub fn answer(&self, kinds: &Kinds, path: &str, headers: &HeaderMap) -> Result<Answer, ApiError> {
        let documents = self.of(kinds);
        match path.trim_end_matches('/') {
            "/openapi/v3" => Ok(respond::json(StatusCode::OK, &documents.index())),
            "/openapi/v2" => {
                // The old spelling of the media type has an `@` that is not allowed in one.
                let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
                if !accept.contains("proto-openapi.spec.v2") {
                    return Ok(document(documents.v2(), headers));
                }
                let mut answer = document(documents.v2_protobuf(), headers);
                let media_type = HeaderValue::from_static(api::openapi::protobuf::MEDIA_TYPE);
                answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
                Ok(answer)
            }
            path => {
                let inner = path.strip_prefix("/openapi/v3/").ok_or_else(ApiError::no_such_path)?;
                documents.v3(inner).map(|d| document(d, headers)).ok_or_else(ApiError::no_such_path)
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
    let tag = format!("\"{}\"", document.hash);
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(tag.as_str());
    let mut answer = match known {
        true => respond::bytes(StatusCode::NOT_MODIFIED, "application/json", bytes::Bytes::new()),
        false => respond::bytes(StatusCode::OK, "application/json", document.json),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}
