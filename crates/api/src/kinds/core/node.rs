//! `Node`: a machine, written by its agent.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::Value;

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::network::{self, Network};
use crate::kinds::validate::{amount, qualified};
use crate::kinds::{Build, Errors, Kind, names};
use crate::quantity::Quantity;
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<Node>::new("nodes", false)
        .metadata_on_update(&[Whole, Change])
        .short(&["no"])
        // Its agent tells of it as it makes it known.
        .rules(|r| {
            r.no_namespace_field = true;
            r.born_with_status = true;
        })
        .prefix("/registry/minions")
        .status()
        .subresource("proxy", ("", "v1", "NodeProxyOptions"), &["create", "delete", "get", "patch", "update"])
        // What a node can give is what it has, until it says otherwise.
        .default(|node| {
            settle_networks(node.spec.as_mut());
            if let Some(status) = &mut node.status
                && status.allocatable.as_ref().is_none_or(|a| a.is_empty())
            {
                status.allocatable.clone_from(&status.capacity);
            }
        })
        .prepare_create(drop_config)
        .prepare_update(|new, _| drop_config(new))
        .prepare_status(|new, _| drop_config(new))
        .validate(validate)
        .validate_update(check_update)
        .validate_status(check_update)
        .row(row)
        .fields(&["spec.unschedulable"], |n| {
            let unschedulable = n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
            vec![("spec.unschedulable", unschedulable.to_string())]
        })
        .done()
}

/// Configuration that the API server once had for agents is kept no longer.
fn drop_config(node: &mut Node) {
    if let Some(spec) = &mut node.spec {
        spec.config_source = None;
    }
    if let Some(status) = &mut node.status {
        status.config = None;
    }
}

/// The one network and the first of the list are the same; where they are not, the one counts.
fn settle_networks(spec: Option<&mut NodeSpec>) {
    let Some(spec) = spec else { return };
    let one = spec.pod_cidr.clone().filter(|cidr| !cidr.is_empty());
    let all = spec.pod_cidrs.get_or_insert_default();
    match one {
        Some(one) if all.first() != Some(&one) => *all = vec![one],
        Some(_) => {}
        None => spec.pod_cidr = all.first().cloned(),
    }
}

/// What holds of a node that is there, whichever part of it is written: what was said of its spec at birth is said again.
fn check_update(new: &Node, old: &Node, errors: &mut Errors) {
    check_amounts(new, errors);
    let status = new.status.clone().unwrap_or_default();
    check_features(status.declared_features.as_deref().unwrap_or_default(), errors);
    let mut seen = HashSet::new();
    for (i, address) in status.addresses.iter().flatten().enumerate() {
        if !seen.insert((address.type_.as_str(), address.address.as_str())) {
            // By the names that the parts have within the original.
            let message = format!(
                "Duplicate value: {{\"Type\":{:?},\"Address\":{:?}}}",
                address.type_, address.address
            );
            let problem = Problem::Worded("FieldValueDuplicate", message);
            errors.push(FieldError { field: format!("status.addresses[{i}]"), problem });
        }
    }
    check_settled(new.spec.as_ref(), old.spec.as_ref(), errors);
    let external = |node: &Node| node.spec.as_ref().and_then(|s| s.external_id.clone()).unwrap_or_default();
    if external(new) != external(old) {
        errors.push(FieldError::forbidden("spec.externalID", "may not be updated"));
    }
    let taints = new.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    check_taints(&taints, errors);
}

/// What a node has and what it can give.
fn check_amounts(node: &Node, errors: &mut Errors) {
    let status = node.status.clone().unwrap_or_default();
    for (part, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, given) in amounts.iter().flatten() {
            let at = format!("status.{part}.{name}");
            amount(at.as_str(), given, errors);
            if super::resources_validate::is_counted(name)
                && Quantity::parse(&given.0).is_ok_and(|amount| !amount.is_whole())
            {
                errors.push(FieldError::invalid(at, given.0.as_str(), "must be an integer"));
            }
        }
    }
}

