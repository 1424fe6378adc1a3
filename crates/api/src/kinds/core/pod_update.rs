//! What may change of a pod that is there: images, a shorter deadline, further tolerations, fewer gates, and where it
//! may run as long as it has gates.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use serde_json::Value;

use super::scheduling_validate::check_tolerations;
use crate::kinds::Errors;
use crate::kinds::validate::json;
use crate::status::FieldError;

const REFUSED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                       `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                       `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn check_update(new: &Pod, old: &Pod, errors: &mut Errors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let inits = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    // What the rest would be compared with is not there, or not to be compared.
    if check_containers("spec.containers", &new.containers, &old.containers, errors).is_none()
        || check_containers("spec.initContainers", &inits(new), &inits(old), errors).is_none()
        || check_deadline(new.active_deadline_seconds, old.active_deadline_seconds, errors).is_none()
    {
        return;
    }
    check_added_tolerations(new.tolerations.as_deref(), old.tolerations.as_deref(), errors);
    check_gates(new, old, errors);
    let mut rest = new.clone();
    for (container, held) in rest.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&held.image);
    }
    for (container, held) in rest.init_containers.iter_mut().flatten().zip(inits(old)) {
        container.image = held.image;
    }
    rest.active_deadline_seconds = old.active_deadline_seconds;
    rest.scheduling_gates.clone_from(&old.scheduling_gates);
    rest.tolerations.clone_from(&old.tolerations);
    let grace = old.termination_grace_period_seconds;
    if grace.is_some_and(|grace| grace < 0) && rest.termination_grace_period_seconds == Some(1) {
        rest.termination_grace_period_seconds = grace;
    }
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        settle_gated(&mut rest, old, errors);
    }
    if rest != *old {
        errors.push(FieldError::forbidden("spec", REFUSED));
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a node's own file says, and which profile confines a container, is said at birth.
pub fn check_annotations(new: &Pod, old: &Pod, errors: &mut Errors) {
    let of = |pod: &Pod| pod.metadata.annotations.clone().unwrap_or_default();
    let (now, before) = (of(new), of(old));
    let at = |key: &str| format!("metadata.annotations[{key}]");
    let settled = |key: &str| key == MIRROR || key.starts_with(APPARMOR);
    check_annotation_values(new, errors);
    let what = |key: &str| if key == MIRROR { "mirror pod annotation" } else { "AppArmor annotations" };
    for key in before.keys().filter(|key| settled(key) && before.get(*key) != now.get(*key)) {
        errors.push(FieldError::forbidden(at(key), format!("may not remove or update {}", what(key))));
    }
    for key in now.keys().filter(|key| settled(key) && !before.contains_key(*key)) {
        errors.push(FieldError::forbidden(at(key), format!("may not add {}", what(key))));
    }
    // As the original does, the values are looked at twice.
    check_annotation_values(new, errors);
}

pub fn check_annotation_values(pod: &Pod, errors: &mut Errors) {
    let at = |key: &str| format!("metadata.annotations[{key}]");
    let bound = pod.spec.as_ref().is_some_and(|s| s.node_name.as_ref().is_some_and(|node| !node.is_empty()));
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        if key == MIRROR && !bound {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            errors.push(FieldError::invalid(at(key), value.as_str(), detail));
        }
        let known = matches!(value.as_str(), "" | "runtime/default" | "unconfined");
        if key.starts_with(APPARMOR) && !known && !value.starts_with("localhost/") {
            let detail = format!("invalid AppArmor profile name: {value:?}");
            errors.push(FieldError::invalid(at(key), value.as_str(), detail));
        }
    }
}

/// `None` where there are more or fewer than before.
fn check_containers(field: &str, new: &[Container], old: &[Container], errors: &mut Errors) -> Option<()> {
    if new.len() != old.len() {
        errors.push(FieldError::forbidden(field, "pod updates may not add or remove containers"));
        return None;
    }
    for (i, container) in new.iter().enumerate() {
        let image = container.image.as_deref().unwrap_or_default();
        if image.is_empty() {
            errors.push(FieldError::required(format!("{field}[{i}].image"), ""));
        }
        if image.trim() != image {
            let detail = "must not have leading or trailing whitespace";
            errors.push(FieldError::invalid(format!("{field}[{i}].image"), image, detail));
        }
    }
    Some(())
}

/// A deadline may be given and be brought forward.
fn check_deadline(new: Option<i64>, old: Option<i64>, errors: &mut Errors) -> Option<()> {
    let field = "spec.activeDeadlineSeconds";
    let fault = match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            "must be between 0 and 2147483647, inclusive"
        }
        (Some(new), Some(old)) if old < new => "must be less than or equal to previous value",
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(field, Value::Null, detail));
            return Some(());
        }
        _ => return Some(()),
    };
    errors.push(FieldError::invalid(field, json(&new), fault));
    None
}

fn check_added_tolerations(new: Option<&[Toleration]>, old: Option<&[Toleration]>, errors: &mut Errors) {
    fn bare(toleration: &Toleration) -> [Option<&str>; 4] {
        let Toleration { key, operator, value, effect, toleration_seconds: _ } = toleration;
        [key, operator, value, effect].map(Option::as_deref)
    }
    let given: HashSet<_> = new.unwrap_or_default().iter().map(bare).collect();
    if old.unwrap_or_default().iter().any(|held| !given.contains(&bare(held))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return errors.push(FieldError::forbidden("spec.tolerations", detail));
    }
    check_tolerations("spec.tolerations", new, errors);
}

