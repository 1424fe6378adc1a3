//! Admission: what the server adds to objects, or refuses, before a kind's own rules see them. A plugin is one
//! file and one line of the table.

pub mod attributes;
mod default_storage_class;
mod default_tolerations;
mod escalation;
mod namespace_lifecycle;
pub mod policies;
mod priority;
mod service_account;

use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::{ApiServer, Context};

use attributes::Attributes;
pub use attributes::Operation;

type Plugin =
    for<'a> fn(&'a ApiServer, &'a Context, &'a mut Value, Operation) -> BoxFuture<'a, Result<(), ApiError>>;

/// In the order in which they run: those that refuse early first, then those that add.
const PLUGINS: &[Plugin] = &[
    namespace_lifecycle::admit,
    escalation::admit,
    service_account::admit,
    priority::admit,
    default_tolerations::admit,
    default_storage_class::admit,
];

/// Runs our own plugins over a whole object.
async fn plugins(
    server: &ApiServer,
    context: &Context,
    object: &mut Value,
    operation: Operation,
) -> Result<(), ApiError> {
    for plugin in PLUGINS {
        plugin(server, context, object, operation).await?;
    }
    Ok(())
}

/// Everything that may change an object on its way in. `old` is what it replaces.
pub async fn mutate(
    server: &ApiServer,
    context: &Context,
    object: &mut Value,
    old: Option<&Value>,
    operation: Operation,
) -> Result<(), ApiError> {
    plugins(server, context, object, operation).await?;
    if extend(server, context, object, old, operation).await? {
        // What others have put in is held to the same rules, and gets the same additions.
        plugins(server, context, object, operation).await?;
    }
    Ok(())
}

/// Only what users have configured: for the parts of objects that our own plugins do not look at. Says whether anything
/// was changed.
pub async fn extend(
    server: &ApiServer,
    context: &Context,
    object: &mut Value,
    old: Option<&Value>,
    operation: Operation,
) -> Result<bool, ApiError> {
    if !shows_itself(context, operation) {
        return Ok(false);
    }
    let name = name_of(context, object);
    let attributes = Attributes::new(context, operation, &name);
    policies::mutate(server, &attributes, object, old).await
}

/// Everything that may only refuse. Neither object is there for a stream, only the old one for a deletion.
pub async fn validate(
    server: &ApiServer,
    context: &Context,
    object: Option<&Value>,
    old: Option<&Value>,
    operation: Operation,
) -> Result<(), ApiError> {
    if !shows_itself(context, operation) {
        return Ok(());
    }
    let name = object.or(old).map(|object| name_of(context, object)).unwrap_or_default();
    let attributes = Attributes::new(context, operation, &name);
    policies::validate(server, &attributes, object, old).await
}

/// Whether what is written is the object itself: other subresources have bodies of their own kinds.
fn shows_itself(context: &Context, operation: Operation) -> bool {
    operation == Operation::Connect || matches!(context.target.subresource.as_str(), "" | "status")
}

/// The URL's name, or the one that the object brings or was given.
fn name_of(context: &Context, object: &Value) -> String {
    match context.target.name.as_str() {
        "" => api::meta::name(object).to_owned(),
        name => name.to_owned(),
    }
}

/// Whether the request is about pods themselves.
fn is_pod(context: &Context) -> bool {
    context.kind.group.is_empty() && context.kind.kind == "Pod"
}
