//! A claim that names no class gets the default one.

use api::status::ApiError;
use base::constants::annotations::DEFAULT_STORAGE_CLASS;
use futures::future::BoxFuture;
use k8s_openapi::api::storage::v1::StorageClass;
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
        let claims = context.kind.group.is_empty() && context.kind.kind == "PersistentVolumeClaim";
        if !claims
            || !operation.is_create()
            || !object["spec"]["storageClassName"].is_null()
            || !object["spec"].is_object()
        {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind("storage.k8s.io", "StorageClass").ok_or_else(ApiError::no_such_path)?;
        let classes: Vec<StorageClass> = server.0.objects.all(kind).await?;
        let is_default = |class: &&StorageClass| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(DEFAULT_STORAGE_CLASS)).is_some_and(|v| v == "true")
        };
        // Of several defaults the newest counts.
        let newest = classes
            .iter()
            .filter(is_default)
            .max_by_key(|c| c.metadata.creation_timestamp.as_ref().map(|t| t.0));
        if let Some(class) = newest {
            object["spec"]["storageClassName"] = class.metadata.name.clone().into();
        }
        Ok(())
    })
}
