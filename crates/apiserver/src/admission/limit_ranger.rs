//! Limit ranges: what a pod leaves open is filled in, and what is too little or too much is refused.

use api::limits;
use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{LimitRange, PodSpec};
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::{is_pod, refused};
use crate::{ApiServer, Context};

async fn ranges(server: &ApiServer, namespace: &str) -> Result<Vec<LimitRange>, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.find("", "v1", "limitranges").ok_or_else(ApiError::no_such_path)?;
    // Few namespaces have any: that is seen without reading one.
    match server.0.objects.store.count(&kind.key(namespace, "")).await {
        Ok(0) => Ok(Vec::new()),
        _ => server.0.objects.in_namespace(kind, namespace).await,
    }
}

pub fn admit<'a>(
    server: &'a ApiServer,
    context: &'a Context,
    object: &'a mut Value,
    operation: Operation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if !is_pod(context) || !operation.is_create() || !object["spec"].is_object() {
            return Ok(());
        }
        let ranges = ranges(server, &context.target.namespace).await?;
        if ranges.is_empty() {
            return Ok(());
        }
        // A limit without a request is a request of as much: that is no gap to fill.
        *object = context.kind.behaviour.defaulted(object.take());
        // What cannot be read is refused by the kind itself, in its own words.
        let Ok(mut spec) = serde_json::from_value::<PodSpec>(object["spec"].clone()) else { return Ok(()) };
        for range in &ranges {
            if let Some(told) = limits::fill(range, &mut spec) {
                object["spec"] = serde_json::to_value(&spec).map_err(ApiError::internal)?;
                meta::annotate(object, limits::ANNOTATION, &told);
            }
        }
        Ok(())
    })
}

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let Some(object) = object.filter(|_| !old.is_some_and(meta::is_deleting)) else { return Ok(()) };
        let (pods, claims) = (attributes.is("", "pods"), attributes.is("", "persistentvolumeclaims"));
        let counts = match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => pods || claims,
            // Of what is there, only claims grow, and pods by their subresource for it.
            (Operation::Update, "") => claims,
            (Operation::Update, "resize") => pods,
            _ => false,
        };
        if !counts {
            return Ok(());
        }
        for range in ranges(server, attributes.namespace()).await? {
            let why = match pods {
                true => serde_json::from_value(object.clone()).ok().and_then(|p| limits::of_pod(&range, &p)),
                false => {
                    serde_json::from_value(object.clone()).ok().and_then(|c| limits::of_claim(&range, &c))
                }
            };
            if let Some(why) = why {
                return Err(refused(attributes, &why));
            }
        }
        Ok(())
    })
}
