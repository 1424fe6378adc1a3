//! OpenAPI: one document a group and version, made when it is first asked for and kept until the definitions change;
//! in JSON, or in the protobuf that clients in a hurry ask for.

use std::sync::Arc;

use ::http::header::HeaderValue;
use ::http::{HeaderMap, StatusCode, header};
use api::kinds::{Kind, Subresource};
use api::openapi::protobuf::{v2, v3};
use api::openapi::{Document, Gvk, OpenApi, OpenApiResource, OpenApiSubresource};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::catalog::Kinds;
use crate::discovery;
use crate::http::accept;
use crate::http::query::Query;
use crate::http::respond::{self, Answer};

/// What a document is served as, by what it is asked for as. Whoever takes anything gets the first.
type Offered = [(&'static str, &'static str); 3];

const V2: Offered = offered(v2::MEDIA_TYPE, v2::MEDIA_TYPE_OLD);
const V3: Offered = offered(v3::MEDIA_TYPE, v3::MEDIA_TYPE_OLD);

const fn offered(protobuf: &'static str, old: &'static str) -> Offered {
    [(accept::JSON, accept::JSON), (protobuf, protobuf), (old, protobuf)]
}

#[derive(Default)]
pub struct Documents {
    /// The documents and the generation of the kinds they are of.
    current: Mutex<Option<(u64, Arc<OpenApi>)>>,
}

impl Documents {
    pub fn answer(&self, kinds: &Kinds, path: &str, query: &Query, headers: &HeaderMap) -> Answer {
        let documents = self.of(kinds);
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        if path == "/openapi/v3" {
            // The original calls its index text.
            let index = documents.index().to_string();
            return respond::bytes(StatusCode::OK, "text/plain; charset=utf-8", index);
        }
        let offered = if path == "/openapi/v2" { &V2 } else { &V3 };
        let Some(media_type) = accept::choose(accept, offered) else {
            let mut answer = refused(StatusCode::NOT_ACCEPTABLE);
            if offered == &V2 {
                answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            }
            return answer;
        };
        let protobuf = media_type != accept::JSON;
        let found = match path.strip_prefix("/openapi/v3/") {
            Some(inner) if protobuf => documents.v3_protobuf(inner),
            Some(inner) => documents.v3(inner),
            None if path != "/openapi/v2" => None,
            None if protobuf => Some(documents.v2_protobuf()),
            None => Some(documents.v2()),
        };
        let Some(Document { body, hash }) = found else { return refused(StatusCode::NOT_FOUND) };
        let answer = |code, body| respond::bytes(code, media_type, body);
        match query.get("hash").filter(|given| !given.is_empty() && offered == &V3) {
            None => respond::tagged(answer(StatusCode::OK, body), &hash, headers),
            Some(given) if given == hash => {
                for_ever(respond::tagged(answer(StatusCode::OK, body), &hash, headers))
            }
            Some(_) => moved(answer(StatusCode::MOVED_PERMANENTLY, Bytes::new()), path, &hash),
        }
    }

    fn of(&self, kinds: &Kinds) -> Arc<OpenApi> {
        let mut current = self.current.lock();
        if let Some((generation, documents)) = &*current
            && *generation == kinds.generation
        {
            return Arc::clone(documents);
        }
        let resources = kinds.all().iter().map(|kind| resource(kind));
        let previous = current.as_ref().map(|(_, documents)| Arc::clone(documents));
        let documents = Arc::new(OpenApi::new(resources.collect(), previous.as_deref()));
        *current = Some((kinds.generation, Arc::clone(&documents)));
        documents
    }
}

fn resource(kind: &Kind) -> OpenApiResource {
    let verbs = |verbs: &[&str]| verbs.iter().map(|v| (*v).to_owned()).collect();
    let subresource = |sub: &Subresource| {
        let (group, version, name) = discovery::body_kind(kind, sub);
        OpenApiSubresource {
            name: sub.name.to_owned(),
            kind: Gvk { group: group.into(), version: version.into(), kind: name.into() },
            verbs: verbs(sub.verbs),
        }
    };
    OpenApiResource {
        verbs: verbs(kind.verbs),
        subresources: kind.subresources.iter().map(subresource).collect(),
        answers_deleted: kind.rules.answers_deleted,
        schema: kind.custom.as_ref().map(|c| c.document.clone()),
        ..OpenApiResource::new(&kind.group, &kind.version, &kind.kind, &kind.plural, kind.namespaced)
    }
}

/// The original says no more than the code.
fn refused(code: StatusCode) -> Answer {
    let mut answer = respond::bytes(code, "", "");
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer
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
fn moved(answer: Answer, path: &str, hash: &str) -> Answer {
    let mut answer = respond::tagged(answer, hash, &HeaderMap::new());
    if let Ok(place) = HeaderValue::from_str(&format!("{path}?hash={hash}")) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    answer
}
