//! Fields that somebody has written with kubectl, taken over so that the next apply undoes what Git does not say: who
//! applies owns what was applied, and what others own stays. As Flux does it; `kubectl --field-manager=…` with another
//! name, and the annotation `kustomize.toolkit.fluxcd.io/ssa: Merge`, leave such fields alone. Pure.

use base::constants::annotations::KUSTOMIZE_SSA;
use serde_json::{Map, Value};

use crate::cluster::FIELD_MANAGER;

/// The beginning of the names under which kubectl writes, and what its first apply leaves.
const TAKEN: [&str; 2] = ["kubectl", "before-first-apply"];

/// What `metadata.managedFields` should be; nothing when nobody else is to be taken over.
pub fn plan(object: &Value) -> Option<Vec<Value>> {
    if object["metadata"]["annotations"][KUSTOMIZE_SSA] == "Merge" {
        return None;
    }
    let entries = object["metadata"]["managedFields"].as_array()?;
    let is_taken = |entry: &Value| {
        let manager = entry["manager"].as_str().unwrap_or_default();
        let whole = entry["subresource"].as_str().unwrap_or_default().is_empty();
        whole && TAKEN.iter().any(|taken| manager.starts_with(taken))
    };
    let (taken, mut kept): (Vec<&Value>, Vec<&Value>) = entries.iter().partition(|entry| is_taken(entry));
    if taken.is_empty() {
        return None;
    }
    let is_own = |entry: &Value| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply";
    let own = kept.iter().position(|entry| is_own(entry)).map(|at| kept.remove(at));
    let mut own = own.unwrap_or(taken[0]).clone();
    own["manager"] = FIELD_MANAGER.into();
    own["operation"] = "Apply".into();
    for entry in taken {
        if let (Some(fields), Some(more)) = (own["fieldsV1"].as_object_mut(), entry["fieldsV1"].as_object()) {
            unite(fields, more);
        }
    }
    Some([own].into_iter().chain(kept.into_iter().cloned()).collect())
}

/// Sets of fields are trees; what is in either is in the union.
fn unite(fields: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, below) in more {
        match (fields.get_mut(name).and_then(Value::as_object_mut), below.as_object()) {
            (Some(known), Some(below)) => unite(known, below),
            _ => drop(fields.insert(name.clone(), below.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn object(entries: &[Value]) -> Value {
        json!({"metadata": {"managedFields": entries}})
    }

    #[test]
    fn what_kubectl_wrote_is_taken_over() {
        let own = entry(FIELD_MANAGER, "Apply", json!({"f:data": {"f:a": {}}}));
        let edit = entry(
            "kubectl-edit",
            "Update",
            json!({"f:data": {"f:b": {}}, "f:metadata": {"f:labels": {"f:x": {}}}}),
        );
        let other = entry("an-operator", "Update", json!({"f:data": {"f:c": {}}}));
        let planned = plan(&object(&[own.clone(), edit.clone(), other.clone()])).expect("a plan");
        let united = json!({"f:data": {"f:a": {}, "f:b": {}}, "f:metadata": {"f:labels": {"f:x": {}}}});
        assert_eq!(planned, [entry(FIELD_MANAGER, "Apply", united), other.clone()]);
        // Adopted: there is nothing of ours yet.
        let planned = plan(&object(&[entry("kubectl-client-side-apply", "Update", json!({"f:data": {}}))]));
        assert_eq!(planned, Some(vec![entry(FIELD_MANAGER, "Apply", json!({"f:data": {}}))]));
        assert_eq!(plan(&object(&[own.clone(), other])), None);
        let mut scaled = edit.clone();
        scaled["subresource"] = "scale".into();
        assert_eq!(plan(&object(&[own, scaled])), None, "what an autoscaler may do as well");
        let mut merged = object(&[edit]);
        merged["metadata"]["annotations"] = json!({KUSTOMIZE_SSA: "Merge"});
        assert_eq!(plan(&merged), None);
    }
}