fn check_gates(new: &PodSpec, old: &PodSpec, errors: &mut Errors) {
    let held: HashSet<&str> = old.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !held.contains(gate.name.as_str()) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(FieldError::forbidden(format!("spec.schedulingGates[{i}].name"), detail));
        }
    }
}

/// Where a pod may run can be narrowed while nobody places it; `rest` gets back what was narrowed.
fn settle_gated(rest: &mut PodSpec, old: &PodSpec, errors: &mut Errors) {
    let selector = |spec: &PodSpec| spec.node_selector.clone().unwrap_or_default();
    let (new_selector, old_selector) = (selector(rest), selector(old));
    if new_selector != old_selector {
        if old_selector.iter().any(|(key, value)| new_selector.get(key) != Some(value)) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid("spec.nodeSelector", json(&new_selector), detail));
        }
        rest.node_selector.clone_from(&old.node_selector);
    }
    let nodes = |spec: &PodSpec| spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let (new_nodes, old_nodes) = (nodes(rest), nodes(old));
    if new_nodes == old_nodes {
        return;
    }
    check_nodes(new_nodes.as_ref(), old_nodes.as_ref(), errors);
    match &mut rest.affinity {
        None => rest.affinity = Some(Affinity { node_affinity: old_nodes, ..Affinity::default() }),
        Some(own)
            if old.affinity.is_none() && own.pod_affinity.is_none() && own.pod_anti_affinity.is_none() =>
        {
            rest.affinity = None;
        }
        Some(own) => own.node_affinity = old_nodes,
    }
}

fn check_nodes(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, errors: &mut Errors) {
    let terms = |nodes: Option<&NodeAffinity>| {
        let required = nodes.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
        required.map(|r| r.node_selector_terms.clone()).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let field = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    if !old.is_empty() && old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.push(FieldError::invalid(field, json(&new), detail));
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        if !only_adds(new, old) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{field}[{i}]"), json(new), detail));
        }
    }
}

/// A term that asks for nothing matches nothing: what is added to it would match something.
fn only_adds(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let (expressions, fields) = (
        |t: &NodeSelectorTerm| t.match_expressions.clone().unwrap_or_default(),
        |t: &NodeSelectorTerm| t.match_fields.clone().unwrap_or_default(),
    );
    if expressions(old).is_empty() && fields(old).is_empty() {
        return expressions(new).is_empty() && fields(new).is_empty();
    }
    expressions(new).starts_with(&expressions(old)) && fields(new).starts_with(&fields(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, change: Value, expected: &[&str]) {
        let mut base = json!({"containers": [{"name": "c", "image": "i"}]});
        let merged = |into: &mut Value, more: &Value| {
            *into = crate::patch::merge(into, more);
        };
        merged(&mut base, &old);
        let mut changed = base.clone();
        merged(&mut changed, &change);
        let pod = |spec: Value| -> Pod {
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod")
        };
        let mut errors = Errors::default();
        check_update(&pod(changed), &pod(base), &mut errors);
        let found: Vec<&str> = errors.0.iter().map(|e| &*e.field).collect();
        assert_eq!(found, expected, "{old} then {change}");
    }

    #[test]
    fn what_may_change() {
        let gate = json!({"schedulingGates": [{"name": "g"}]});
        check(json!({}), json!({"containers": [{"name": "c", "image": "j"}]}), &[]);
        check(json!({}), json!({"containers": [{"name": "c", "image": ""}]}), &["spec.containers[0].image"]);
        check(json!({}), json!({"containers": []}), &["spec.containers"]);
        check(json!({}), json!({"containers": [{"name": "c", "image": "i", "args": ["a"]}]}), &["spec"]);
        check(json!({"activeDeadlineSeconds": 5}), json!({"activeDeadlineSeconds": 3}), &[]);
        check(
            json!({"activeDeadlineSeconds": 5}),
            json!({"activeDeadlineSeconds": 7, "hostname": "h"}),
            &["spec.activeDeadlineSeconds"],
        );
        check(
            json!({"activeDeadlineSeconds": 5}),
            json!({"activeDeadlineSeconds": null}),
            &["spec.activeDeadlineSeconds"],
        );
        check(gate.clone(), json!({"schedulingGates": []}), &[]);
        check(gate.clone(), json!({"schedulingGates": [{"name": "h"}]}), &["spec.schedulingGates[0].name"]);
        check(gate.clone(), json!({"nodeSelector": {"a": "b"}}), &[]);
        check(json!({}), json!({"nodeSelector": {"a": "b"}}), &["spec"]);
        check(
            crate::patch::merge(&gate, &json!({"nodeSelector": {"a": "b"}})),
            json!({"nodeSelector": {"a": "c"}}),
            &["spec.nodeSelector"],
        );
        let term = json!({"matchExpressions": [{"key": "k", "operator": "Exists"}]});
        let nodes = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        check(gate.clone(), nodes(json!([term])), &[]);
        let field =
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        check(crate::patch::merge(&gate, &nodes(json!([term]))), nodes(json!([term, term])), &[field]);
        let toleration = json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]});
        check(
            toleration.clone(),
            json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}),
            &[],
        );
        check(toleration, json!({"tolerations": []}), &["spec.tolerations"]);
    }
}
