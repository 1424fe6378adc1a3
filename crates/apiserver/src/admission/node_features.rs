//! A change of a running pod that not every node can carry out is let in only where the pod's node says that it can
//! (`status.declaredFeatures`).

use api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::attributes::{Attributes, Operation};
use super::refused;
use crate::ApiServer;

/// Whether a change of a pod's spec asks for something.
type Asks = fn(&Value, &Value) -> bool;

/// What changes of a pod ask of its node, by the names that nodes declare.
const FEATURES: &[(&str, Asks)] = &[
    ("InPlacePodLevelResourcesVerticalScaling", |old, new| old["resources"] != new["resources"]),
    ("InPlacePodVerticalScalingInitContainers", resizes_init_containers),
];

pub fn judge<'a>(
    server: &'a ApiServer,
    attributes: &'a Attributes<'a>,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        let about = attributes.is("", "pods") && matches!(attributes.subresource, "" | "resize");
        let (Some(new), Some(old), Operation::Update, true) = (object, old, attributes.operation, about)
        else {
            return Ok(());
        };
        let node = new["spec"]["nodeName"].as_str().unwrap_or_default();
        let wanted = wanted(&old["spec"], &new["spec"]);
        if node.is_empty() || wanted.is_empty() {
            return Ok(());
        }
        let kinds = server.0.catalog.snapshot();
        let kind = kinds.find("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
        let Some((_, found)) = server.0.objects.get(kind, "", node).await? else {
            return Err(refused(attributes, &format!("node {node:?} not found")));
        };
        let declared = found["status"]["declaredFeatures"].as_array().map(Vec::as_slice).unwrap_or_default();
        let missing: Vec<&str> =
            wanted.into_iter().filter(|name| !declared.iter().any(|d| d == name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(refused(
            attributes,
            &format!("pod update requires features {missing} which are not available on node {node:?}"),
        ))
    })
}

fn wanted(old: &Value, new: &Value) -> Vec<&'static str> {
    FEATURES.iter().filter(|(_, asks)| asks(old, new)).map(|(name, _)| *name).collect()
}

/// Those that run beside the others (sidecars) are resized as those are.
fn resizes_init_containers(old: &Value, new: &Value) -> bool {
    let of = |spec: &'_ Value| spec["initContainers"].as_array().cloned().unwrap_or_default();
    let pairs = of(old).into_iter().zip(of(new));
    let mut plain = pairs.into_iter().filter(|(old, _)| old["restartPolicy"] != "Always");
    plain.any(|(old, new)| old["resources"] != new["resources"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_some_changes_ask_for_a_feature() {
        let pod = |pod: &str, init: &str, side: &str, main: &str| {
            json!({"resources": {"limits": {"cpu": pod}},
                "initContainers": [{"name": "i", "resources": {"limits": {"cpu": init}}},
                    {"name": "s", "restartPolicy": "Always", "resources": {"limits": {"cpu": side}}}],
                "containers": [{"name": "c", "resources": {"limits": {"cpu": main}}}]})
        };
        let check =
            |new: Value, expected: &[&str]| assert_eq!(wanted(&pod("1", "1", "1", "1"), &new), expected);
        check(pod("1", "1", "1", "1"), &[]);
        check(pod("1", "1", "2", "2"), &[]);
        check(pod("2", "1", "1", "1"), &["InPlacePodLevelResourcesVerticalScaling"]);
        check(pod("1", "2", "1", "1"), &["InPlacePodVerticalScalingInitContainers"]);
        assert_eq!(wanted(&json!({"containers": []}), &json!({"containers": []})), [""; 0]);
    }
}
