//! Whether an object is healthy, from its own status: what a user of `kubectl wait` or Flux would conclude. Pure.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    /// Not yet, and what it waits for.
    Progressing(String),
    /// It will not get there by itself.
    Failed(String),
}

pub fn of(object: &Value) -> Health {
    let at = |pointer: &str| object.pointer(pointer);
    let number = |pointer: &str| at(pointer).and_then(Value::as_i64);
    if at("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        return Health::Progressing("is being deleted".into());
    }
    let observed = number("/status/observedGeneration");
    if let (Some(observed), Some(generation)) = (observed, number("/metadata/generation"))
        && observed < generation
    {
        return Health::Progressing("its controller has not seen the newest version yet".into());
    }
    match at("/kind").and_then(Value::as_str).unwrap_or_default() {
        "Deployment" => deployment(object, observed),
        "StatefulSet" => stateful_set(object, observed),
        "ReplicaSet" => {
            let (want, have) =
                (number("/spec/replicas").unwrap_or(1), number("/status/availableReplicas").unwrap_or(0));
            counted(want, have, "available")
        }
        "DaemonSet" => {
            let (want, have) =
                (number("/status/desiredNumberScheduled"), number("/status/numberAvailable").unwrap_or(0));
            // The counts are there from birth on; that somebody counts is told by the generation alone.
            observed.and(want).map_or_else(
                || Health::Progressing(UNCONTROLLED.into()),
                |want| counted(want, have, "available"),
            )
        }
        "Job" => by_conditions(object, "Complete", "Failed", "is running"),
        "Pod" => pod(object),
        "PersistentVolumeClaim" => match at("/status/phase").and_then(Value::as_str) {
            Some("Bound") => Health::Healthy,
            // It is bound when its first pod comes: waiting for it would wait for ever.
            Some("Pending") if at("/spec/volumeName").is_none() => Health::Healthy,
            phase => Health::Progressing(format!("phase is {}", phase.unwrap_or("unknown"))),
        },
        "Service" => {
            let balancer = at("/spec/type") == Some(&"LoadBalancer".into());
            let ingress = at("/status/loadBalancer/ingress").and_then(Value::as_array);
            match balancer && ingress.is_none_or(Vec::is_empty) {
                true => Health::Progressing("has no external address yet".into()),
                false => Health::Healthy,
            }
        }
        "CustomResourceDefinition" => by_conditions(object, "Established", "", "is not established yet"),
        "Namespace" => match at("/status/phase").and_then(Value::as_str) {
            Some("Active") => Health::Healthy,
            phase => Health::Progressing(format!("phase is {}", phase.unwrap_or("unknown"))),
        },
        _ => custom(object),
    }
}

/// Of a kind that not every cluster has a controller of, kedge's own for one: then no time helps.
pub const UNCONTROLLED: &str =
    "no status yet; in a cluster without a controller of DaemonSets, as kedge is so far, there will be none";

fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let list = object.pointer("/status/conditions")?.as_array()?;
    let found = list.iter().find(|c| c["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

fn counted(want: i64, have: i64, what: &str) -> Health {
    if have >= want {
        Health::Healthy
    } else {
        Health::Progressing(format!("{have} of {want} replicas are {what}"))
    }
}

fn deployment(object: &Value, observed: Option<i64>) -> Health {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if observed.is_none() {
        return Health::Progressing("no status yet".into());
    }
    // Pods that cannot even be made are told of by nobody else.
    let refused = match condition(object, "ReplicaFailure") {
        Some(("True", _, message)) => format!(": {message}"),
        _ => String::new(),
    };
    if let Some((_, "ProgressDeadlineExceeded", message)) = condition(object, "Progressing") {
        return Health::Failed(format!("{message}{refused}"));
    }
    let want = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (updated, total) = (number("/status/updatedReplicas"), number("/status/replicas"));
    if updated < want {
        return Health::Progressing(format!("{updated} of {want} replicas are updated{refused}"));
    }
    if total > updated {
        return Health::Progressing(format!("{} old replicas are still there", total - updated));
    }
    counted(updated, number("/status/availableReplicas"), "available")
}

fn stateful_set(object: &Value, observed: Option<i64>) -> Health {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if observed.is_none() {
        return Health::Progressing("no status yet".into());
    }
    let want = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let ready = counted(want, number("/status/readyReplicas"), "ready");
    if ready != Health::Healthy || object.pointer("/spec/updateStrategy/type") == Some(&"OnDelete".into()) {
        return ready;
    }
    let partition = number("/spec/updateStrategy/rollingUpdate/partition");
    counted((want - partition).max(0), number("/status/updatedReplicas"), "updated")
}

fn pod(object: &Value) -> Health {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => Health::Healthy,
        Some("Failed") => Health::Failed("the pod has failed".into()),
        _ => match condition(object, "Ready") {
            Some(("True", ..)) => Health::Healthy,
            other => Health::Progressing(other.map_or_else(
                || "not ready".to_owned(),
                |(_, reason, message)| format!("{reason}: {message}"),
            )),
        },
    }
}

fn by_conditions(object: &Value, good: &str, bad: &str, otherwise: &str) -> Health {
    if let Some(("True", reason, message)) = condition(object, bad) {
        return Health::Failed(format!("{reason}: {message}"));
    }
    match condition(object, good) {
        Some(("True", ..)) => Health::Healthy,
        _ => Health::Progressing(otherwise.to_owned()),
    }
}

/// Kinds that say how they are by the usual conditions; one that says nothing is healthy by being there.
fn custom(object: &Value) -> Health {
    if let Some(("True", reason, message)) = condition(object, "Stalled") {
        return Health::Failed(format!("{reason}: {message}"));
    }
    if let Some(("True", reason, message)) = condition(object, "Reconciling") {
        return Health::Progressing(format!("{reason}: {message}"));
    }
    match condition(object, "Ready") {
        None | Some(("True", ..)) => Health::Healthy,
        Some((_, reason, message)) => Health::Progressing(format!("{reason}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(object: Value, expected: Health) {
        assert_eq!(of(&object), expected, "{object}");
    }

    #[test]
    fn health_is_read_from_the_status() {
        let progressing = |text: &str| Health::Progressing(text.into());
        let deployment = |status: Value| json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        check(deployment(json!({})), progressing("no status yet"));
        check(
            deployment(json!({"observedGeneration": 1})),
            progressing("its controller has not seen the newest version yet"),
        );
        check(
            deployment(json!({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3})),
            progressing("1 old replicas are still there"),
        );
        check(
            deployment(
                json!({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}),
            ),
            Health::Healthy,
        );
        let late = json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}]);
        check(
            deployment(json!({"observedGeneration": 2, "conditions": late})),
            Health::Failed("late".into()),
        );
        let refused = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no account"}]);
        check(
            deployment(json!({"observedGeneration": 2, "conditions": refused})),
            progressing("0 of 2 replicas are updated: no account"),
        );
        let counted = json!({"desiredNumberScheduled": 0, "numberReady": 0});
        check(json!({"kind": "DaemonSet", "status": counted}), progressing(UNCONTROLLED));
        check(json!({"kind": "ConfigMap"}), Health::Healthy);
        check(
            json!({"kind": "Service", "spec": {"type": "LoadBalancer"}}),
            progressing("has no external address yet"),
        );
        let not_ready = json!([{"type": "Ready", "status": "False", "reason": "X", "message": "y"}]);
        check(json!({"kind": "Widget", "status": {"conditions": not_ready}}), progressing("X: y"));
    }
}
