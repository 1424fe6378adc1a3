//! What the status of a pod may become: addresses, states of containers that do not run again, and what else its node and its
//! scheduler say of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodExtendedResourceClaimStatus, PodSpec, PodStatus, ResourceStatus,
};
use serde_json::Value;

use crate::kinds::network::address_warning;
use crate::kinds::validate::{new_address, qualified, range};
use crate::kinds::{Errors, names};
use crate::status::{FieldError, Problem};

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
    let spec = new.spec.clone().unwrap_or_default();
    let (now, before) = (status(new), status(old));
    check_conditions(&now, errors);
    check_nominated(&spec, &now, &before, errors);
    if let Some(generation) = now.observed_generation.filter(|generation| *generation < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid("status.observedGeneration", generation, detail));
    }
    if let (Some(class), Some(held)) = (&now.qos_class, &before.qos_class) {
        errors.immutable("status.qosClass", class, held);
    }
    check_states(&spec, &now, &before, errors);
    check_claims(&spec, &now, errors);
    if let Some(claim) = &now.extended_resource_claim_status {
        check_extended("status.extendedResourceClaimStatus", claim, &spec, errors);
    }
    let of_pod = |status: &PodStatus| status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    check_addresses("status.podIPs", of_pod(&now), of_pod(&before), errors);
    let of_host =
        |status: &PodStatus| status.host_ips.iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let hosts = of_host(&now);
    if let Some(first) = hosts.first().filter(|first| now.host_ip.as_deref().unwrap_or_default() != **first) {
        let detail = "must be equal to `hostIP`";
        errors.push(FieldError::invalid("status.hostIPs[0].ip", first.as_str(), detail));
    }
    check_addresses("status.hostIPs", hosts, of_host(&before), errors);
    check_parts(&spec, &now, errors);
}

/// Addresses that were there before, and are better spelled otherwise.
pub fn warnings(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let pods = status.pod_ips.iter().flatten().map(|ip| &ip.ip).enumerate();
    let hosts = status.host_ips.iter().flatten().map(|ip| &ip.ip).enumerate();
    let pods = pods.map(|(i, ip)| (format!("status.podIPs[{i}].ip"), ip));
    let hosts = hosts.map(|(i, ip)| (format!("status.hostIPs[{i}].ip"), ip));
    pods.chain(hosts).filter_map(|(field, ip)| address_warning(&field, ip)).collect()
}

fn check_conditions(status: &PodStatus, errors: &mut Errors) {
    for (i, condition) in status.conditions.iter().flatten().enumerate() {
        let at = format!("status.conditions[{i}]");
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let detail = "must be a non-negative integer";
            errors.push(FieldError::invalid(format!("{at}.observedGeneration"), generation, detail));
        }
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            qualified(format!("{at}.Type"), &condition.type_, errors);
        }
    }
}

fn check_nominated(spec: &PodSpec, now: &PodStatus, before: &PodStatus, errors: &mut Errors) {
    const FIELD: &str = "status.nominatedNodeName";
    let nominated = now.nominated_node_name.as_deref().filter(|name| !name.is_empty());
    let Some(name) = nominated.filter(|name| before.nominated_node_name.as_deref() != Some(*name)) else {
        return;
    };
    if let Some(fault) = names::fault(names::Rule::Subdomain, name) {
        errors.push(FieldError::invalid(FIELD, name, fault));
    }
    if spec.node_name.as_ref().is_some_and(|node| !node.is_empty()) {
        let detail = "may not be set on pods that are already bound to a node";
        errors.push(FieldError::forbidden(FIELD, detail));
    }
}

/// Their field, the statuses, and the containers that they are of, where those may run again.
type Statuses<'a> = (&'static str, &'a [ContainerStatus], Option<&'a [Container]>);

fn parts<'a>(spec: &'a PodSpec, status: &'a PodStatus) -> [Statuses<'a>; 3] {
    let of = |statuses: &'a Option<Vec<ContainerStatus>>| statuses.as_deref().unwrap_or_default();
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    [
        ("status.containerStatuses", of(&status.container_statuses), Some(spec.containers.as_slice())),
        ("status.initContainerStatuses", of(&status.init_container_statuses), Some(inits)),
        ("status.ephemeralContainerStatuses", of(&status.ephemeral_container_statuses), None),
    ]
}

/// A container that has ended and does not run again has ended.
fn check_states(spec: &PodSpec, now: &PodStatus, before: &PodStatus, errors: &mut Errors) {
    let mut rules = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .flat_map(|c| c.restart_policy_rules.iter().flatten());
    let all_again = rules.any(|rule| rule.action == "RestartAllContainers");
    for ((field, now, _), (_, before, containers)) in parts(spec, now).into_iter().zip(parts(spec, before)) {
        if containers.is_some() && all_again {
            continue;
        }
        for (i, held) in before.iter().enumerate() {
            let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.clone());
            let Some(end) = ended(held) else { continue };
            if !now.iter().any(|status| status.name == held.name && ended(status).is_none()) {
                continue;
            }
            let container = containers.and_then(|all| all.iter().find(|c| c.name == held.name));
            if !container.is_some_and(|container| runs_again(container, spec, end.exit_code)) {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(format!("{field}[{i}].state"), detail));
            }
        }
    }
}

