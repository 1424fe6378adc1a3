//! Server-side apply: a configuration says which fields its manager wants, and how they are to be.

use api::apply::{ApplyError, Writer, managed};
use api::kinds::Kind;
use api::meta;
use api::schema::{self, typed};
use api::status::ApiError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::input;
use super::ownership::{Ownership, reset_fields};
use super::patch::check_place;
use super::update::{Writes, change};
use super::versions::Served;
use crate::http::respond::Answer;
use crate::{ApiServer, Context};

pub async fn apply(
    server: &ApiServer,
    context: &Context,
    config: Value,
    duplicates: Vec<String>,
    writes: Writes,
) -> Result<Answer, ApiError> {
    let kind = &context.kind;
    // As it came: what is filled in afterwards is not told of.
    let place = (meta::namespace(&config).to_owned(), meta::name(&config).to_owned());
    let config = checked(context, config, duplicates)?;
    let (schema, versions) = (input::schema_of(kind), Served::of(server, kind));
    let now = base::time::rfc3339_seconds(base::time::now());
    let force = context.query.flag("force");
    let (api_version, reset) = (kind.api_version(), reset_fields(kind, writes));
    let writer = Writer {
        manager: context.query.get("fieldManager").unwrap_or_default(),
        api_version: &api_version,
        subresource: writes.subresource(),
        time: &now,
        schema: schema.as_ref(),
        reset: reset.as_ref(),
        versions: versions.as_deref(),
    };
    let merged = |old: Option<&Value>| {
        let mut new = managed::apply(old, &config, &writer, force).map_err(|error| match error {
            // Elements that cannot be told apart.
            ApplyError::Invalid(fault) => {
                untyped((&kind.group, &kind.version, &kind.kind), (&place.0, &place.1), &[fault])
            }
            other => apply_error(other),
        })?;
        // As it was given, the configuration may not say where it belongs.
        if kind.namespaced {
            meta::set(&mut new, "namespace", context.target.namespace.as_str());
        }
        // What was given as nothing becomes what its type makes of that.
        input::canonicalize(kind, &mut new);
        Ok::<_, ApiError>(new)
    };
    let demanded = meta::resource_version(&config).to_owned();
    let edit = |old: &Value| {
        let mut new = merged(Some(old))?;
        if demanded.is_empty() {
            meta::set(&mut new, "resourceVersion", meta::resource_version(old));
        }
        Ok(new)
    };
    match change(server, context, writes, Ownership::Settled, edit).await {
        Err(error) if error.reason == "NotFound" && writes == Writes::Main => {
            let uid = meta::uid(&config);
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(ApiError::conflict(&context.resource(), &context.target.name, &why));
            }
            server.0.authorize_create(context).await?;
            let mut new = merged(None)?;
            meta::unset(&mut new, "resourceVersion");
            match super::create_object(server, context, new).await {
                Err(error) if error.reason == "AlreadyExists" => {
                    // Somebody created it in between: apply to that.
                    Ok(change(server, context, writes, Ownership::Settled, edit).await?.answer(context))
                }
                created => Ok(created?.answer(context)),
            }
        }
        changed => Ok(changed?.answer(context)),
    }
}

/// The configuration with its place filled in, if it is one of this object.
fn checked(context: &Context, config: Value, duplicates: Vec<String>) -> Result<Value, ApiError> {
    let kind = &context.kind;
    let mut config = if config.is_null() { serde_json::json!({}) } else { config };
    api::patch::check_object(&config).map_err(|why| {
        ApiError::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: {why}"
        ))
    })?;
    check_type(kind, &config)?;
    if meta::metadata(&config).get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    meta::unset(&mut config, "managedFields");
    if let Some(faults) = input::schema_of(kind).map(|schema| typed::faults(&schema, &config))
        && !faults.is_empty()
    {
        return Err(untyped(
            (&kind.group, &kind.version, &kind.kind),
            (meta::namespace(&config), meta::name(&config)),
            &faults,
        ));
    }
    if !duplicates.is_empty() && input::validation(context)? == input::Validation::Strict {
        let why =
            format!("error strict decoding YAML: error converting YAML to JSON: {}", duplicates.join(", "));
        return Err(ApiError::bad_request(why));
    }
    context.warn(input::check_fields(context, &mut config, duplicates)?);
    if meta::name(&config).is_empty() {
        meta::set(&mut config, "name", context.target.name.as_str());
    }
    let mut placed = config.clone();
    if kind.namespaced && meta::namespace(&config).is_empty() {
        meta::set(&mut placed, "namespace", context.target.namespace.as_str());
    }
    check_place(context, &placed)?;
    Ok(config)
}

fn check_type(kind: &Kind, config: &Value) -> Result<(), ApiError> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, given) = (text("apiVersion"), text("kind"));
    if given == kind.kind && api_version == kind.api_version() {
        return Ok(());
    }
    let (group, version) = schema::split_api_version(api_version);
    Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={given}")))
}

/// What is told of a configuration that its type cannot hold.
pub fn untyped(
    (group, version, kind): (&str, &str, &str),
    (namespace, name): (&str, &str),
    faults: &[String],
) -> ApiError {
    let faults = match faults {
        [one] => one.clone(),
        many => format!("errors:\n{}", many.iter().map(|f| format!("  {f}\n")).collect::<String>()),
    };
    ApiError::unexplained(format!(
        "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {faults}"
    ))
}

pub fn apply_error(error: ApplyError) -> ApiError {
    let ApplyError::Conflicts(conflicts) = &error else { return ApiError::bad_request(error.to_string()) };
    let causes = conflicts.0.iter().map(|conflict| StatusCause {
        reason: Some("FieldManagerConflict".into()),
        message: Some(conflict.message()),
        field: Some(conflict.field.clone()),
    });
    ApiError::apply_conflict(conflicts.to_string(), causes.collect())
}