const FEATURE_LIMIT: usize = 253;

/// Features that the node's agent says it has: sorted, each once.
fn check_features(features: &[String], errors: &mut Errors) {
    let at = |i: usize| format!("status.declaredFeatures[{i}]");
    for (i, feature) in features.iter().enumerate() {
        if let Some(fault) = feature_fault(feature) {
            errors.push(FieldError::invalid(at(i), feature.as_str(), fault));
        }
        match features.get(i + 1) {
            Some(next) if next == feature => {
                errors.push(FieldError::duplicate(at(i + 1), next.as_str()));
            }
            Some(next) if next < feature => {
                let detail = "list must be sorted alphabetically";
                errors.push(FieldError::invalid(at(i + 1), next.as_str(), detail));
            }
            _ => {}
        }
    }
}

fn feature_fault(feature: &str) -> Option<String> {
    if feature.len() > FEATURE_LIMIT {
        return Some(format!(
            "invalid feature name {feature:?}: must be no more than {FEATURE_LIMIT} characters"
        ));
    }
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let is_name = feature.starts_with(|c: char| c.is_ascii_uppercase()) && feature.split('/').all(is_word);
    (!is_name).then(|| {
        format!(
            "invalid feature name {feature:?}: must start with an UpperCamelCase segment, with subsequent segments separated by \
             '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
        )
    })
}

/// What a node was given once stays.
fn check_settled(new: Option<&NodeSpec>, old: Option<&NodeSpec>, errors: &mut Errors) {
    let networks = |spec: Option<&NodeSpec>| spec.and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
    let (given, held) = (networks(new), networks(old));
    // Each that differs is told of.
    let differ = match (held.is_empty(), held.len() == given.len()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) => held.iter().zip(&given).filter(|(held, given)| held != given).count(),
    };
    for _ in 0..differ {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    let provider = |spec: Option<&NodeSpec>| spec.and_then(|s| s.provider_id.clone()).unwrap_or_default();
    let held = provider(old);
    if !held.is_empty() && provider(new) != held {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
}

fn validate(node: &Node, errors: &mut Errors) {
    let spec = node.spec.clone().unwrap_or_default();
    check_taints(&spec.taints.unwrap_or_default(), errors);
    check_amounts(node, errors);
    check_networks(&spec.pod_cidrs.unwrap_or_default(), errors);
}

fn check_taints(taints: &[Taint], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        // The original lays the faults of taints to the metadata.
        let at = format!("metadata.taints[{i}]");
        qualified(format!("{at}.key"), &taint.key, errors);
        if let Some(fault) = names::label_value_fault(taint.value.as_deref().unwrap_or_default()) {
            errors.push(FieldError::invalid(format!("{at}.value"), taint.value.clone(), fault));
        }
        const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
        match taint.effect.as_str() {
            "" => errors.required(format!("{at}.effect"), true),
            effect => errors.one_of(format!("{at}.effect"), Some(effect), EFFECTS),
        }
        if !seen.insert((taint.key.as_str(), taint.effect.as_str())) {
            let message = format!(
                "Duplicate value: {{\"Key\":{:?},\"Value\":{:?},\"Effect\":{:?},\"TimeAdded\":null}}: taints must be unique by \
                 key and effect pair",
                taint.key,
                taint.value.clone().unwrap_or_default(),
                taint.effect
            );
            let problem = Problem::Worded("FieldValueDuplicate", message);
            errors.push(FieldError { field: at, problem });
        }
    }
}

/// One network for pods, or one of each family.
fn check_networks(cidrs: &[String], errors: &mut Errors) {
    for (i, cidr) in cidrs.iter().enumerate() {
        if let Some(fault) = network::fault(cidr) {
            errors.push(FieldError::invalid(format!("spec.podCIDRs[{i}]"), cidr.as_str(), fault));
        }
    }
    if cidrs.len() < 2 {
        return;
    }
    let families: Vec<Option<bool>> =
        cidrs.iter().map(|cidr| Network::parse(cidr).map(|network| network.is_ipv4())).collect();
    // The original stumbles over what is none, and says so.
    if let Some(i) = families.iter().position(Option::is_none) {
        let message = format!(
            "Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{i}]: <nil> \
             (invalid CIDR address: {})",
            cidrs[i]
        );
        let problem = Problem::Worded("InternalError", message);
        errors.push(FieldError { field: "spec.podCIDRs".into(), problem });
    }
    if !matches!(families[..], [Some(true), Some(false)] | [Some(false), Some(true)]) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid("spec.podCIDRs", cidrs.to_vec(), detail));
    }
}