fn runs_again(container: &Container, spec: &PodSpec, code: i32) -> bool {
    let by_policy = |policy: Option<&str>| match policy {
        Some("OnFailure") => code != 0,
        Some("Never") => false,
        _ => true,
    };
    let Some(own) = container.restart_policy.as_deref() else {
        return by_policy(spec.restart_policy.as_deref());
    };
    let meets = |operator: &str, values: &[i32]| match operator {
        "In" => values.contains(&code),
        "NotIn" => !values.contains(&code),
        _ => false,
    };
    let mut rules = container.restart_policy_rules.iter().flatten();
    let ruled = rules.any(|rule| {
        let codes = rule.exit_codes.as_ref();
        codes.is_some_and(|c| meets(&c.operator, c.values.as_deref().unwrap_or_default()))
    });
    ruled || by_policy(Some(own))
}

fn check_claims(spec: &PodSpec, status: &PodStatus, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, claim) in status.resource_claim_statuses.iter().flatten().enumerate() {
        let at = format!("status.resourceClaimStatuses[{i}]");
        if !spec.resource_claims.iter().flatten().any(|known| known.name == claim.name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(format!("{at}.name"), claim.name.as_str(), detail));
        }
        if !seen.insert(claim.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.name"), claim.name.as_str()));
        }
        if let Some(name) = &claim.resource_claim_name
            && let Some(fault) = names::fault(names::Rule::Subdomain, name)
        {
            errors.push(FieldError::invalid(format!("{at}.resourceClaimName"), name.as_str(), fault));
        }
    }
}

/// The claim that stands for the extended resources that a pod's containers ask for.
fn check_extended(field: &str, claim: &PodExtendedResourceClaimStatus, spec: &PodSpec, errors: &mut Errors) {
    let mappings = format!("{field}.requestMappings");
    if claim.request_mappings.is_empty() {
        errors.push(FieldError::required(mappings.as_str(), "at least one request mapping is required"));
    }
    let all = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut seen = HashSet::new();
    for (i, mapping) in claim.request_mappings.iter().enumerate() {
        let at = format!("{mappings}[{i}]");
        match all().find(|c| c.name == mapping.container_name) {
            None => {
                let detail =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                let shown = mapping.container_name.as_str();
                errors.push(FieldError::invalid(format!("{at}.containerName"), shown, detail));
            }
            Some(container) => {
                let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
                if !requests.is_some_and(|r| r.contains_key(&mapping.resource_name)) {
                    let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests \
                                  or spec.containers.resources.requests";
                    let shown = mapping.resource_name.as_str();
                    errors.push(FieldError::invalid(format!("{at}.resourceName"), shown, detail));
                }
            }
        }
        if let Some(fault) = names::fault(names::Rule::Label, &mapping.request_name) {
            let shown = mapping.request_name.as_str();
            errors.push(FieldError::invalid(format!("{field}.requestName"), shown, fault));
        }
        let parts = [&mapping.container_name, &mapping.resource_name, &mapping.request_name];
        if !seen.insert(parts) {
            for (part, name) in ["containerName", "resourceName", "requestName"].into_iter().zip(parts) {
                errors.push(FieldError::duplicate(format!("{at}.{part}"), name.as_str()));
            }
        }
    }
    let at = format!("{field}.resourceClaimName");
    crate::kinds::validate::named(at, &claim.resource_claim_name, names::Rule::Subdomain, errors);
}

/// New ones are addresses; of several, one is of each family.
fn check_addresses(field: &str, ips: Vec<String>, old: Vec<String>, errors: &mut Errors) {
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    for (i, ip) in ips.iter().enumerate() {
        new_address(format!("{field}[{i}]"), ip, &old, errors);
    }
    if ips.len() < 2 {
        return;
    }
    let families: Vec<Option<bool>> =
        ips.iter().map(|ip| ip.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4())).collect();
    // The original stumbles over what is none, and says so.
    if let Some(i) = families.iter().position(Option::is_none) {
        let message =
            format!("Internal error: failed to check for dual stack with error:invalid IP[{i}]: {}", ips[i]);
        let problem = Problem::Worded("InternalError", message);
        errors.push(FieldError { field: field.into(), problem });
    }
    if !matches!(families[..], [Some(true), Some(false)] | [Some(false), Some(true)]) {
        // By the name that the field has within the original.
        let shown: Vec<Value> = ips.iter().map(|ip| serde_json::json!({"IP": ip})).collect();
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(field, shown, detail));
    }
}

