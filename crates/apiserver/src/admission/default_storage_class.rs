//! A claim that names no class gets the default one.

use std::cmp::Reverse;

use api::status::ApiError;
use base::constants::annotations::{BETA_DEFAULT_STORAGE_CLASS, BETA_STORAGE_CLASS, DEFAULT_STORAGE_CLASS};
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
            || !object["metadata"]["annotations"][BETA_STORAGE_CLASS].is_null()
            || !object["spec"].is_object()
        {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind("storage.k8s.io", "StorageClass").ok_or_else(ApiError::no_such_path)?;
        let classes: Vec<StorageClass> = server.0.objects.all(kind).await?;
        let is_default = |class: &&StorageClass| {
            let says =
                |name| class.metadata.annotations.iter().flatten().any(|(k, v)| k == name && v == "true");
            says(DEFAULT_STORAGE_CLASS) || says(BETA_DEFAULT_STORAGE_CLASS)
        };
        // Of several defaults the newest counts; of those of one second the first by name.
        let age = |class: &&StorageClass| {
            let created = class.metadata.creation_timestamp.as_ref().map(|t| t.0.as_second());
            (created, Reverse(class.metadata.name.clone()))
        };
        let newest = classes.iter().filter(is_default).max_by_key(age);
        if let Some(class) = newest {
            object["spec"]["storageClassName"] = class.metadata.name.clone().into();
        }
        Ok(())
    })
}
