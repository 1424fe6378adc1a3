//! Request bodies: their size, their form, and what is wrong with them.

use ::http::header::CONTENT_TYPE;
use api::kinds::Kind;
use api::schema::{self, Schema, decode};
use api::status::{ApiError, FieldError};
use api::weight;
use bytes::Bytes;
use serde_json::Value;

use super::strictness;
use crate::http::body::{Body, ReadError, read};
use crate::room::What;
use crate::{Context, aside, audit};

/// As etcd's default request limit with the room kube-apiserver leaves: 3 MiB.
const BODY_LIMIT_BYTES: usize = 3 << 20;

/// The body of a request, which then has a place for what it comes to.
pub async fn bytes(context: &Context, body: Body) -> Result<Bytes, ApiError> {
    let bytes = read(body, BODY_LIMIT_BYTES).await.map_err(|error| match error {
        ReadError::TooLarge => {
            ApiError::too_large(format!("Request entity too large: limit is {BODY_LIMIT_BYTES}"))
        }
        ReadError::Broken(error) => ApiError::bad_request(format!("cannot read the request's body: {error}")),
    })?;
    aside::begin(bytes.len()).await;
    aside::place(What::Body, weight::of_body(&bytes, content_type(context))).await?;
    Ok(bytes)
}

pub fn content_type(context: &Context) -> &str {
    context.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
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

/// Reads an object of the request's own kind. What there is to warn of is told whatever comes of the request.
pub async fn object(context: &Context, body: Body) -> Result<Value, ApiError> {
    let content_type = content_type(context);
    if context.kind.custom.is_some() && content_type.starts_with(crate::http::accept::PROTOBUF) {
        let error = decode::DecodeError::UnsupportedMediaType(content_type.to_owned());
        return Err(decode_error(error));
    }
    let bytes = bytes(context, body).await?;
    let decoded =
        decode::parse(&bytes, content_type).map_err(|error| unrecognized(context, &bytes, error))?;
    let mut value = decoded.value;
    check_type(&context.kind, &bytes, &mut value)?;
    let duplicates: Vec<String> = decoded.duplicates.iter().map(ToString::to_string).collect();
    let schema = schema_of(&context.kind);
    let (mut types, unknown) = faults_in(schema.as_ref(), &mut value);
    if let Some(schema) = schema.as_ref().filter(|_| context.kind.custom.is_some() && types.is_empty()) {
        let own = value.get("metadata").and_then(schema::embedded::metadata_fault);
        let within = || schema::embedded::unreadable(schema, &value).map(|fault| fault.to_string());
        types = own.or_else(within).unwrap_or_default();
        schema.prune_nulls(&mut value);
    }
    let problems = match &context.kind.custom {
        None => strictness::of_document(&bytes, duplicates, unknown),
        Some(_) => strictness::of_custom(duplicates, unknown),
    };
    let warnings = judge(context, &types, problems)?;
    context.warn(warnings);
    canonicalize(&context.kind, &mut value);
    audit::request_object(&value, true);
    Ok(value)
}

/// Reads a body of another kind than the resource's (options, bindings, reviews).
pub async fn other(context: &Context, body: Body) -> Result<Value, ApiError> {
    let bytes = bytes(context, body).await?;
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let value = decode::parse(&bytes, content_type(context)).map_err(decode_error)?.value;
    audit::request_object(&value, false);
    Ok(value)
}

/// What a body of another kind must be; what it does not say it is.
pub fn check_other(of: (&str, &str, &str), value: &Value) -> Result<(), ApiError> {
    let (group, version, kind) = of;
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    let own = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let given = if text("apiVersion").is_empty() { &own } else { text("apiVersion") };
    let name = if text("kind").is_empty() { kind } else { text("kind") };
    let older = group == "policy" && given == "policy/v1beta1";
    if (given != own && !older) || name != kind {
        return Err(ApiError::bad_request(other_type_of(of, given, name)));
    }
    let schema = schema::of_kind(group, version, kind);
    let problems = schema.map(|schema| schema.check(value)).unwrap_or_default();
    match problems.iter().find(|p| matches!(p, schema::FieldProblem::Type { .. })) {
        Some(fault) => Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {fault}"
        ))),
        None => Ok(()),
    }
}

