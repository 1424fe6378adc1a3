//! `patch`: the four kinds of patches, each made into a whole object and stored as an update is.

use ::http::StatusCode;
use api::apply::{ApplyError, Writer, managed};
use api::meta;
use api::patch;
use api::schema::decode;
use api::status::{ApiError, FieldError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use parking_lot::Mutex;
use serde_json::Value;

use super::update::{Ownership, Writes, change, reset_fields};
use super::{input, one};
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context};

/// How a patch is to be read.
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    pub async fn read(context: &Context, body: Body) -> Result<(Self, Vec<String>), ApiError> {
        let content_type =
            input::content_type(context).split(';').next().unwrap_or_default().trim().to_owned();
        let strategic = context.kind.custom.is_none();
        let make: fn(Value) -> Self = match content_type.as_str() {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" if strategic => Self::Strategic,
            "application/apply-patch+yaml" => Self::Apply,
            _ => return Err(unknown_format(strategic)),
        };
        let bytes = input::bytes(body).await?;
        if content_type == "application/apply-patch+yaml" {
            let decoded = decode::parse_yaml(&bytes)
                .map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
            let duplicates = decoded.duplicates.iter().map(ToString::to_string).collect();
            return Ok((Self::Apply(decoded.value), duplicates));
        }
        // A strategic patch's faults are told bare.
        let bare = content_type.starts_with("application/strategic");
        let prefix = if bare { "" } else { "error decoding patch: " };
        let refuse = |why: String| ApiError::bad_request(format!("{prefix}{why}"));
        let decoded = match decode::parse_json(&bytes) {
            Err(decode::DecodeError::Json(fault)) => return Err(refuse(decode::json_fault(&bytes, &fault))),
            other => other.map_err(input::decode_error)?,
        };
        if content_type != "application/json-patch+json" {
            patch::check_object(&decoded.value).map_err(refuse)?;
        }
        let duplicates = decoded.duplicates.iter().map(ToString::to_string).collect();
        Ok((make(decoded.value), duplicates))
    }

    /// The object that the patch makes of `old`.
    pub fn applied(&self, context: &Context, old: &Value) -> Result<Value, ApiError> {
        let kind = &context.kind;
        match self {
            Self::Json(patch) => patch::json(old, patch).map_err(|e| patch_error(&e)),
            Self::Merge(patch) => Ok(patch::merge(old, patch)),
            Self::Strategic(patch) => {
                let schema = api::schema::of_kind(&kind.group, &kind.version, &kind.kind)
                    .filter(|_| kind.custom.is_none());
                let schema = schema.ok_or_else(|| {
                    ApiError::unsupported_media_type(
                        "strategic merge patch is not supported for custom resources; use merge or apply",
                    )
                })?;
                patch::strategic::apply(old, patch, &schema).map_err(|e| patch_error(&e))
            }
            Self::Apply(_) => Err(ApiError::bad_request("server-side apply is not a patch of a part")),
        }
    }
}

/// Patches of other forms, among them CBOR, which the original speaks only where it is told to.
fn unknown_format(builtin: bool) -> ApiError {
    match builtin {
        true => ApiError::wrong_media_type(),
        false => ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        ),
    }
}

fn patch_error(error: &patch::PatchError) -> ApiError {
    match error {
        patch::PatchError::TooManyOperations(_) | patch::PatchError::CopiesTooMuch => {
            ApiError::too_large(error.to_string())
        }
        patch::PatchError::JsonPatch(_) | patch::PatchError::Operation(_) => {
            tracing::debug!(%error, "a patch does not fit");
            ApiError::patch_does_not_fit()
        }
        _ => ApiError::bad_request(error.to_string()),
    }
}

pub async fn patch(
    server: &ApiServer,
    context: &Context,
    body: Body,
    writes: Writes,
) -> Result<Answer, ApiError> {
    let (patch, duplicates) = Patch::read(context, body).await?;
    if let Patch::Apply(config) = patch {
        return apply(server, context, config, duplicates, writes).await;
    }
    let warnings = Mutex::new(Vec::new());
    let edit = |old: &Value| {
        let mut new = patch.applied(context, old)?;
        *warnings.lock() = check_patched(context, &mut new, duplicates.clone())?;
        check_place(context, &new)?;
        input::canonicalize(&context.kind, &mut new);
        Ok(new)
    };
    let changed = change(server, context, writes, Ownership::Take, edit).await?;
    Ok(respond::warn(one(context, StatusCode::OK, &changed.object()), &warnings.into_inner()))
}

