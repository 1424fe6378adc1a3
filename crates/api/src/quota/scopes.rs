//! Which objects a quota's scopes choose; without scopes, all.

use k8s_openapi::api::core::v1::{Pod, ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use serde_json::Value;

use super::pod::uses_nothing;
use crate::status::Resource;

/// Whether a quota's scopes mean pods: such a quota counts nothing else.
pub fn needs_pods(spec: &ResourceQuotaSpec) -> bool {
    requirements(spec).iter().any(|r| r.scope_name != "VolumeAttributesClass")
}

/// The scopes and the selector's expressions as one list; a bare scope demands that it applies.
fn requirements(spec: &ResourceQuotaSpec) -> Vec<ScopedResourceSelectorRequirement> {
    let bare = spec.scopes.iter().flatten().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".into(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten().cloned());
    bare.chain(selected).collect()
}

pub fn scopes_choose(spec: &ResourceQuotaSpec, resource: &Resource<'_>, object: &Value) -> bool {
    let requirements = requirements(spec);
    if requirements.is_empty() {
        return true;
    }
    match (resource.group, resource.plural) {
        ("", "pods") => match serde_json::from_value::<Pod>(object.clone()) {
            Ok(pod) => requirements.iter().all(|r| pod_fits(r, &pod)),
            Err(_) => false,
        },
        ("", "persistentvolumeclaims") => requirements.iter().all(|r| claim_fits(r, object)),
        _ => false,
    }
}

fn pod_fits(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let terminating = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    match requirement.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => uses_nothing(pod),
        "NotBestEffort" => !uses_nothing(pod),
        "PriorityClass" => value_fits(requirement, spec.priority_class_name.as_deref()),
        "CrossNamespacePodAffinity" => reaches_namespaces(&spec),
        _ => false,
    }
}

fn claim_fits(requirement: &ScopedResourceSelectorRequirement, claim: &Value) -> bool {
    let class = claim.pointer("/spec/volumeAttributesClassName").and_then(Value::as_str);
    requirement.scope_name == "VolumeAttributesClass" && value_fits(requirement, class)
}

fn value_fits(requirement: &ScopedResourceSelectorRequirement, value: Option<&str>) -> bool {
    let value = value.filter(|v| !v.is_empty());
    let among = value.is_some_and(|v| requirement.values.iter().flatten().any(|other| other == v));
    match requirement.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => among,
        "NotIn" => !among,
        _ => false,
    }
}

/// Whether any affinity looks at pods of other namespaces.
fn reaches_namespaces(spec: &k8s_openapi::api::core::v1::PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = near
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()))
        .flatten();
    let preferred = near
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()))
        .flatten()
        .map(|weighted| &weighted.pod_affinity_term);
    required.chain(preferred).any(|term| {
        term.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || term.namespace_selector.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, pod: Value, expected: bool) {
        let quota: ResourceQuotaSpec = serde_json::from_value(spec.clone()).expect("a quota");
        let mut spec_of_pod = json!({"containers": [{"name": "a"}]});
        if let (Value::Object(all), Value::Object(more)) = (&mut spec_of_pod, pod.clone()) {
            all.extend(more);
        }
        let resource = Resource { group: "", plural: "pods" };
        assert_eq!(scopes_choose(&quota, &resource, &json!({"spec": spec_of_pod})), expected, "{spec} {pod}");
    }

    #[test]
    fn scopes_choose_pods() {
        let scope = |name: &str| json!({"scopes": [name]});
        let deadline = json!({"activeDeadlineSeconds": 5});
        check(json!({}), json!({}), true);
        check(scope("Terminating"), deadline.clone(), true);
        check(scope("NotTerminating"), deadline, false);
        check(scope("BestEffort"), json!({}), true);
        let sized = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]});
        check(scope("BestEffort"), sized.clone(), false);
        check(scope("NotBestEffort"), sized, true);
        let class = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
        let high = json!({"priorityClassName": "high"});
        check(class("In", json!(["high"])), high.clone(), true);
        check(class("NotIn", json!(["high"])), high.clone(), false);
        check(class("Exists", json!(null)), high, true);
        check(class("DoesNotExist", json!(null)), json!({}), true);
        let affinity = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "k", "namespaces": ["other"]}]}}});
        check(scope("CrossNamespacePodAffinity"), affinity, true);
        check(scope("CrossNamespacePodAffinity"), json!({}), false);
        let quota: ResourceQuotaSpec = serde_json::from_value(scope("BestEffort")).expect("a quota");
        assert!(
            needs_pods(&quota)
                && !scopes_choose(&quota, &Resource { group: "", plural: "secrets" }, &json!({}))
        );
    }
}