/// The options in the body of a deletion, if it has one.
pub async fn delete_options(context: &Context, body: Body) -> Result<Option<Value>, ApiError> {
    let bytes = bytes(context, body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let value = decode::parse(&bytes, content_type(context)).map_err(decode_error)?.value;
    audit::request_object(&value, false);
    match value.get("kind").and_then(Value::as_str) {
        // Any group's version of them is the same.
        None | Some("" | "DeleteOptions") if value.is_object() => Ok(Some(value)),
        _ if !value.is_object() => Err(ApiError::bad_request(without_type(&value))),
        kind => {
            let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
            let kind = kind.unwrap_or_default();
            Err(ApiError::bad_request(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme {OPTIONS_SCHEME:?}"
            )))
        }
    }
}

/// So much of a body that cannot be read is shown.
const SUMMARY_BYTES: usize = 30;

fn summary(bytes: &[u8]) -> String {
    let (shown, more) = match bytes.len() > SUMMARY_BYTES {
        true => (&bytes[..SUMMARY_BYTES], " ..."),
        false => (bytes, ""),
    };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", base::id::hex(shown)),
    }
}

/// How the original's decoder says that something is no object.
fn without_type(value: &Value) -> String {
    let what = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        _ => "number",
    };
    format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type struct {{ APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

fn not_an_object(kind: &Kind, bytes: &[u8], why: &str) -> ApiError {
    let shown = summary(bytes);
    let kind = &kind.kind;
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({shown})"
    ))
}

fn unrecognized(context: &Context, bytes: &[u8], error: decode::DecodeError) -> ApiError {
    match &error {
        decode::DecodeError::UnsupportedMediaType(_) | decode::DecodeError::TooHeavy(_) => {
            decode_error(error)
        }
        decode::DecodeError::Json(fault) => {
            let fault = decode::json_fault(bytes, fault);
            let why = format!("couldn't get version/kind; json parse error: {fault}");
            not_an_object(&context.kind, bytes, &why)
        }
        other => not_an_object(&context.kind, bytes, &other.to_string()),
    }
}

pub fn decode_error(error: decode::DecodeError) -> ApiError {
    match error {
        decode::DecodeError::UnsupportedMediaType(_) => ApiError::unsupported_media_type(error.to_string()),
        decode::DecodeError::TooHeavy(fault) => {
            ApiError::too_large(format!("Request entity too large: {fault}"))
        }
        other => ApiError::bad_request(format!("error decoding the request's body: {other}")),
    }
}

/// The body must be of the kind and version that its URL names; what is absent is filled in where the kind is built in.
fn check_type(kind: &Kind, bytes: &[u8], value: &mut Value) -> Result<(), ApiError> {
    if !value.is_object() {
        return Err(not_an_object(kind, bytes, &without_type(value)));
    }
    let expected = kind.api_version();
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    let named = |name: &str| name.is_empty() || name == kind.kind;
    if kind.custom.is_some() {
        check_custom_type(kind, bytes, value)?;
    } else if !named(&kind_name) || !(api_version.is_empty() || api_version == expected) {
        let given = if api_version.is_empty() { &expected } else { &api_version };
        let name = if kind_name.is_empty() { kind.kind.to_string() } else { kind_name };
        return Err(ApiError::bad_request(other_type(kind, given, &name)));
    }
    if api_version != expected && (kind.custom.is_some() || !api_version.is_empty()) {
        return Err(ApiError::bad_request(version_mismatch(&api_version, &expected)));
    }
    if let Value::Object(map) = value {
        map.insert("apiVersion".into(), expected.into());
        map.insert("kind".into(), kind.kind.as_ref().into());
    }
    Ok(())
}

/// Where the original keeps its types; its refusals name the place.
const OPTIONS_SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// What is wrong with a built-in object of another type than the path's.
fn other_type(kind: &Kind, given: &str, name: &str) -> String {
    other_type_of((&kind.group, &kind.version, &kind.kind), given, name)
}

