//! A claim grows only when it is bound, and when its class says that its volumes can.

use api::quantity::Quantity;
use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::ApiServer;

fn size(claim: &Value) -> Quantity {
    let text = claim["spec"]["resources"]["requests"]["storage"].as_str().unwrap_or_default();
    Quantity::parse(text).unwrap_or(Quantity::ZERO)
}

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let claims = attributes.is("", "persistentvolumeclaims") && attributes.subresource.is_empty();
        let (Some(new), Some(old), Operation::Update, true) = (object, old, attributes.operation, claims)
        else {
            return Ok(());
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(refused(attributes, "Only bound persistent volume claims can be expanded"));
        }
        let class = new["spec"]["storageClassName"].as_str().unwrap_or_default();
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind("storage.k8s.io", "StorageClass").ok_or_else(ApiError::no_such_path)?;
        let found = match class {
            "" => None,
            class => server.0.objects.get(kind, "", class).await?,
        };
        let same = old["spec"]["storageClassName"] == class;
        if same && found.is_some_and(|(_, class)| class["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(refused(attributes, why))
    })
}
