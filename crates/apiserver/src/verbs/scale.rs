//! The `scale` subresource: replicas of any kind that names where they are.

use ::http::StatusCode;
use api::apply::{Writer, managed, scale as owned};
use api::kinds::ScalePaths;
use api::meta;
use api::schema::{Schema, typed};
use api::status::{ApiError, FieldError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Map, Value, json};

use super::apply::{apply_error, untyped};
use super::ownership::Ownership;
use super::patch::{Patch, check_patched, check_place, patch_error};
use super::pods::precondition_failed;
use super::update::{Writes, change, check_name};
use super::{input, read};
use crate::http::accept::Shape;
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context, table};

fn paths(context: &Context) -> Result<&ScalePaths, ApiError> {
    context.kind.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, part| value.get(part))
}

fn set_at(object: &mut Value, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut place = object;
    for part in parents {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[part.as_str()];
    }
    place[last.as_str()] = value;
}

/// What a request about the scale of an object admits: the scale, not the object. Nothing for other requests.
pub fn view(context: &Context, object: &Value) -> Option<Value> {
    let paths = context.kind.scale.as_ref().filter(|_| context.target.subresource == "scale")?;
    Some(scale_of(paths, object))
}

/// Puts the replicas of a scale that admission has changed into the object.
pub fn put(context: &Context, object: &mut Value, scale: &Value) {
    let replicas = scale.get("spec").and_then(|s| s.get("replicas")).cloned();
    if let (Some(paths), Some(replicas)) = (&context.kind.scale, replicas) {
        set_at(object, &paths.spec_replicas, replicas);
    }
}

/// `autoscaling/v1` Scale of an object.
fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta::metadata(object).get(field) {
            metadata[field] = value.clone();
        }
    }
    let number = |path| at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    let selector = paths.selector.as_ref().and_then(|path| at(object, path));
    if let Some(text) = selector.and_then(selector_text) {
        status["selector"] = text.into();
    }
    let mut scale = json!({"kind": "Scale", "apiVersion": API_VERSION, "metadata": metadata,
        "spec": {"replicas": number(&paths.spec_replicas)}, "status": status});
    if let Some(schema) = schema() {
        schema.canonicalize(&mut scale);
    }
    scale
}

const API_VERSION: &str = "autoscaling/v1";
const UNSAID: i64 = i32::MIN as i64;

fn schema() -> Option<Schema> {
    api::schema::of_kind("autoscaling", "v1", "Scale")
}

fn selector_text(selector: &Value) -> Option<String> {
    if let Value::String(text) = selector {
        return Some(text.clone());
    }
    // The oldest of the workloads selects by a plain map.
    if let Some(labels) = selector.as_object().filter(|m| m.values().all(Value::is_string)) {
        let pairs = labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
        return Some(pairs.collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty());
    }
    let selector = serde_json::from_value(selector.clone()).ok()?;
    match api::columns::selector_cell(Some(&selector)) {
        Value::String(text) if text != "<none>" => Some(text),
        _ => None,
    }
}

/// A scale in the form asked for.
fn answer(context: &Context, scale: &Value) -> Answer {
    match context.form.shape {
        Shape::Object => respond::object(StatusCode::OK, context.form, scale),
        Shape::Metadata => respond::object(
            StatusCode::OK,
            context.form,
            &table::partial(&context.kind, scale, context.form.meta_version),
        ),
        Shape::Table => respond::object(StatusCode::OK, context.form, &in_table(context, scale)),
        Shape::MetadataList => {
            let why = "you requested PartialObjectMetadataList, but the requested object is not a list (*autoscaling.Scale)";
            respond::error(context.form, &ApiError::not_acceptable(why))
        }
    }
}

fn in_table(context: &Context, scale: &Value) -> Value {
    let column = |name: &str, kind: &str, description: &str| json!({"name": name, "type": kind, "format": "", "description": description, "priority": 0});
    let columns = vec![
        column("Name", "string", "Name must be unique within a namespace."),
        column("Desired", "integer", "Desired number of replicas."),
        column("Available", "integer", "Observed number of replicas."),
        column("Age", "string", "When the object was created."),
    ];
    let metadata = serde_json::from_value(meta::metadata(scale).clone().into()).unwrap_or_default();
    let cells = vec![
        meta::name(scale).into(),
        scale["spec"]["replicas"].as_i64().unwrap_or(0).into(),
        scale["status"]["replicas"].as_i64().unwrap_or(0).into(),
        api::columns::age_cell(&metadata),
    ];
    let row = table::row(context, scale, cells);
    table::of_rows(context, table::version_of(scale), columns, vec![row])
}

/// How a custom object's path to its replicas was given.
fn told(paths: &ScalePaths) -> String {
    format!(".{}", paths.spec_replicas.join("."))
}

/// Whether a custom object says nothing of its replicas; what is built in always does.
fn is_unsaid(context: &Context, paths: &ScalePaths, object: &Value) -> bool {
    context.kind.custom.is_some() && at(object, &paths.spec_replicas).is_none_or(Value::is_null)
}

pub async fn get(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let (_, object) = read::find(server, context).await?;
    let paths_of = paths(context)?;
    if is_unsaid(context, paths_of, &object) {
        let path = told(paths_of);
        let why = format!("the spec replicas field {path:?} does not exist");
        let cause = StatusCause { message: Some(why.clone()), ..Default::default() };
        return Err(ApiError::internal(why).caused_by(cause));
    }
    Ok(answer(context, &scale_of(paths_of, &object)))
}