/// As for a whole object, but it is the patch that is to blame.
fn check_patched(
    context: &Context,
    new: &mut Value,
    duplicates: Vec<String>,
) -> Result<Vec<String>, ApiError> {
    let shown = |new: &Value| {
        let mut shown = new.clone();
        meta::unset(&mut shown, "managedFields");
        shown.to_string()
    };
    let refuse = |shown: String, why: String| {
        Err(ApiError::invalid("", "", "", &[FieldError::invalid("patch", shown, why)]))
    };
    let (types, problems) = input::field_faults(&context.kind, new, duplicates);
    if !types.is_empty() {
        return refuse(shown(new), types);
    }
    match input::validation(context)? {
        input::Validation::Ignore => Ok(Vec::new()),
        input::Validation::Strict if !problems.is_empty() => {
            refuse(shown(new), format!("strict decoding error: {}", problems.join(", ")))
        }
        input::Validation::Warn | input::Validation::Strict => Ok(problems),
    }
}

/// A patch renames nothing and moves nothing.
fn check_place(context: &Context, new: &Value) -> Result<(), ApiError> {
    let target = &context.target;
    let name = meta::name(new);
    if name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    if context.kind.namespaced && meta::namespace(new) != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

async fn apply(
    server: &ApiServer,
    context: &Context,
    config: Value,
    duplicates: Vec<String>,
    writes: Writes,
) -> Result<Answer, ApiError> {
    let kind = &context.kind;
    let manager = context.query.get("fieldManager").ok_or_else(|| {
        let errors = [api::status::FieldError::required("fieldManager", "is required for apply patch")];
        let mut error = ApiError::invalid("meta.k8s.io", "PatchOptions", "", &errors);
        error.message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch".into();
        error
    })?;
    let mut config = config;
    if !config.is_object() {
        return Err(ApiError::bad_request("the applied configuration is not an object"));
    }
    let api_version = config.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if api_version != kind.api_version() {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {}",
            kind.api_version()
        )));
    }
    let given = meta::name(&config);
    if !given.is_empty() && given != context.target.name {
        return Err(ApiError::bad_request(format!("name in URL does not match name in metadata: {given}")));
    }
    if meta::metadata(&config).contains_key("managedFields") {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let warnings = input::check_fields(context, &mut config, duplicates)?;
    meta::set(&mut config, "name", context.target.name.as_str());
    if kind.namespaced {
        meta::set(&mut config, "namespace", context.target.namespace.as_str());
    }
    let schema = input::schema_of(kind);
    let now = base::time::rfc3339_seconds(base::time::now());
    let force = context.query.flag("force");
    let (api_version, reset) = (kind.api_version(), reset_fields(kind, writes));
    let writer = Writer {
        manager,
        api_version: &api_version,
        subresource: writes.subresource(),
        time: &now,
        schema: schema.as_ref(),
        reset: reset.as_ref(),
    };
    let merged = |old: Option<&Value>| managed::apply(old, &config, &writer, force).map_err(apply_error);
    let demanded = meta::resource_version(&config).to_owned();
    let edit = |old: &Value| {
        let mut new = merged(Some(old))?;
        if demanded.is_empty() {
            meta::set(&mut new, "resourceVersion", meta::resource_version(old));
        }
        Ok(new)
    };
    let answer = match change(server, context, writes, Ownership::Settled, edit).await {
        Err(error)
            if error.reason == "NotFound" && writes == Writes::Main && meta::uid(&config).is_empty() =>
        {
            if !demanded.is_empty() {
                return Err(error);
            }
            server.0.authorize_create(context).await?;
            match super::create_object(server, context, merged(None)?).await {
                Err(error) if error.reason == "AlreadyExists" => {
                    // Somebody created it in between: apply to that.
                    let object = change(server, context, writes, Ownership::Settled, edit).await?.object();
                    one(context, StatusCode::OK, &object)
                }
                created => one(context, StatusCode::CREATED, &created?),
            }
        }
        changed => one(context, StatusCode::OK, &changed?.object()),
    };
    Ok(respond::warn(answer, &warnings))
}

fn apply_error(error: ApplyError) -> ApiError {
    let ApplyError::Conflicts(conflicts) = &error else { return ApiError::bad_request(error.to_string()) };
    let causes = conflicts.0.iter().map(|conflict| StatusCause {
        reason: Some("FieldManagerConflict".into()),
        message: Some(conflict.message()),
        field: Some(conflict.field.clone()),
    });
    ApiError::apply_conflict(conflicts.to_string(), causes.collect())
}
