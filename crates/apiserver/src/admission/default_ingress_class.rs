//! An ingress that names no class gets the default one.

use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::networking::v1::IngressClass;
use serde_json::Value;

use super::Operation;
use crate::{ApiServer, Context};

const GROUP: &str = "networking.k8s.io";
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// How a class was named before there was a field for it.
const BY_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let ingresses = context.kind.group == GROUP && context.kind.plural == "ingresses";
        let open = object["spec"].is_object()
            && object["spec"]["ingressClassName"].is_null()
            && !meta::pairs(object, "annotations").any(|(key, _)| key == BY_ANNOTATION);
        if !ingresses || !operation.is_create() || !open {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind(GROUP, "IngressClass").ok_or_else(ApiError::no_such_path)?;
        let classes: Vec<IngressClass> = server.0.objects.all(kind).await?;
        let is_default = |class: &&IngressClass| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(IS_DEFAULT)).is_some_and(|v| v == "true")
        };
        // Of several defaults the newest counts, of those of the same moment the first by name.
        let age = |class: &&IngressClass| {
            let made = class.metadata.creation_timestamp.as_ref().map(|t| t.0);
            (std::cmp::Reverse(made), class.metadata.name.clone())
        };
        if let Some(class) = classes.iter().filter(is_default).min_by_key(age) {
            object["spec"]["ingressClassName"] = class.metadata.name.clone().into();
        }
        Ok(())
    })
}