fn row(node: &Node) -> Vec<Value> {
    let status = node.status.as_ref();
    let ready = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    let mut shown = match ready.map(|c| c.status.as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        shown.push_str(",SchedulingDisabled");
    }
    const ROLE: &str = "node-role.kubernetes.io/";
    let labels = node.metadata.labels.iter().flatten();
    let roles: Vec<&str> =
        labels.filter_map(|(key, _)| key.strip_prefix(ROLE)).filter(|r| !r.is_empty()).collect();
    let address = |kind: &str| {
        let addresses = status.and_then(|s| s.addresses.as_ref());
        addresses.into_iter().flatten().find(|a| a.type_ == kind).map(|a| a.address.clone())
    };
    let info = status.and_then(|s| s.node_info.as_ref());
    vec![
        name_cell(&node.metadata),
        shown.into(),
        or_none(Some(&roles.join(","))),
        age_cell(&node.metadata),
        info.map(|i| i.kubelet_version.clone()).unwrap_or_default().into(),
        or_none(address("InternalIP").as_deref()),
        or_none(address("ExternalIP").as_deref()),
        known(info.map(|i| i.os_image.as_str())),
        known(info.map(|i| i.kernel_version.as_str())),
        known(info.map(|i| i.container_runtime_version.as_str())),
    ]
}

fn known(text: Option<&str>) -> Value {
    text.filter(|t| !t.is_empty()).unwrap_or("<unknown>").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn networks_for_pods() {
        let check = |cidrs: &[&str], expected: &[&str]| {
            let mut errors = Errors::default();
            let cidrs: Vec<String> = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
            check_networks(&cidrs, &mut errors);
            let told: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
            assert_eq!(told, expected, "{cidrs:?}");
        };
        check(&[], &[]);
        check(&["10.1.0.0/24"], &[]);
        check(&["10.1.0.0/24", "fd00::/64"], &[]);
        check(&["fd00::/64", "10.1.0.0/24"], &[]);
        check(&["0.0.0.0/0", "::1/128"], &[]);
        check(
            &["10.1.0.5/24"],
            &[
                "spec.podCIDRs[0]: Invalid value: \"10.1.0.5/24\": must not have bits set beyond the prefix length",
            ],
        );
        check(
            &["x"],
            &[
                "spec.podCIDRs[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        const FAMILIES: &str = "may specify no more than one CIDR for each IP family";
        check(
            &["10.1.0.0/24", "10.2.0.0/24"],
            &[&format!("spec.podCIDRs: Invalid value: [\"10.1.0.0/24\",\"10.2.0.0/24\"]: {FAMILIES}")],
        );
        check(
            &["010.1.0.0/24", "fd00::/64"],
            &[
                "spec.podCIDRs[0]: Invalid value: \"010.1.0.0/24\": must not have leading 0s in IP or prefix length",
            ],
        );
        check(
            &["10.0.0.0/8", "x"],
            &[
                "spec.podCIDRs[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                "spec.podCIDRs: Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[1]: <nil> (invalid CIDR address: x)",
                &format!("spec.podCIDRs: Invalid value: [\"10.0.0.0/8\",\"x\"]: {FAMILIES}"),
            ],
        );
        check(
            &["10.1.0.0/24", "fd00::/64", "fd01::/64"],
            &[&format!(
                "spec.podCIDRs: Invalid value: [\"10.1.0.0/24\",\"fd00::/64\",\"fd01::/64\"]: {FAMILIES}"
            )],
        );
    }
}
