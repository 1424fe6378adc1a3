//! `get`.

use ::http::StatusCode;
use api::meta;
use api::status::ApiError;
use serde_json::Value;
use store::Entry;

use super::one;
use crate::http::options;
use crate::http::respond::{self, Answer};
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

/// Objects are stored in one version and served in all.
pub fn set_version(kind: &api::kinds::Kind, object: &mut Value) {
    *object = kind.to_served(std::mem::take(object));
    if let (Some(_), Value::Object(map)) = (&kind.custom, &mut *object) {
        map.insert("apiVersion".into(), kind.api_version().into());
    }
    // A default that came after the object was stored is the object's too.
    if let Some(custom) = &kind.custom {
        custom.schema.apply_defaults(object);
    }
}

pub async fn get(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    // The newest is never older than what is asked for, once that has come.
    if let Some(wanted) = options::revision(context.query.get("resourceVersion").unwrap_or_default())? {
        server.0.objects.wait_for(wanted).await?;
    }
    if context.form.is_plain_json() && is_served_as_stored(&context.kind) {
        return as_stored(server, context).await;
    }
    let (_, object) = find(server, context).await?;
    Ok(one(context, StatusCode::OK, &object))
}

/// The stored bytes with their revision put in: nothing is parsed.
async fn as_stored(server: &ApiServer, context: &Context) -> Result<Answer, ApiError> {
    let (target, objects) = (&context.target, &server.0.objects);
    let key = context.kind.key(&target.namespace, &target.name);
    let entry = objects.entry(&key).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(&context.resource(), &target.name))?;
    let plain = objects.plain(&entry)?;
    let mut out = Vec::with_capacity(plain.len() + 64);
    meta::write_served(&mut out, &plain, entry.mod_revision);
    out.push(b'\n');
    Ok(respond::bytes(StatusCode::OK, context.form.encoding.media_type(), out))
}
