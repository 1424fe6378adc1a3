//! Request bodies: their size, their form, and what is wrong with them.

use ::http::header::CONTENT_TYPE;
use api::kinds::Kind;
use api::schema::{self, Schema, decode};
use api::status::ApiError;
use bytes::Bytes;
use serde_json::Value;

use crate::Context;
use crate::http::body::{Body, ReadError, read};

/// As etcd's default request limit with the room kube-apiserver leaves: 3 MiB.
const BODY_LIMIT_BYTES: usize = 3 << 20;

pub async fn bytes(body: Body) -> Result<Bytes, ApiError> {
    read(body, BODY_LIMIT_BYTES).await.map_err(|error| match error {
        ReadError::TooLarge => {
            ApiError::too_large(format!("Request entity too large: limit is {BODY_LIMIT_BYTES}"))
        }
        ReadError::Broken(error) => ApiError::bad_request(format!("cannot read the request's body: {error}")),
    })
}

pub fn content_type(context: &Context) -> &str {
    context.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// A decoded body and the warnings it earned.
pub struct Input {
    pub value: Value,
    pub warnings: Vec<String>,
}

/// How unknown and duplicate fields are met: `fieldValidation`, `Warn` unless said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    Warn,
    Strict,
}

pub fn validation(context: &Context) -> Result<Validation, ApiError> {
    match context.query.get("fieldValidation") {
        None | Some("Warn") => Ok(Validation::Warn),
        Some("Ignore") => Ok(Validation::Ignore),
        Some("Strict") => Ok(Validation::Strict),
        Some(other) => Err(ApiError::bad_request(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// Reads an object of the request's own kind.
pub async fn object(context: &Context, body: Body) -> Result<Input, ApiError> {
    let bytes = bytes(body).await?;
    let decoded = decode::parse(&bytes, content_type(context)).map_err(decode_error)?;
    let mut value = decoded.value;
    if !value.is_object() {
        return Err(unrecognized(&context.kind, &value, &bytes));
    }
    check_type(&context.kind, &mut value)?;
    let duplicates: Vec<String> = decoded.duplicates.iter().map(ToString::to_string).collect();
    let warnings = check_fields(context, &mut value, duplicates)?;
    canonicalize(&context.kind, &mut value);
    Ok(Input { value, warnings })
}

/// Reads a body of another kind than the resource's (options, bindings, reviews).
pub async fn other(context: &Context, body: Body) -> Result<Value, ApiError> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    Ok(decode::parse(&bytes, content_type(context)).map_err(decode_error)?.value)
}

pub fn decode_error(error: decode::DecodeError) -> ApiError {
    match error {
        decode::DecodeError::UnsupportedMediaType(_) => ApiError::unsupported_media_type(error.to_string()),
        other => ApiError::bad_request(format!("error decoding the request's body: {other}")),
    }
}

/// What came is no object at all; the original tells it in the words of its own decoder.
fn unrecognized(kind: &Kind, value: &Value, bytes: &[u8]) -> ApiError {
    const SHOWN_BYTES: usize = 30;
    let what = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    let mut shown: String = bytes.iter().take(SHOWN_BYTES).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > SHOWN_BYTES {
        shown.push_str(" ...");
    }
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: cannot \
         unmarshal {what} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
         \"json:\\\"kind,omitempty\\\"\" }} ({shown})",
        kind.kind
    ))
}

/// A type that nobody has heard of.
fn unregistered(kind: &Kind, api_version: &str, given: &str) -> ApiError {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    ApiError::bad_request(format!(
        "{given} in version {version:?} cannot be handled as a {}: no kind {given:?} is registered for version \
         {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        kind.kind
    ))
}

/// The body must be of the kind and version that its URL names; what is absent is filled in.
fn check_type(kind: &Kind, value: &mut Value) -> Result<(), ApiError> {
    let expected = kind.api_version();
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    let or = |given: &str, wanted: &str| if given.is_empty() { wanted.to_owned() } else { given.to_owned() };
    let (whole_version, whole_kind) = (or(&api_version, &expected), or(&kind_name, &kind.kind));
    let differs = whole_version != expected || whole_kind != kind.kind;
    let (group, version) = schema::split_api_version(&whole_version);
    if differs && kind.custom.is_none() && schema::of_kind(group, version, &whole_kind).is_none() {
        return Err(unregistered(kind, &whole_version, &whole_kind));
    }
    if !api_version.is_empty() && api_version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind_name.is_empty() && kind_name != kind.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({kind_name}) does not match the expected kind ({})",
            kind.kind
        )));
    }
    if let Value::Object(map) = value {
        map.insert("apiVersion".into(), expected.into());
        map.insert("kind".into(), kind.kind.as_ref().into());
    }
    Ok(())
}

/// The schema of a kind, built-in or custom.
pub fn schema_of(kind: &Kind) -> Option<Schema> {
    match &kind.custom {
        Some(custom) => Some(custom.schema.clone()),
        None => schema::of_kind(&kind.group, &kind.version, &kind.kind),
    }
}

/// Unknown and duplicate fields, met as the request wants; unknown ones are dropped in any case.
pub fn check_fields(
    context: &Context,
    value: &mut Value,
    duplicates: Vec<String>,
) -> Result<Vec<String>, ApiError> {
    let kind = &context.kind;
    let Some(schema) = schema_of(kind) else { return Ok(duplicates) };
    let (types, unknown): (Vec<_>, Vec<_>) =
        schema.check(value).into_iter().partition(|p| matches!(p, schema::FieldProblem::Type { .. }));
    let prefix = format!("{} in version {:?} cannot be handled as a {}", kind.kind, kind.version, kind.kind);
    if !types.is_empty() {
        let faults: Vec<String> = types.iter().map(ToString::to_string).collect();
        return Err(ApiError::bad_request(format!("{prefix}: {}", faults.join(", "))));
    }
    let problems: Vec<String> =
        duplicates.into_iter().chain(unknown.iter().map(ToString::to_string)).collect();
    let validation = validation(context)?;
    if !problems.is_empty() && validation == Validation::Strict {
        return Err(ApiError::bad_request(format!(
            "{prefix}: strict decoding error: {}",
            problems.join(", ")
        )));
    }
    schema.prune(value);
    Ok(if validation == Validation::Warn { problems } else { Vec::new() })
}

/// Gives a whole object the form its type writes. An applied configuration must stay as it was given: what it does not
/// mention is not its manager's.
pub fn canonicalize(kind: &Kind, value: &mut Value) {
    if let Some(schema) = schema_of(kind) {
        schema.canonicalize(value);
    }
}
