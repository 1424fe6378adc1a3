//! A pod of a runtime class gets what the class costs, and goes where the class can run.

use std::collections::HashSet;

use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde_json::Value;

use super::{Operation, forbid, is_pod};
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
        let spec = &object["spec"];
        let name = spec["runtimeClassName"].as_str().unwrap_or_default();
        if name.is_empty() && spec["overhead"].as_object().is_none_or(|o| o.is_empty()) {
            return Ok(());
        }
        let class = match name {
            "" => None,
            name => Some(find(server, context, object, name).await?),
        };
        // What cannot be read is refused by the kind itself, in its own words.
        let Ok(mut spec) = serde_json::from_value::<PodSpec>(spec.clone()) else { return Ok(()) };
        merge(&mut spec, class.as_ref()).map_err(|why| forbid(context, object, &why))?;
        object["spec"] = serde_json::to_value(&spec).map_err(ApiError::internal)?;
        Ok(())
    })
}

async fn find(
    server: &ApiServer,
    context: &Context,
    object: &Value,
    name: &str,
) -> Result<RuntimeClass, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let kind = kinds.by_kind("node.k8s.io", "RuntimeClass").ok_or_else(ApiError::no_such_path)?;
    let found = server.0.objects.get(kind, "", name).await?;
    let missing = || forbid(context, object, &format!("pod rejected: RuntimeClass {name:?} not found"));
    let (_, found) = found.ok_or_else(missing)?;
    serde_json::from_value(found).map_err(ApiError::internal)
}

fn merge(spec: &mut PodSpec, class: Option<&RuntimeClass>) -> Result<(), String> {
    let cost = class.and_then(|c| c.overhead.as_ref()?.pod_fixed.clone()).filter(|o| !o.is_empty());
    let amounts = |texts| api::quota::read(texts);
    match (&spec.overhead, cost) {
        (Some(given), Some(cost)) if amounts(Some(given)) != amounts(Some(&cost)) => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        (Some(given), None) if !given.is_empty() => {
            return Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into()
            );
        }
        (_, cost) => spec.overhead = cost,
    }
    let Some(scheduling) = class.and_then(|c| c.scheduling.as_ref()) else { return Ok(()) };
    for (key, wanted) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        match selector.get(key).filter(|held| *held != wanted) {
            Some(held) => {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {held}"
                ));
            }
            None => drop(selector.insert(key.clone(), wanted.clone())),
        }
    }
    fn parts(toleration: &Toleration) -> ([Option<&str>; 4], Option<i64>) {
        let Toleration { key, operator, value, effect, toleration_seconds } = toleration;
        ([key, operator, value, effect].map(Option::as_deref), *toleration_seconds)
    }
    let held = spec.tolerations.get_or_insert_default();
    let mut known: HashSet<_> = held.iter().map(parts).collect();
    let fresh = scheduling.tolerations.iter().flatten().filter(|toleration| known.insert(parts(toleration)));
    let fresh: Vec<Toleration> = fresh.cloned().collect();
    held.extend(fresh);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(pod: Value, class: Option<Value>, expected: Result<Value, &str>) {
        let mut spec: PodSpec = serde_json::from_value(pod).expect("a spec");
        let class = class.map(|c| serde_json::from_value(c).expect("a class"));
        let done = merge(&mut spec, class.as_ref());
        let mut shown = serde_json::to_value(&spec).expect("JSON");
        if let Value::Object(map) = &mut shown {
            map.remove("containers");
        }
        assert_eq!(done.map(|()| shown), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_class_adds_its_cost_and_its_place() {
        let class = json!({"handler": "h", "overhead": {"podFixed": {"cpu": "100m"}},
            "scheduling": {"nodeSelector": {"k": "v"}, "tolerations": [{"key": "t"}]}});
        let merged =
            json!({"overhead": {"cpu": "100m"}, "nodeSelector": {"k": "v"}, "tolerations": [{"key": "t"}]});
        check(json!({"containers": []}), Some(class.clone()), Ok(merged.clone()));
        check(
            json!({"containers": [], "overhead": {"cpu": "0.1"}, "tolerations": [{"key": "t"}]}),
            Some(class.clone()),
            Ok(merged),
        );
        let other = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        check(json!({"containers": [], "overhead": {"cpu": "1"}}), Some(class.clone()), Err(other));
        let none = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        check(json!({"containers": [], "overhead": {"cpu": "1"}}), None, Err(none));
        let place = "conflict: runtimeClass.scheduling.nodeSelector[k] = v; pod.spec.nodeSelector[k] = w";
        check(json!({"containers": [], "nodeSelector": {"k": "w"}}), Some(class), Err(place));
    }
}