pub async fn update(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let scale = input::other(context, body).await?;
    let text = |field: &str| scale.get(field).and_then(Value::as_str).unwrap_or_default();
    if context.kind.custom.is_some() && !matches!(text("kind"), "" | "Scale") {
        let (kind, version) = (text("kind"), text("apiVersion"));
        let why = format!("{kind} in version {version:?} cannot be handled as a Scale");
        return Err(ApiError::bad_request(why));
    }
    input::check_other(("autoscaling", "v1", "Scale"), &scale)?;
    check_name(context, meta::name(&scale))?;
    store(server, context, |_| Ok(scale.clone())).await
}

pub async fn patch(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let (patch, duplicates) = Patch::read(context, body).await?;
    if let Patch::Apply(config) = &patch {
        return apply(server, context, config).await;
    }
    let schema = schema();
    store(server, context, |scale| {
        let mut new = match (&patch, &schema) {
            (Patch::Json(patch), _) => api::patch::json(scale, patch).map_err(|e| patch_error(&e)),
            (Patch::Strategic(patch), Some(schema)) => {
                api::patch::strategic::apply(scale, patch, schema).map_err(|e| patch_error(&e))
            }
            (Patch::Merge(patch) | Patch::Strategic(patch) | Patch::Apply(patch), _) => {
                Ok(api::patch::merge(scale, patch))
            }
        }?;
        context.warn(check_patched(context, Writes::Scale, &patch, &mut new, duplicates.clone())?);
        check_place(context, &new)?;
        Ok(new)
    })
    .await
}

/// Who scales, and in which version. As the original does, it is known but not when.
fn writer<'a>(manager: &'a str, schema: Option<&'a Schema>) -> Writer<'a> {
    let subresource = Writes::Scale.subresource();
    Writer { manager, api_version: API_VERSION, subresource, time: "", schema, reset: None, versions: None }
}

async fn apply(server: &ApiServer, context: &Context, config: &Value) -> Result<Answer, ApiError> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, given) = (text("apiVersion"), text("kind"));
    if (version, given) != (API_VERSION, "Scale") {
        let (group, version) = api::schema::split_api_version(version);
        return Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={given}")));
    }
    let schema = schema();
    if let Some(faults) =
        schema.as_ref().map(|schema| typed::faults(schema, config)).filter(|f| !f.is_empty())
    {
        let place = (meta::namespace(config), meta::name(config));
        return Err(untyped(("autoscaling", "v1", "Scale"), place, &faults));
    }
    let writer = writer(context.query.get("fieldManager").unwrap_or_default(), schema.as_ref());
    let force = context.query.flag("force");
    change_scale(server, context, |old| {
        let new = managed::apply(Some(old), config, &writer, force).map_err(apply_error)?;
        check_place(context, &new)?;
        Ok(new)
    })
    .await
}

fn check_replicas(context: &Context, replicas: i64) -> Result<(), ApiError> {
    if replicas >= 0 {
        return Ok(());
    }
    let errors = [FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0")];
    Err(ApiError::invalid("autoscaling", "Scale", &context.target.name, &errors))
}

/// A scale that is updated: what changes is taken over.
async fn store(
    server: &ApiServer,
    context: &Context,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Answer, ApiError> {
    let (schema, manager) = (schema(), context.manager());
    let writer = writer(&manager, schema.as_ref());
    change_scale(server, context, |old| {
        let mut new = edit(old)?;
        if let Some(schema) = &schema {
            schema.canonicalize(&mut new);
        }
        managed::update(Some(old), &mut new, &writer);
        Ok(new)
    })
    .await
}

/// Changes the object as its scale is changed.
async fn change_scale(
    server: &ApiServer,
    context: &Context,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Answer, ApiError> {
    let (paths, kind) = (paths(context)?, &context.kind);
    let changed = change(server, context, Writes::Scale, Ownership::Settled, |old| {
        let mut scale = scale_of(paths, old);
        let fields = owned::to_scale(old, &paths.spec_replicas, API_VERSION);
        if !fields.is_null() {
            meta::set(&mut scale, "managedFields", fields);
        }
        // As the original does, nothing said of them is told from none by a number that nobody asks for.
        if is_unsaid(context, paths, old) {
            scale["spec"]["replicas"] = UNSAID.into();
        }
        let scale = edit(&scale)?;
        let (wanted, held) = (meta::uid(&scale), meta::uid(old));
        if !wanted.is_empty() && wanted != held {
            return Err(precondition_failed(context, ("UID", wanted, held)));
        }
        let replicas = at(&scale, &["spec".into(), "replicas".into()]).and_then(Value::as_i64).unwrap_or(0);
        if replicas == UNSAID {
            let path = told(paths);
            return Err(ApiError::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
        }
        // What a custom object may have its own validation says.
        if kind.custom.is_none() {
            check_replicas(context, replicas)?;
        }
        let mut new = old.clone();
        set_at(&mut new, &paths.spec_replicas, replicas.into());
        meta::set(&mut new, "resourceVersion", meta::resource_version(&scale));
        match owned::to_parent(old, &scale, &paths.spec_replicas, &kind.api_version()) {
            Value::Null => meta::unset(&mut new, "managedFields"),
            fields => meta::set(&mut new, "managedFields", fields),
        }
        Ok(new)
    })
    .await?;
    Ok(answer(context, &scale_of(paths, &changed.object())))
}
