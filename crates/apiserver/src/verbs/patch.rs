//! `patch`: the four kinds of patches, each made into a whole object and stored as an update is.

use api::meta;
use api::patch;
use api::schema::decode;
use api::status::{ApiError, FieldError};
use serde_json::Value;

use super::input;
use super::ownership::Ownership;
use super::strictness;
use super::update::{Writes, change};
use crate::http::body::Body;
use crate::http::respond::Answer;
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
        let bytes = input::bytes(context, body).await?;
        if content_type == "application/apply-patch+yaml" {
            let decoded = decode::parse_yaml(&bytes).map_err(|error| match error {
                decode::DecodeError::TooHeavy(_) => input::decode_error(error),
                other => ApiError::bad_request(format!("error decoding YAML: {other}")),
            })?;
            let duplicates = decoded.duplicates.iter().map(ToString::to_string).collect();
            crate::audit::request_object(&decoded.value, false);
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
        crate::audit::request_object(&decoded.value, false);
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

pub fn patch_error(error: &patch::PatchError) -> ApiError {
    match error {
        patch::PatchError::TooManyOperations(_)
        | patch::PatchError::CopiesTooMuch
        | patch::PatchError::ShiftsTooMuch => ApiError::too_large(error.to_string()),
        patch::PatchError::JsonPatch(_) | patch::PatchError::TestFailed(_) => {
            tracing::debug!(%error, "a patch does not fit");
            ApiError::patch_does_not_fit()
        }
        patch::PatchError::Strategic(_) => ApiError::unexplained(error.to_string()),
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
        return super::apply::apply(server, context, config, duplicates, writes).await;
    }
    let edit = |old: &Value| {
        let mut new = patch.applied(context, old)?;
        context.warn(check_patched(context, writes, &patch, &mut new, duplicates.clone())?);
        check_place(context, &new)?;
        input::canonicalize(&context.kind, &mut new);
        Ok(new)
    };
    let changed = change(server, context, writes, Ownership::Take, edit).await?;
    Ok(changed.answer(context))
}

/// As for a whole object, but it is the patch that is to blame.
pub fn check_patched(
    context: &Context,
    writes: Writes,
    patch: &Patch,
    new: &mut Value,
    duplicates: Vec<String>,
) -> Result<Vec<String>, ApiError> {
    let shown = |new: &Value| {
        if let Patch::Strategic(patch) = patch {
            return patch::go_shown(patch);
        }
        let mut shown = new.clone();
        meta::unset(&mut shown, "managedFields");
        shown.to_string()
    };
    let refuse = |shown: String, why: String| {
        Err(ApiError::invalid("", "", "", &[FieldError::invalid("patch", shown, why)]))
    };
    let schema = match writes {
        Writes::Scale => api::schema::of_kind("autoscaling", "v1", "Scale"),
        _ => input::schema_of(&context.kind),
    };
    let (types, unknown) = input::faults_in(schema.as_ref(), new);
    if let Some(schema) = schema.as_ref().filter(|_| context.kind.custom.is_some()) {
        schema.prune_nulls(new);
    }
    let problems = match &context.kind.custom {
        Some(_) if writes != Writes::Scale => strictness::of_custom(duplicates, unknown),
        _ => strictness::of_patched(matches!(patch, Patch::Strategic(_)), duplicates, unknown),
    };
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
pub fn check_place(context: &Context, new: &Value) -> Result<(), ApiError> {
    let target = &context.target;
    super::update::check_name(context, meta::name(new))?;
    if context.kind.namespaced && meta::namespace(new) != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
