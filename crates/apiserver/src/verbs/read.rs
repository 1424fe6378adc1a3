//! `get`.

use ::http::StatusCode;
use api::status::ApiError;
use serde_json::Value;
use store::Entry;

use super::{as_stored, one};
use crate::http::options;
use crate::http::respond::Answer;
use crate::{ApiServer, Context};

/// The object that a request names.
pub async fn find(server: &ApiServer, context: &Context) -> Result<(Entry, Value), ApiError> {
    let target = &context.target;
    let found = server.0.objects.get(&context.kind, &target.namespace, &target.name).await?;
    let (entry, object) = found.ok_or_else(|| ApiError::not_found(&context.resource(), &target.name))?;
    let mut object = server.0.served(&context.kind, object).await?;
    set_version(&context.kind, &mut object);
    Ok((entry, object))
}

/// Whether the stored bytes are what is served.
pub fn is_served_as_stored(kind: &api::kinds::Kind) -> bool {
    kind.is_served_as_stored()
}

/// What has just been written as reading it would show it. What is stored in another version is filled in as that one.
pub fn as_read(kind: &api::kinds::Kind, object: Value) -> Value {
    if kind.conversion.is_some() { object } else { (kind.on_read)(object) }
}

/// Objects are stored in one version and served in all.
pub fn set_version(kind: &api::kinds::Kind, object: &mut Value) {
    *object = kind.to_served(std::mem::take(object));
    if let (Some(_), Value::Object(map)) = (&kind.custom, &mut *object) {
        map.insert("apiVersion".into(), kind.api_version().into());
    }
    // A default that came after the object was stored is the object's too, and what went from the schema is gone.
    if let Some(custom) = &kind.custom {
        custom.schema.fill(object);
    }
}

pub async fn get(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    // The newest is never older than what is asked for, once that has come.
    if let Some(wanted) =
        options::revision_of_cache(context.query.get("resourceVersion").unwrap_or_default())?
    {
        server.0.objects.wait_for(wanted).await?;
    }
    if context.form.is_plain_json() && is_served_as_stored(&context.kind) {
        return unparsed(server, context).await;
    }
    let (_, object) = find(server, context).await?;
    Ok(one(context, StatusCode::OK, &object))
}

async fn unparsed(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let (target, objects) = (&context.target, &server.0.objects);
    let key = context.kind.key(&target.namespace, &target.name);
    let entry = objects.entry(&key).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(&context.resource(), &target.name))?;
    let plain = objects.plain(&entry)?;
    Ok(as_stored(context, StatusCode::OK, &plain, entry.mod_revision))
}
