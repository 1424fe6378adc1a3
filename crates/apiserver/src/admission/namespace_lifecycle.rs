//! Nothing is created in a namespace that does not exist, or that is going away.

use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::Operation;
use crate::{ApiServer, Context};

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if !context.kind.namespaced || !operation.is_create() {
            return Ok(());
        }
        let namespace = &context.target.namespace;
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.find("", "v1", "namespaces").ok_or_else(ApiError::no_such_path)?;
        let found = server.0.objects.find(kind, "", namespace).await?;
        let found = found.ok_or_else(|| ApiError::not_found(&kind.resource(), namespace))?;
        if meta::is_deleting(&found) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let cause = StatusCause {
                field: Some("metadata.namespace".into()),
                message: Some(format!("namespace {namespace} is being terminated")),
                // Clients tell by it that there is nothing to try again.
                reason: Some("NamespaceTerminating".into()),
            };
            return Err(ApiError::forbidden(&context.resource(), meta::name(object), &why).caused_by(cause));
        }
        Ok(())
    })
}
