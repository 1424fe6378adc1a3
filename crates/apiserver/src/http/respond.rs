//! Answers: objects, errors and warnings, in the form the client accepts.

use api::proto::ProtoError;
use api::status::ApiError;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, RETRY_AFTER, USER_AGENT, VARY, WARNING,
};
use http::{HeaderMap, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::accept::Encoding;
pub use super::accept::Form;
use super::body::{Body, full};
use super::pieces::{self, Pieces};
use super::query::Query;
use super::unread::Unpacked;

pub type Answer = Response<Body>;

pub fn bytes(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A long answer that is put together while it is read.
pub fn pieces<I: Send + Unpin + 'static>(content_type: &'static str, pieces: Pieces<I>) -> Answer {
    let mut answer = Response::new(pieces.body());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub fn json(code: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => bytes(code, "application/json", body),
        Err(fault) => error(Form::JSON, &ApiError::internal(fault)),
    }
}

/// An object in the encoding asked for; shaping it is done where the kind is known.
pub fn object(code: StatusCode, form: Form, value: &Value) -> Answer {
    match encode(form, value) {
        Ok(body) => bytes(code, form.encoding.media_type(), body),
        Err(fault) => json(StatusCode::INTERNAL_SERVER_ERROR, &ApiError::internal(fault).to_status()),
    }
}

/// The bytes of an object.
pub fn encode(form: Form, value: &Value) -> Result<Vec<u8>, ProtoError> {
    let line = |mut bytes: Vec<u8>| {
        bytes.push(b'\n');
        bytes
    };
    Ok(match form.encoding {
        Encoding::Protobuf => api::proto::encode(value)?,
        Encoding::Yaml => api::yaml::to_string(value).into_bytes(),
        Encoding::Json if form.pretty => format!("{value:#}").into_bytes(),
        Encoding::Json => line(value.to_string().into_bytes()),
    })
}

pub fn error(form: Form, error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = object(code, form, &status(error));
    let retry_after_seconds = error.details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(seconds) = retry_after_seconds.filter(|seconds| *seconds > 0) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A refusal as the object that it is.
pub fn status(error: &ApiError) -> Value {
    let mut status = serde_json::to_value(error.to_status()).unwrap_or_default();
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    status
}

/// What no part of the server knows of.
pub fn page_not_found() -> Answer {
    bytes(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
}

/// An answer known by a tag, or that the client's copy with that tag still holds.
pub fn tagged(answer: Answer, tag: &str, headers: &HeaderMap) -> Answer {
    let tag = format!("{tag:?}");
    let known = headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let same = known.split(',').map(str::trim).any(|k| k == "*" || k.trim_start_matches("W/") == tag);
    let mut answer = match same {
        true => {
            let mut unchanged = Response::new(full(Bytes::new()));
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            unchanged
        }
        false => answer,
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

/// From here on an answer is worth compressing.
const GZIP_FROM_BYTES: u64 = 128 << 10;

/// How errors are told to whoever sent this.
pub fn error_form<B>(request: &Request<B>) -> Form {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    let query = Query::parse(request.uri().query().unwrap_or_default());
    Form::of_error(text(ACCEPT)).with_pretty(&query, text(USER_AGENT).unwrap_or_default())
}

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|v| v.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Packs a large answer. What streams has no length and stays as it is.
pub fn compressed(answer: Answer) -> Answer {
    let length = http_body::Body::size_hint(answer.body()).exact().filter(|n| *n >= GZIP_FROM_BYTES);
    let Some(length) = length.filter(|_| !answer.headers().contains_key(CONTENT_ENCODING)) else {
        return answer;
    };
    let mut answer = answer.map(pieces::packed);
    answer.extensions_mut().insert(Unpacked(length));
    answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    answer
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// As much of an id that somebody else has chosen as is believed to be one.
const AUDIT_ID_LENGTH_MAX: usize = 64;

/// What the request is called in logs: as whoever sent it calls it, or a new name.
pub fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= AUDIT_ID_LENGTH_MAX);
    given.map_or_else(base::id::uuid, str::to_owned)
}

/// What every answer carries.
pub fn finish(answer: &mut Answer, audit_id: &str) {
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(audit_id) {
        headers.insert(AUDIT_ID, id);
    }
    let private = || HeaderValue::from_static("no-cache, private");
    headers.entry(CACHE_CONTROL).or_insert_with(private);
}

/// Adds a `Warning` header for each text, as kubectl prints them.
pub fn warn(mut answer: Answer, warnings: &[String]) -> Answer {
    for warning in warnings {
        let text = format!("299 - {:?}", warning.replace('\n', " "));
        match HeaderValue::from_bytes(text.as_bytes()) {
            Ok(value) => drop(answer.headers_mut().append(WARNING, value)),
            Err(error) => tracing::debug!(%error, warning, "cannot send a warning"),
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_speak_the_clients_encoding() {
        let refusal = ApiError::bad_request("no");
        let media = |accept: &str| {
            let answer = error(Form::of_error(Some(accept)), &refusal);
            answer.headers()[CONTENT_TYPE].to_str().unwrap_or_default().to_owned()
        };
        assert_eq!(media("application/vnd.kubernetes.protobuf"), "application/vnd.kubernetes.protobuf");
        assert_eq!(media("application/yaml"), "application/yaml");
        assert_eq!(media("text/html"), "application/json");
        let bytes = encode(Form { encoding: Encoding::Protobuf, ..Form::JSON }, &status(&refusal));
        assert_eq!(bytes.and_then(|b| api::proto::decode(&b)).map(|v| v["message"].clone()), Ok("no".into()));
    }

    /// As kube-apiserver v1.36.2: clients that are told when come back by themselves, and others do not.
    #[test]
    fn who_may_come_back_is_told_when() {
        let told = |refusal: &ApiError| {
            let answer = error(Form::JSON, refusal);
            let header = answer.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap_or_default().to_owned());
            let object = status(refusal)["details"]["retryAfterSeconds"].as_i64();
            assert_eq!(header, object.filter(|s| *s > 0).map(|s| s.to_string()), "{refusal:?}");
            header.unwrap_or_default()
        };
        for (refusal, seconds) in [
            (ApiError::too_many_requests("later", 10), "10"),
            (ApiError::unavailable_for_now("later", 1), "1"),
            (crate::objects::store_error(store::StoreError::Closed), "1"),
            (ApiError::future_resource_version(2, 1), "1"),
            // Nobody knows how long a service is away, or a webhook; nor is a time of none one.
            (crate::proxy::unreachable_service("dial tcp"), ""),
            (ApiError::unavailable("no endpoints available for service \"a\""), ""),
            (ApiError::too_many_requests("later", 0), ""),
            (ApiError::internal("it is away"), ""),
        ] {
            assert_eq!(told(&refusal), seconds, "{refusal:?}");
        }
    }

    #[test]
    fn warnings_are_quoted_and_kept_on_a_line() {
        let answer = warn(page_not_found(), &["a \"b\"\nc".to_owned()]);
        assert_eq!(answer.headers()[WARNING], "299 - \"a \\\"b\\\" c\"");
    }
}
