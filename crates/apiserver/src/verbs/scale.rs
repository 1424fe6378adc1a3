//! The `scale` subresource: replicas of any kind that names where they are.

use ::http::StatusCode;
use api::kinds::ScalePaths;
use api::meta;
use api::status::{ApiError, FieldError};
use serde_json::{Map, Value, json};

use super::patch::Patch;
use super::update::{Ownership, Writes, change};
use super::{input, read};
use crate::http::body::Body;
use crate::http::respond::{self, Answer};
use crate::{ApiServer, Context};

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
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&paths.spec_replicas)}, "status": status})
}

fn selector_text(selector: &Value) -> Option<String> {
    if let Value::String(text) = selector {
        return Some(text.clone());
    }
    let selector = serde_json::from_value(selector.clone()).ok()?;
    match api::columns::selector_cell(Some(&selector)) {
        Value::String(text) if text != "<none>" => Some(text),
        _ => None,
    }
}

pub async fn get(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let (_, object) = read::find(server, context).await?;
    Ok(respond::json(StatusCode::OK, &scale_of(paths(context)?, &object)))
}

pub async fn update(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let scale = input::other(context, body).await?;
    store(server, context, |_| Ok(scale.clone())).await
}

pub async fn patch(server: &ApiServer, context: &Context, body: Body) -> Result<Answer, ApiError> {
    let (patch, _) = Patch::read(context, body).await?;
    let schema = api::schema::of_kind("autoscaling", "v1", "Scale");
    store(server, context, |scale| match (&patch, &schema) {
        (Patch::Json(patch), _) => {
            api::patch::json(scale, patch).map_err(|e| ApiError::bad_request(e.to_string()))
        }
        (Patch::Strategic(patch), Some(schema)) => api::patch::strategic::apply(scale, patch, schema)
            .map_err(|e| ApiError::bad_request(e.to_string())),
        (Patch::Merge(patch) | Patch::Strategic(patch) | Patch::Apply(patch), _) => {
            Ok(api::patch::merge(scale, patch))
        }
    })
    .await
}

async fn store(
    server: &ApiServer,
    context: &Context,
    edit: impl Fn(&Value) -> Result<Value, ApiError>,
) -> Result<Answer, ApiError> {
    let paths = paths(context)?;
    let changed = change(server, context, Writes::Main, Ownership::Take, |old| {
        let scale = edit(&scale_of(paths, old))?;
        let replicas = scale.get("spec").and_then(|s| s.get("replicas")).and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let detail = "must be greater than or equal to 0";
            let errors = [FieldError::invalid("spec.replicas", replicas, detail)];
            return Err(ApiError::invalid("autoscaling", "Scale", &context.target.name, &errors));
        }
        let mut new = old.clone();
        set_at(&mut new, &paths.spec_replicas, replicas.into());
        meta::set(&mut new, "resourceVersion", meta::resource_version(&scale));
        Ok(new)
    })
    .await?;
    Ok(respond::json(StatusCode::OK, &scale_of(paths, &changed.object())))
}
