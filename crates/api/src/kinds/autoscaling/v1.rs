//! The older form of `HorizontalPodAutoscaler`: one number for the processor. What it has no field for is carried in
//! annotations, so that an object read and written in this form loses nothing.

use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Map, Value, json};

use super::metrics::{Form, capital, in_order, small, to_v1, to_v2};
use crate::kinds::conversion::Convert;
use crate::kinds::{Build, Kind};
use crate::meta;

const DEFAULT_PERCENT: i32 = 80;
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub fn kind(stored: &Kind) -> Kind {
    Build::<HorizontalPodAutoscaler>::new("horizontalpodautoscalers", true)
        .short(&["hpa"])
        .in_all()
        .status()
        .default(|h| {
            h.spec.min_replicas.get_or_insert(1);
        })
        .stored_as(stored, Processor)
        .done()
}

struct Processor;

fn take(object: &mut Value, part: &str, field: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(field)
}

fn put(object: &mut Value, part: &str, field: &str, value: Value) {
    let Value::Object(map) = object else { return };
    let place = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(place) = place {
        place.insert(field.into(), value);
    }
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = meta::metadata_mut(object).get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    if annotations.is_empty() {
        meta::unset(object, "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, key: &str, value: &Value) {
    let annotations = meta::metadata_mut(object).entry("annotations").or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(key.into(), in_order(value).into());
    }
}

/// Whether a metric (or its status) is the one that v1 has a field for.
fn is_processor(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Conditions as they are written into a text, where each has a time, if only that of nothing.
fn timed(mut conditions: Value) -> Option<Value> {
    let all = conditions.as_array_mut().filter(|all| !all.is_empty())?;
    for condition in all.iter_mut().filter_map(Value::as_object_mut) {
        condition.entry("lastTransitionTime").or_insert(Value::Null);
    }
    Some(conditions)
}

impl Convert for Processor {
    fn to_stored(&self, mut object: Value) -> Value {
        let carried = list(take_annotation(&mut object, METRICS));
        let mut metrics: Vec<Value> = carried.iter().map(|m| to_v2(m, Form::Target)).collect();
        if let Some(percent) = take(&mut object, "spec", "targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if metrics.is_empty() {
            // Here already, and not only where an object is made: whoever does not say a percentage leaves it as it is.
            let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_PERCENT});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        put(&mut object, "spec", "metrics", metrics.into());
        if let Some(behavior) = take_annotation(&mut object, BEHAVIOR) {
            put(&mut object, "spec", "behavior", small(&behavior));
        }
        let conditions = take_annotation(&mut object, CONDITIONS);
        // What is carried tells more than the one number.
        let carried = list(take_annotation(&mut object, CURRENT_METRICS));
        let mut current: Vec<Value> = carried.iter().map(|m| to_v2(m, Form::Current)).collect();
        let percent = take(&mut object, "status", "currentCPUUtilizationPercentage");
        if let Some(percent) = percent.filter(|_| current.is_empty()) {
            let value = json!({"averageUtilization": percent});
            current.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": value}}));
        }
        if !current.is_empty() {
            put(&mut object, "status", "currentMetrics", current.into());
        }
        if let Some(conditions) = conditions {
            put(&mut object, "status", "conditions", small(&conditions));
        }
        object
    }

    fn to_served(&self, mut object: Value) -> Value {
        let (processor, others): (Vec<_>, Vec<_>) = list(take(&mut object, "spec", "metrics"))
            .into_iter()
            .partition(|m| is_processor(m) && m["resource"]["target"].get("averageUtilization").is_some());
        if let Some(percent) =
            processor.last().and_then(|m| m["resource"]["target"].get("averageUtilization").cloned())
        {
            put(&mut object, "spec", "targetCPUUtilizationPercentage", percent);
        }
        let current = list(take(&mut object, "status", "currentMetrics"));
        let utilization = |m: &Value| m["resource"]["current"].get("averageUtilization").cloned();
        if let Some(percent) = current.iter().filter(|m| is_processor(m)).find_map(utilization) {
            put(&mut object, "status", "currentCPUUtilizationPercentage", percent);
        }
        let carried = |metrics: &[Value], form| {
            let all = metrics.iter().map(|m| to_v1(m, form)).collect();
            (!metrics.is_empty()).then_some(Value::Array(all))
        };
        let carried = [
            (METRICS, carried(&others, Form::Target)),
            (BEHAVIOR, take(&mut object, "spec", "behavior").map(|b| capital(&b))),
            (CURRENT_METRICS, carried(&current, Form::Current)),
            (CONDITIONS, take(&mut object, "status", "conditions").and_then(timed)),
        ];
        for (key, value) in carried {
            if let Some(value) = value.filter(|v| !v.is_null()) {
                put_annotation(&mut object, key, &value);
            }
        }
        if object.get("status").is_some() && object["status"].get("currentReplicas").is_none() {
            put(&mut object, "status", "currentReplicas", json!(0));
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_no_percentage_means_the_default() {
        let stored = Processor.to_stored(json!({"spec": {"maxReplicas": 3}}));
        assert_eq!(stored["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(
            Processor.to_served(stored)["spec"],
            json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 80})
        );
    }

    #[test]
    fn nothing_is_lost_on_the_way_through_the_older_form() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 50}}});
        let stored = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [memory, cpu],
            "behavior": {"scaleDown": {"selectPolicy": "Max"}}}, "status": {"desiredReplicas": 1,
            "currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]}});
        let served = Processor.to_served(stored.clone());
        assert_eq!(served["spec"]["targetCPUUtilizationPercentage"], 50);
        assert!(served["spec"].get("metrics").is_none());
        assert_eq!(Processor.to_stored(served), stored);
    }
}
