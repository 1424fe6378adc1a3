//! Namespaces that go just now, as right after an application was taken away: nothing can be made in them, and what is in
//! them still goes with them. They are waited for; who asks is told so.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::Kustomizations;
use super::outcome::Failure;
use crate::inventory::Id;

/// The first and the longest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

impl Kustomizations {
    /// An error if objects are wanted in a namespace that goes. What else is amiss with namespaces is told by the apply.
    pub(super) async fn check_namespaces(&self, wanted: &[Value]) -> Result<(), Failure> {
        for name in namespaces(wanted) {
            let id = Id {
                group: String::new(),
                version: "v1".into(),
                kind: "Namespace".into(),
                namespace: String::new(),
                name,
            };
            let Ok(Some(found)) = self.cluster.get(&id).await else { continue };
            if let Some(failure) = terminating(&found, base::time::now()) {
                return Err(failure);
            }
        }
        Ok(())
    }
}

fn namespaces(wanted: &[Value]) -> BTreeSet<String> {
    let of = |object: &Value| {
        let meta = &object["metadata"];
        let is_itself = object["kind"] == "Namespace" && object["apiVersion"] == "v1";
        let name = if is_itself { &meta["name"] } else { &meta["namespace"] };
        name.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    };
    wanted.iter().filter_map(of).collect()
}

/// The longer it takes already, the seldomer it is looked at.
fn terminating(namespace: &Value, now: Timestamp) -> Option<Failure> {
    let since: Timestamp = namespace["metadata"]["deletionTimestamp"].as_str()?.parse().ok()?;
    let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let conditions = namespace["status"]["conditions"].as_array().into_iter().flatten();
    // What keeps it: finalizers of what is in it, most of all.
    let mut held = conditions
        .filter(|condition| condition["status"] == "True")
        .filter_map(|condition| condition["message"].as_str())
        .map(|message| format!(": {message}"));
    Some(Failure::Terminating {
        namespace: namespace["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        held: held.next_back().unwrap_or_default(),
        pause: (elapsed / 8).clamp(PAUSE_MIN, PAUSE_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn namespaces_that_go_are_found_with_what_holds_them() {
        let wanted = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "own"}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}),
        ];
        assert_eq!(namespaces(&wanted).into_iter().collect::<Vec<_>>(), ["other", "own"]);
        let now: Timestamp = "2026-01-01T00:01:20Z".parse().expect("a time");
        let mut namespace = json!({"metadata": {"name": "own"}, "status": {"conditions": []}});
        assert!(terminating(&namespace, now).is_none());
        let check = |namespace: &Value, text: &str, wanted: Duration| match terminating(namespace, now) {
            Some(Failure::Terminating { held, pause, namespace }) => {
                assert_eq!((held.as_str(), pause, namespace.as_str()), (text, wanted, "own"));
            }
            other => panic!("{other:?}"),
        };
        namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        check(&namespace, "", Duration::from_secs(10));
        namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:30Z".into();
        check(&namespace, "", PAUSE_MIN);
        namespace["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into();
        namespace["status"]["conditions"] = json!([
            {"type": "NamespaceContentRemaining", "status": "True", "message": "some remain"},
            {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "x in 1 instance"},
            {"type": "Other", "status": "False", "message": "fine"},
        ]);
        check(&namespace, ": x in 1 instance", PAUSE_MAX);
    }
}
