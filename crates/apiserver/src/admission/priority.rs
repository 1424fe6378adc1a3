//! A pod's priority class becomes a number; a name that nobody defined is refused.

use api::meta;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::{Operation, is_pod};
use crate::{ApiServer, Context};

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
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.by_kind("scheduling.k8s.io", "PriorityClass").ok_or_else(ApiError::no_such_path)?;
        let classes: Vec<PriorityClass> = server.0.objects.all(kind).await?;
        let wanted = object["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = match wanted.as_str() {
            "" => classes.iter().filter(|c| c.global_default == Some(true)).max_by_key(|c| c.value),
            name => {
                let found = classes.iter().find(|c| c.metadata.name.as_deref() == Some(name));
                if found.is_none() {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(ApiError::forbidden(&context.resource(), meta::name(object), &why));
                }
                found
            }
        };
        let spec = &mut object["spec"];
        spec["priority"] = class.and_then(|c| c.value).unwrap_or(0).into();
        if let Some(class) = class {
            spec["priorityClassName"] = class.metadata.name.clone().into();
        }
        let policy = class.and_then(|c| c.preemption_policy.clone());
        let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".into());
        if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
                 computed {policy} from the given PriorityClass name"
            );
            return Err(ApiError::forbidden(&context.resource(), meta::name(object), &why));
        }
        spec["preemptionPolicy"] = policy.into();
        Ok(())
    })
}