/// Who runs in a container, and how what it was given fares.
fn check_parts(spec: &PodSpec, status: &PodStatus, errors: &mut Errors) {
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for (field, statuses, _) in parts(spec, status) {
        for (i, status) in statuses.iter().enumerate() {
            let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { continue };
            let at = format!("{field}[{i}].user.linux");
            if windows {
                errors.push(FieldError::forbidden(at, "cannot be set for a windows pod"));
                continue;
            }
            let most = i64::from(i32::MAX);
            range(format!("{at}.uid"), user.uid, 0, most, errors);
            range(format!("{at}.gid"), user.gid, 0, most, errors);
            for (g, group) in user.supplemental_groups.iter().flatten().enumerate() {
                range(format!("{at}.supplementalGroups[{g}]"), *group, 0, most, errors);
            }
        }
    }
    for (field, statuses, containers) in parts(spec, status) {
        for (i, status) in statuses.iter().enumerate() {
            let at = format!("{field}[{i}].allocatedResourcesStatus");
            let resources = status.allocated_resources_status.as_deref().unwrap_or_default();
            let Some(containers) = containers else {
                if !resources.is_empty() {
                    errors.push(FieldError::forbidden(at, "must not be specified in container status"));
                }
                continue;
            };
            let container = containers.iter().find(|c| c.name == status.name);
            for (j, resource) in resources.iter().enumerate() {
                check_resource(&format!("{at}[{j}]"), resource, container, errors);
            }
        }
    }
}

/// In bytes.
const HEALTH_MESSAGE_LIMIT: usize = 1024;

fn check_resource(
    field: &str,
    resource: &ResourceStatus,
    container: Option<&Container>,
    errors: &mut Errors,
) {
    if let Some(container) = container {
        let asked = container.resources.clone().unwrap_or_default();
        let (has, detail) = match resource.name.strip_prefix("claim:") {
            Some(name) => (
                asked.claims.iter().flatten().any(|claim| match claim.request.as_deref() {
                    None | Some("") => claim.name == name,
                    Some(request) => name == format!("{}/{request}", claim.name),
                }),
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                 'claim:<claimName>' if request is empty",
            ),
            None => (
                asked.requests.is_some_and(|requests| requests.contains_key(&resource.name)),
                "must match one of the container's resource requests",
            ),
        };
        if !has {
            errors.push(FieldError::invalid(format!("{field}.name"), resource.name.as_str(), detail));
        }
    }
    let mut seen = HashSet::new();
    for (k, health) in resource.resources.iter().flatten().enumerate() {
        let at = format!("{field}.resources[{k}]");
        let told = health.health.as_deref().unwrap_or_default();
        errors.one_of(format!("{at}.health"), Some(told), &["Healthy", "Unhealthy", "Unknown"]);
        match health.message.as_ref().map(String::len) {
            Some(0) => {
                let detail = "must be non-empty if specified";
                errors.push(FieldError::required(format!("{at}.message"), detail));
            }
            Some(length) if length > HEALTH_MESSAGE_LIMIT => {
                let problem = Problem::TooLong(HEALTH_MESSAGE_LIMIT);
                errors.push(FieldError { field: format!("{at}.message"), problem });
            }
            _ => {}
        }
        if !seen.insert(health.resource_id.as_str()) {
            errors.push(FieldError::duplicate(format!("{at}.resourceID"), health.resource_id.as_str()));
        }
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
        let ips = |ip: &str| json!({"podIPs": [{"ip": ip}], "hostIP": ip, "hostIPs": [{"ip": ip}]});
        check("n", json!({}), ips("x"), &["status.podIPs[0]", "status.hostIPs[0]"]);
        check("n", ips("x"), ips("x"), &[]);
        check("n", json!({}), ips("fd00::1"), &[]);
    }

    #[test]
    fn who_has_ended_runs_again_where_a_policy_says_so() {
        let check = |policy: &str, own: Value, code: i32, expected: bool| {
            let mut container = json!({"name": "c", "image": "i"});
            if !own.is_null() {
                container = crate::patch::merge(&container, &own);
            }
            let spec: PodSpec =
                serde_json::from_value(json!({"containers": [container], "restartPolicy": policy}))
                    .expect("a spec");
            assert_eq!(runs_again(&spec.containers[0], &spec, code), expected, "{policy} {own} {code}");
        };
        check("Always", Value::Null, 0, true);
        check("OnFailure", Value::Null, 0, false);
        check("OnFailure", Value::Null, 1, true);
        check("Never", Value::Null, 1, false);
        check("Never", json!({"restartPolicy": "OnFailure"}), 1, true);
        let rule = |operator: &str| {
            json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]})
        };
        check("Never", rule("In"), 42, true);
        check("Never", rule("In"), 1, false);
        check("Never", rule("NotIn"), 1, true);
    }
}
