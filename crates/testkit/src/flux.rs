//! What a test asks of the GitOps engine's objects.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::wait::until;

/// The namespace in which tests keep sources and Kustomizations.
pub const NAMESPACE: &str = "gitops";

/// The `Ready` condition of an object, null when it has none.
pub fn ready(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == "Ready").unwrap_or_default()
}

/// Waits until a Kustomization has applied a commit and is ready.
pub fn wait_applied(cluster: &Cluster, name: &str, commit: &str, limit: Duration) {
    until(&format!("{name} is ready at {commit}"), limit, || {
        let object = cluster.get("kustomization", NAMESPACE, name)?;
        let applied = object["status"]["lastAppliedRevision"].as_str().unwrap_or_default().to_owned();
        let condition = ready(&object);
        if applied.ends_with(commit) && condition["status"] == "True" {
            Ok(())
        } else {
            Err(format!("{applied}: {condition}"))
        }
    });
}

/// Waits until an object's `Ready` condition is false and says all of `wanted`; its message.
pub fn wait_refused(cluster: &Cluster, kind: &str, name: &str, wanted: &[&str], limit: Duration) -> String {
    until(&format!("{kind} {name} says {wanted:?}"), limit, || {
        let condition = ready(&cluster.get(kind, NAMESPACE, name)?);
        let message = condition["message"].as_str().unwrap_or_default().to_owned();
        let says = condition["status"] == "False" && wanted.iter().all(|w| message.contains(w));
        if says { Ok(message) } else { Err(condition.to_string()) }
    })
}
