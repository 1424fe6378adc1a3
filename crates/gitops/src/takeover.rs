//! Fields that somebody has written with kubectl, taken over so that the next apply undoes what Git does not say: who
//! applies owns what was applied, and what others own stays. As Flux does it; `kubectl --field-manager=…` with another
//! name, and the annotation `kustomize.toolkit.fluxcd.io/ssa: Merge`, leave such fields alone. Pure.
//!
//! One field is never taken over: the time that `kubectl rollout restart` writes into a template. It configures nothing,
//! so that Git says nothing else by leaving it out; taking it away makes all pods anew a second time. Flux does so at its
//! next interval, which its users find a trap (its answer is to call kubectl with another manager's name). We look at once
//! when something changes, in the middle of the restart, and would break it off.

use base::constants::annotations::{KUSTOMIZE_SSA, RESTARTED_AT};
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
    let (mut taken, mut kept) = (Vec::new(), Vec::new());
    for entry in entries {
        if !is_taken(entry) {
            kept.push(entry.clone());
            continue;
        }
        let (rest, restart) = without_restart(entry);
        taken.extend(rest);
        kept.extend(restart);
    }
    if taken.is_empty() {
        return None;
    }
    let is_own = |entry: &Value| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply";
    let own = kept.iter().position(is_own).map(|at| kept.remove(at));
    let mut own = own.unwrap_or_else(|| taken[0].clone());
    own["manager"] = FIELD_MANAGER.into();
    own["operation"] = "Apply".into();
    for entry in &taken {
        if let (Some(fields), Some(more)) = (own["fieldsV1"].as_object_mut(), entry["fieldsV1"].as_object()) {
            unite(fields, more);
        }
    }
    Some([own].into_iter().chain(kept).collect())
}

/// Where the restart of a workload stands among the fields of an entry, from the outside in.
const RESTART: [&str; 4] = ["f:spec", "f:template", "f:metadata", "f:annotations"];

/// An entry without the time of a restart, if anything is left of it, and one with that time alone, if it is there.
fn without_restart(entry: &Value) -> (Option<Value>, Option<Value>) {
    let pointer: String = RESTART.iter().map(|name| format!("/{name}")).collect();
    let pointer = format!("/fieldsV1{pointer}");
    let field = format!("f:{RESTARTED_AT}");
    let mut rest = entry.clone();
    let annotations = rest.pointer_mut(&pointer).and_then(Value::as_object_mut);
    let Some(time) = annotations.and_then(|annotations| annotations.remove(&field)) else {
        return (Some(rest), None);
    };
    let mut restart = entry.clone();
    let alone = Value::Object(Map::from_iter([(field, time)]));
    restart["fieldsV1"] = RESTART
        .iter()
        .rev()
        .fold(alone, |below, name| Value::Object(Map::from_iter([((*name).to_owned(), below)])));
    // Who wrote the first annotation owns the map as well (`.`), which is nothing without what is in it.
    let is_empty = rest["fieldsV1"].as_object_mut().is_none_or(|fields| is_hollow(fields, &RESTART));
    ((!is_empty).then_some(rest), Some(restart))
}

/// Takes away what is empty on a path, from the inside out; whether nothing is left.
fn is_hollow(fields: &mut Map<String, Value>, path: &[&str]) -> bool {
    if let Some((name, path)) = path.split_first()
        && fields.get_mut(*name).and_then(Value::as_object_mut).is_some_and(|below| is_hollow(below, path))
    {
        fields.remove(*name);
    }
    fields.keys().all(|name| name == ".")
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

    #[test]
    fn a_restart_runs_to_its_end() {
        let annotations =
            |fields: Value| json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": fields}}}});
        let time = || annotations(json!({"f:kubectl.kubernetes.io/restartedAt": {}}));
        let own = entry(FIELD_MANAGER, "Apply", json!({"f:spec": {"f:replicas": {}}}));
        // As kubectl writes it where the template has no other annotation.
        let restart = entry(
            "kubectl-rollout",
            "Update",
            annotations(json!({".": {}, "f:kubectl.kubernetes.io/restartedAt": {}})),
        );
        assert_eq!(plan(&object(&[own.clone(), restart])), None, "nothing of it is taken over");
        // Beside an edit, which is.
        let mut fields = annotations(json!({"f:kubectl.kubernetes.io/restartedAt": {}, "f:x": {}}));
        fields["f:spec"]["f:paused"] = json!({});
        let planned = plan(&object(&[own, entry("kubectl-edit", "Update", fields)])).expect("a plan");
        let mut united = annotations(json!({"f:x": {}}));
        united["f:spec"]["f:replicas"] = json!({});
        united["f:spec"]["f:paused"] = json!({});
        let kept = entry("kubectl-edit", "Update", time());
        assert_eq!(planned, [entry(FIELD_MANAGER, "Apply", united), kept]);
    }
}
