//! What a LimitRange gives a pod that says nothing, and what it refuses. Pure: the server finds the ranges of a
//! namespace and asks here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;
use crate::quota::{Amounts, most_of_containers, read};

/// Where a pod tells what it was given.
pub const ANNOTATION: &str = "kubernetes.io/limit-ranger";

fn items<'a>(range: &'a LimitRange, kind: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits).filter(move |item| item.type_ == kind)
}

/// Gives the containers the range's defaults for what they leave open; says what was given.
pub fn fill(range: &LimitRange, pod: &mut PodSpec) -> Option<String> {
    let (mut limits, mut requests) = (BTreeMap::new(), BTreeMap::new());
    for item in items(range, "Container") {
        limits.extend(item.default.clone().unwrap_or_default());
        requests.extend(item.default_request.clone().unwrap_or_default());
    }
    let mut told = Vec::new();
    for container in &mut pod.containers {
        fill_container(container, "container", (&requests, &limits), &mut told);
    }
    for container in pod.init_containers.iter_mut().flatten() {
        fill_container(container, "init container", (&requests, &limits), &mut told);
    }
    (!told.is_empty()).then(|| format!("LimitRanger plugin set: {}", told.join("; ")))
}

type Texts = BTreeMap<String, Text>;

fn fill_container(
    container: &mut Container,
    word: &str,
    (requests, limits): (&Texts, &Texts),
    told: &mut Vec<String>,
) {
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let resources = container.resources.get_or_insert_default();
    for (what, given, held) in
        [("request", requests, &mut resources.requests), ("limit", limits, &mut resources.limits)]
    {
        let missing: Vec<(&String, &Text)> =
            given.iter().filter(|(name, _)| !held.as_ref().is_some_and(|h| h.contains_key(*name))).collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
        told.push(format!("{} {what} for {word} {}", names.join(", "), container.name));
        held.get_or_insert_default().extend(missing.into_iter().map(|(n, a)| (n.clone(), a.clone())));
    }
}

/// Why a range refuses a pod.
pub fn of_pod(range: &LimitRange, pod: &Pod) -> Option<String> {
    let mut faults = Vec::new();
    let Some(spec) = &pod.spec else { return None };
    for item in range.spec.iter().flat_map(|s| &s.limits) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let resources = container.resources.clone().unwrap_or_default();
                    let ResourceRequirements { requests, limits, .. } = resources;
                    check(item, &read(requests.as_ref()), &read(limits.as_ref()), &mut faults);
                }
            }
            "Pod" => {
                check(item, &most_of_containers(pod, false), &most_of_containers(pod, true), &mut faults)
            }
            _ => {}
        }
    }
    told(faults)
}

/// Why a range refuses a claim: only what it requests counts.
pub fn of_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Option<String> {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let requests = read(resources.and_then(|r| r.requests.as_ref()));
    let mut faults = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        let kind = &item.type_;
        for (name, least) in read(item.min.as_ref()) {
            faults.extend(too_little(kind, &name, least, requests.get(&name), None));
        }
        for (name, most) in read(item.max.as_ref()) {
            let rule = format!("maximum {name} usage per {kind} is {most}");
            faults.extend(match requests.get(&name) {
                None => Some(format!("{rule}.  No request is specified")),
                Some(request) if *request > most => Some(format!("{rule}, but request is {request}")),
                Some(_) => None,
            });
        }
    }
    told(faults)
}

/// One fault as it is, several as a list.
fn told(mut faults: Vec<String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    faults.retain(|fault| seen.insert(fault.clone()));
    match faults.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        more => Some(format!("[{}]", more.join(", "))),
    }
}

fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
    let kind = &item.type_;
    for (name, least) in read(item.min.as_ref()) {
        faults.extend(too_little(kind, &name, least, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in read(item.max.as_ref()) {
        faults.extend(too_much(kind, &name, most, requests.get(&name), limits.get(&name)));
    }
    for (name, ratio) in read(item.max_limit_request_ratio.as_ref()) {
        faults.extend(too_far_apart(kind, &name, ratio, requests.get(&name), limits.get(&name)));
    }
}

type Amount<'a> = Option<&'a Quantity>;

fn too_little(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Amount<'_>,
    limit: Amount<'_>,
) -> Option<String> {
    let rule = format!("minimum {name} usage per {kind} is {least}");
    match (request, limit) {
        (None, _) => Some(format!("{rule}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{rule}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{rule}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Amount<'_>,
    limit: Amount<'_>,
) -> Option<String> {
    let rule = format!("maximum {name} usage per {kind} is {most}");
    match (request, limit) {
        (_, None) => Some(format!("{rule}.  No limit is specified")),
        (_, Some(limit)) if *limit > most => Some(format!("{rule}, but limit is {limit}")),
        (Some(request), _) if *request > most => Some(format!("{rule}, but request is {request}")),
        _ => None,
    }
}

fn too_far_apart(
    kind: &str,
    name: &str,
    ratio: Quantity,
    request: Amount<'_>,
    limit: Amount<'_>,
) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {ratio}");
    let Some(request) = request.filter(|r| !r.is_zero()) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|l| !l.is_zero()) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let observed = limit.to_f64() / request.to_f64();
    (observed > ratio.to_f64()).then(|| format!("{rule}, but provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn range(items: Value) -> LimitRange {
        serde_json::from_value(json!({"spec": {"limits": items}})).expect("a range")
    }

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<Value> = (resources.iter().enumerate())
            .map(|(i, r)| json!({"name": format!("c{i}"), "resources": r}))
            .collect();
        serde_json::from_value(json!({"spec": {"containers": containers}})).expect("a pod")
    }

    fn check(item: Value, resources: &[Value], expected: &str) {
        let refused = of_pod(&range(json!([item])), &pod(resources));
        assert_eq!(refused.unwrap_or_default(), expected);
    }

    #[test]
    fn each_bound_is_told_in_known_words() {
        let cpu =
            |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        let min = json!({"type": "Container", "min": {"cpu": "100m"}});
        check(min.clone(), &[cpu("100m", "1")], "");
        check(min.clone(), &[json!({})], "minimum cpu usage per Container is 100m.  No request is specified");
        check(min.clone(), &[cpu("50m", "1")], "minimum cpu usage per Container is 100m, but request is 50m");
        let limited = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "99m"}});
        check(min, &[limited], "minimum cpu usage per Container is 100m, but limit is 99m");
        let max = json!({"type": "Container", "max": {"cpu": "1"}});
        check(max.clone(), &[cpu("1", "1")], "");
        check(max.clone(), &[json!({})], "maximum cpu usage per Container is 1.  No limit is specified");
        check(max, &[cpu("1", "1500m")], "maximum cpu usage per Container is 1, but limit is 1500m");
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        check(ratio.clone(), &[cpu("500m", "1")], "");
        let apart = "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000";
        check(ratio.clone(), &[cpu("100m", "300m")], apart);
        let none =
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0";
        check(ratio, &[json!({})], none);
        let sum = json!({"type": "Pod", "max": {"cpu": "1"}});
        check(sum.clone(), &[cpu("500m", "500m"), cpu("500m", "500m")], "");
        let over = "maximum cpu usage per Pod is 1, but limit is 1100m";
        check(sum, &[cpu("500m", "500m"), cpu("500m", "600m")], over);
        let two = "[maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Container is 1, but limit is 3]";
        check(json!({"type": "Container", "max": {"cpu": "1"}}), &[cpu("1", "2"), cpu("1", "3")], two);
    }

    #[test]
    fn only_what_is_left_open_is_filled_in() {
        let defaults = json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]);
        let mut pod = pod(&[
            json!({"limits": {"cpu": "1"}}),
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1Mi"}}),
        ]);
        let spec = pod.spec.as_mut().expect("a spec");
        let told = fill(&range(defaults.clone()), spec);
        assert_eq!(
            told.as_deref(),
            Some("LimitRanger plugin set: cpu request for container c0; memory limit for container c0")
        );
        let first = spec.containers[0].resources.clone().unwrap_or_default();
        assert_eq!(first.limits.unwrap_or_default()["cpu"].0, "1");
        assert_eq!(first.requests.unwrap_or_default()["cpu"].0, "100m");
        assert_eq!(fill(&range(defaults), spec), None, "nothing is left open");
    }

    #[test]
    fn claims_are_held_to_what_they_request() {
        let range = range(
            json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]),
        );
        let claim = |size: &str| {
            serde_json::from_value(json!({"spec": {"resources": {"requests": {"storage": size}}}}))
                .expect("a claim")
        };
        assert_eq!(of_claim(&range, &claim("1Gi")), None);
        let small = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi";
        assert_eq!(of_claim(&range, &claim("1Mi")).as_deref(), Some(small));
        let large = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        assert_eq!(of_claim(&range, &claim("3Gi")).as_deref(), Some(large));
    }
}
