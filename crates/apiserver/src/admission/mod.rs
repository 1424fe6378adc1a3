//! Admission: what the server adds to objects, or refuses, before a kind's own rules see them. A plugin is one
//! file and one line of the table.

mod default_storage_class;
mod default_tolerations;
mod escalation;
mod namespace_lifecycle;
mod priority;
mod requester;
mod service_account;

use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use crate::{ApiServer, Context};

#[derive(Clone, Copy)]
pub enum Operation {
    Create,
    Update,
}

impl Operation {
    fn is_create(self) -> bool {
        matches!(self, Self::Create)
    }
}

type Plugin =
    for<'a> fn(&'a ApiServer, &'a Context, &'a mut Value, Operation) -> BoxFuture<'a, Result<(), ApiError>>;

/// In the order in which they run: those that refuse early first, then those that add.
const PLUGINS: &[Plugin] = &[
    namespace_lifecycle::admit,
    escalation::admit,
    requester::admit,
    service_account::admit,
    priority::admit,
    default_tolerations::admit,
    default_storage_class::admit,
];

pub async fn admit(
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

/// Whether the request is about pods themselves.
fn is_pod(context: &Context) -> bool {
    context.kind.group.is_empty() && context.kind.kind == "Pod"
}
