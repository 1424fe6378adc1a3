//! What may change of a pod that is there: images, a shorter deadline, further tolerations, fewer gates, and where it
//! may run as long as it has gates.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec, PodStatus, Toleration,
};

use serde_json::Value;

use super::scheduling_validate::check_tolerations;
use crate::kinds::validate::json;
use crate::kinds::{Errors, names};
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

/// What a write of the status cannot take away: the class, and the generation that was last seen.
pub fn settle_status(new: &mut PodStatus, old: &PodStatus) {
    if new.qos_class.as_ref().is_none_or(String::is_empty) {
        new.qos_class.clone_from(&old.qos_class);
    }
    let unset = |generation: Option<i64>| generation.unwrap_or(0) == 0;
    if unset(new.observed_generation) {
        new.observed_generation = old.observed_generation;
    }
    let mut held: HashMap<&str, VecDeque<Option<i64>>> = HashMap::new();
    for condition in old.conditions.iter().flatten() {
        held.entry(&condition.type_).or_default().push_back(condition.observed_generation);
    }
    for condition in new.conditions.iter_mut().flatten() {
        // Several of one type stand in the same order.
        let before = held.get_mut(condition.type_.as_str()).and_then(VecDeque::pop_front).flatten();
        if unset(condition.observed_generation) {
            condition.observed_generation = before;
        }
    }
}

/// What a status may say that its pod's node, or its scheduler, has written.
pub fn check_status(new: &Pod, old: &Pod, errors: &mut Errors) {
    let status = |pod: &Pod| pod.status.clone().unwrap_or_default();
    let (is_bound, now, before) =
        (new.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()), status(new), status(old));
    let nominated = now.nominated_node_name.as_deref().filter(|name| !name.is_empty());
    if let Some(name) = nominated.filter(|name| before.nominated_node_name.as_deref() != Some(*name)) {
        const FIELD: &str = "status.nominatedNodeName";
        if is_bound {
            let detail = "may not be set on pods that are already bound to a node";
            errors.push(FieldError::forbidden(FIELD, detail));
        }
        if let Some(fault) = names::fault(names::Rule::Subdomain, name) {
            errors.push(FieldError::invalid(FIELD, name, fault));
        }
    }
    if let (Some(class), Some(held)) = (&now.qos_class, &before.qos_class) {
        errors.immutable("status.qosClass", class, held);
    }
    let of_pod = |status: &PodStatus| status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    check_addresses("status.podIPs", of_pod(&now), of_pod(&before), errors);
    let of_host = |status: &PodStatus| status.host_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    check_addresses("status.hostIPs", of_host(&now), of_host(&before), errors);
}

/// New ones are addresses; of several, one is of each family.
fn check_addresses(field: &str, ips: Vec<String>, old: Vec<String>, errors: &mut Errors) {
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !old.contains(ip)) {
        if ip.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(format!("{field}[{i}]"), ip.as_str(), detail));
        }
    }
    let families: Vec<bool> =
        ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).map(|ip| ip.is_ipv4()).collect();
    let pair = families.len() == 2 && families[0] != families[1];
    if ips.len() > 1 && families.len() == ips.len() && !pair {
        // By the name that the field has within the original.
        let shown: Vec<Value> = ips.iter().map(|ip| serde_json::json!({"IP": ip})).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(field, shown, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As heard from kube-apiserver v1.36.2.
    #[test]
    fn a_status_says_nothing_that_is_not_its_writers_to_say() {
        let pod = |node: &str, status: Value| -> Pod {
            let mut pod = json!({"spec": {"containers": []}, "status": status});
            if !node.is_empty() {
                pod["spec"]["nodeName"] = node.into();
            }
            serde_json::from_value(pod).expect("a pod")
        };
        let check = |node: &str, old: Value, new: Value, expected: &[&str]| {
            let mut errors = Errors::default();
            check_status(&pod(node, new.clone()), &pod(node, old), &mut errors);
            let found: Vec<&str> = errors.0.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(found, expected, "{node} {new}");
        };
        let class = json!({"qosClass": "BestEffort"});
        check("n", class.clone(), json!({"qosClass": "Guaranteed"}), &["status.qosClass"]);
        check("n", class.clone(), class, &[]);
        let nominated = |name: &str| json!({"nominatedNodeName": name});
        check("n", json!({}), nominated("m"), &["status.nominatedNodeName"]);
        check("n", nominated("m"), nominated("m"), &[]);
        check("n", nominated("m"), nominated(""), &[]);
        check("", json!({}), nominated("m"), &[]);
        check("", json!({}), nominated("M_"), &["status.nominatedNodeName"]);
        let ips = |ip: &str| json!({"podIPs": [{"ip": ip}], "hostIPs": [{"ip": ip}]});
        check("n", json!({}), ips("x"), &["status.podIPs[0]", "status.hostIPs[0]"]);
        check("n", ips("x"), ips("x"), &[]);
        check("n", json!({}), ips("fd00::1"), &[]);
    }

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
