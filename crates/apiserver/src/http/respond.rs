//! Answers: objects, errors and warnings, in the form the client accepts.

use api::status::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::body::{Body, full};

pub type Answer = Response<Body>;
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// What the `Accept` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
    /// `as=Table`.
    Table,
    /// `as=PartialObjectMetadata` or its list.
    Metadata,
}

impl Form {
    /// The first of the accepted forms that is offered. Protobuf is not, and its clients all take JSON as well.
    pub fn parse(accept: Option<&str>) -> Result<Self> {
        let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else { return Ok(Self::Json) };
        for media in accept.split(',') {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameter = |name: &str| {
                let mut parts = media.split(';').map(str::trim).skip(1);
                parts.find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
            };
            match (kind, parameter("as")) {
                ("application/json", Some("Table")) => return Ok(Self::Table),
                ("application/json", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    return Ok(Self::Metadata);
                }
                ("application/json", Some(_)) => continue,
                ("application/json" | "*/*" | "application/*", None) => return Ok(Self::Json),
                ("application/yaml", None) => return Ok(Self::Yaml),
                _ => {}
            }
        }
        Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ))
    }
}

pub fn bytes(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub fn json(code: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => bytes(code, "application/json", body),
        Err(fault) => error(&ApiError::internal(fault)),
    }
}

/// An object in the form asked for, `Table` and `Metadata` excepted: those are made where the kind is known.
pub fn object(code: StatusCode, form: Form, value: &Value) -> Answer {
    match form {
        Form::Yaml => bytes(code, "application/yaml", api::yaml::to_string(value)),
        _ => json(code, value),
    }
}

pub fn error(error: &ApiError) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &error.to_status());
    if let Some(seconds) = error.details.as_ref().and_then(|d| d.retry_after_seconds) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
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
    fn the_first_offered_form_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, form) in [
            (Some(table), Form::Table),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Form::Json),
            (Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Form::Metadata),
            (Some("*/*"), Form::Json),
            (Some("application/yaml"), Form::Yaml),
            (None, Form::Json),
        ] {
            assert_eq!(Form::parse(accept).ok(), Some(form), "{accept:?}");
        }
        assert_eq!(Form::parse(Some("text/html")).map_err(|e| e.code), Err(406));
    }
}