fn other_type_of((own_group, own_version, kind): (&str, &str, &str), given: &str, name: &str) -> String {
    let (group, version) = schema::split_api_version(given);
    let prefix = format!("{name} in version {version:?} cannot be handled as a {kind}");
    match schema::of_kind(group, version, name) {
        None => {
            format!("{prefix}: no kind {name:?} is registered for version {given:?} in scheme {SCHEME:?}")
        }
        Some(_) if name != kind || group != own_group => {
            let own = own_group.split('.').next().filter(|own| !own.is_empty()).unwrap_or("core");
            format!("{prefix}: converting ({version}.{name}) to ({own}.{kind}): unknown conversion")
        }
        Some(_) if own_group.is_empty() => version_mismatch(given, own_version),
        Some(_) => version_mismatch(given, &format!("{own_group}/{own_version}")),
    }
}

/// A custom resource must say what it is: nothing else does.
fn check_custom_type(kind: &Kind, bytes: &[u8], value: &Value) -> Result<(), ApiError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("kind").is_empty() {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
        let why = format!("Object 'Kind' is missing in '{}'", shown.trim_end());
        return Err(not_an_object(kind, bytes, &why));
    }
    let given = text("kind");
    if given != kind.kind {
        let fault = FieldError::invalid("kind", given, format!("must be {}", kind.kind));
        return Err(ApiError::invalid(&kind.group, given, api::meta::name(value), &[fault]));
    }
    Ok(())
}

fn version_mismatch(given: &str, expected: &str) -> String {
    format!("the API version in the data ({given}) does not match the expected API version ({expected})")
}

/// So much of a custom resource that names no kind is repeated.
const SHOWN_BYTES: usize = 4096;

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
    mut duplicates: Vec<String>,
) -> Result<Vec<String>, ApiError> {
    let (types, mut unknown) = faults_in(schema_of(&context.kind).as_ref(), value);
    duplicates.append(&mut unknown);
    judge(context, &types, duplicates)
}

/// What the faults of fields mean to the request: a refusal, warnings, or nothing.
fn judge(context: &Context, types: &str, problems: Vec<String>) -> Result<Vec<String>, ApiError> {
    let kind = &context.kind;
    let prefix = format!("{} in version {:?} cannot be handled as a {}", kind.kind, kind.version, kind.kind);
    if !types.is_empty() {
        return Err(ApiError::bad_request(format!("{prefix}: {types}")));
    }
    let validation = validation(context)?;
    if !problems.is_empty() && validation == Validation::Strict {
        return Err(ApiError::bad_request(format!(
            "{prefix}: strict decoding error: {}",
            problems.join(", ")
        )));
    }
    Ok(match validation {
        Validation::Warn => problems.into_iter().flat_map(decode::as_warnings).collect(),
        _ => Vec::new(),
    })
}

/// Values that their fields cannot hold, as one text, and the fields that are unknown; those are dropped.
pub fn faults_in(schema: Option<&Schema>, value: &mut Value) -> (String, Vec<String>) {
    let Some(schema) = schema else { return (String::new(), Vec::new()) };
    let (types, unknown): (Vec<_>, Vec<_>) =
        schema.check(value).into_iter().partition(|p| matches!(p, schema::FieldProblem::Type { .. }));
    // The original goes on after the first, and tells of that alone.
    let fault = types.first().map(ToString::to_string).unwrap_or_default();
    if types.is_empty() {
        schema.prune(value);
    }
    (fault, unknown.iter().map(ToString::to_string).collect())
}

/// Gives a whole object the form its type writes. An applied configuration must stay as it was given: what it does not
/// mention is not its manager's.
pub fn canonicalize(kind: &Kind, value: &mut Value) {
    match (&kind.custom, value.get_mut("metadata")) {
        // What every object says of itself is of one type, whatever the rest is.
        (Some(custom), metadata) => {
            if let Some((schema, metadata)) = schema::of_model(METADATA).zip(metadata) {
                schema.canonicalize(metadata);
            }
            schema::embedded::canonicalize(&custom.schema, value);
        }
        (None, _) => {
            if let Some(schema) = schema_of(kind) {
                schema.canonicalize(value);
            }
        }
    }
}

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
