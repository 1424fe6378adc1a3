//! Admission: what the server adds to objects, or refuses, before a kind's own rules see them, and what may only refuse
//! after that. A plugin is one file and one line of the table.

pub mod attributes;
mod certificates;
mod claim_resize;
mod default_ingress_class;
mod default_storage_class;
mod default_tolerations;
mod escalation;
mod limit_ranger;
mod namespace_lifecycle;
mod node_features;
mod node_restriction;
mod node_taint;
mod pod_resize;
mod pod_security;
pub mod policies;
mod priority;
mod requester;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_protection;
pub mod topology_labels;
pub mod webhooks;

use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::verbs::scale;
use crate::{ApiServer, Context};

use attributes::Attributes;
pub use attributes::Operation;
pub(crate) use resource_quota::{Charge, Turns as QuotaTurns};
use webhooks::Seen;

type Plugin =
    for<'a> fn(&'a ApiServer, &'a Context, &'a mut Value, Operation) -> BoxFuture<'a, Result<(), ApiError>>;

/// In the order in which they run: those that refuse early first, then those that add.
const PLUGINS: &[Plugin] = &[
    namespace_lifecycle::admit,
    escalation::admit,
    requester::admit,
    limit_ranger::admit,
    service_account::admit,
    node_taint::admit,
    priority::admit,
    default_tolerations::admit,
    default_storage_class::admit,
    storage_protection::admit,
    runtime_class::admit,
    default_ingress_class::admit,
    topology_labels::admit,
];

type Judge = for<'a> fn(
    &'a ApiServer,
    &'a Attributes<'a>,
    Option<&'a Value>,
    Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>>;

/// Those that see what an object has become, and what it replaces, and may only refuse. They are asked of parts of
/// objects, deletions and streams as well.
const JUDGES: &[Judge] = &[
    limit_ranger::judge,
    service_account::judge,
    node_restriction::judge,
    pod_security::judge,
    priority::judge,
    claim_resize::judge,
    certificates::judge,
    pod_resize::judge,
    node_features::judge,
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
    if operation == Operation::Create && context.kind.kind == "Node" {
        what_nodes_say(server, context, object, old, operation).await?;
    }
    if extend(server, context, object, old, operation).await? {
        // What others have put in is held to the same rules, and gets the same additions.
        plugins(server, context, object, operation).await?;
    }
    Ok(())
}

/// What nodes may write is decided by what they sent, before it is completed, cut or found wanting; and once more by what it has
/// become, as with the other judges.
async fn what_nodes_say(
    server: &ApiServer,
    context: &Context,
    object: &Value,
    old: Option<&Value>,
    operation: Operation,
) -> Result<(), ApiError> {
    let name = name_of(context, object);
    let attributes = Attributes::new(context, operation, &name);
    node_restriction::judge(server, &attributes, Some(object), old).await
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
    let name = name_of(context, object);
    let attributes = Attributes::new(context, operation, &name);
    let whole = matches!(attributes.subresource, "" | "status");
    let reset = |value: Value| match whole {
        true => context.kind.behaviour.defaulted(value),
        false => value,
    };
    if operation == Operation::Update {
        what_nodes_say(server, context, object, old, operation).await?;
    }
    let Some(mut scale) = scale::view(context, object) else {
        let by_policy = whole && policies::mutate(server, &attributes, object, old).await?;
        let by_hook = webhooks::mutate(server, &attributes, object, old, &reset).await?;
        return Ok(by_policy || by_hook);
    };
    let old = old.and_then(|old| scale::view(context, old));
    let changed = webhooks::mutate(server, &attributes, &mut scale, old.as_ref(), &reset).await?;
    if changed {
        scale::put(context, object, &scale);
    }
    Ok(changed)
}

/// Everything that may only refuse, but for quotas ([`charge`]). Neither object is there for a stream, only the old one for a deletion.
pub async fn validate(
    server: &ApiServer,
    context: &Context,
    object: Option<&Value>,
    old: Option<&Value>,
    operation: Operation,
) -> Result<(), ApiError> {
    let mut name = object.or(old).map(|object| name_of(context, object)).unwrap_or_default();
    if operation == Operation::Delete {
        // What is asked for by no name is admitted by none.
        name.clone_from(&context.target.name);
    }
    let attributes = Attributes::new(context, operation, &name);
    let (shown, shown_old) =
        (object.and_then(|o| scale::view(context, o)), old.and_then(|o| scale::view(context, o)));
    let seen = Seen { object: shown.as_ref().or(object), old: shown_old.as_ref().or(old) };
    for judge in JUDGES {
        judge(server, &attributes, object, old).await?;
    }
    policies::validate(server, &attributes, seen.object, seen.old).await?;
    webhooks::validate(server, &attributes, &seen).await
}

/// What is to be taken of quotas for an object that everybody else has let pass; an error if that is too much. To be held
/// until the object is stored.
pub async fn charge<'a>(
    server: &'a ApiServer,
    context: &Context,
    object: &Value,
    old: Option<&Value>,
    operation: Operation,
) -> Result<Charge<'a>, ApiError> {
    let name = name_of(context, object);
    resource_quota::charge(server, &Attributes::new(context, operation, &name), object, old).await
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

/// A refusal of a whole object on its way in.
fn forbid(context: &Context, object: &Value, why: &str) -> ApiError {
    ApiError::forbidden(&context.resource(), &name_of(context, object), why)
}

/// A refusal by a judge.
fn refused(attributes: &Attributes<'_>, why: &str) -> ApiError {
    ApiError::forbidden(&attributes.context.resource(), attributes.shown_name(), why)
}
