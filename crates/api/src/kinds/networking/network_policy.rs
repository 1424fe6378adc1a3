//! `NetworkPolicy`: who may speak to pods, and to whom they may.

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::columns::{age_cell, name_cell, selector_cell};
use crate::kinds::network::{self, Network};
use crate::kinds::validate::{label_selector, port};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<NetworkPolicy>::new("networkpolicies", true)
        .short(&["netpol"])
        .generation()
        .default(|policy| policy.spec.iter_mut().for_each(default))
        .validate(|policy, errors| {
            validate(policy.spec.as_ref().unwrap_or(&NetworkPolicySpec::default()), errors);
        })
        .row(|policy| {
            let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
            vec![name_cell(&policy.metadata), selector_cell(selector), age_cell(&policy.metadata)]
        })
        .done()
}

fn default(spec: &mut NetworkPolicySpec) {
    spec.pod_selector.get_or_insert_default();
    let ingress = spec.ingress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
    let egress = spec.egress.iter_mut().flatten().flat_map(|r| r.ports.iter_mut().flatten());
    for port in ingress.chain(egress) {
        port.protocol.get_or_insert_with(|| "TCP".into());
    }
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let mut types = vec!["Ingress".to_owned()];
        if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
            types.push("Egress".into());
        }
        spec.policy_types = Some(types);
    }
}

fn validate(spec: &NetworkPolicySpec, errors: &mut Errors) {
    if let Some(selector) = &spec.pod_selector {
        label_selector("spec.podSelector", selector, errors);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let field = format!("spec.ingress[{i}]");
        check_ports(&field, rule.ports.as_deref(), errors);
        check_peers(&format!("{field}.from"), rule.from.as_deref(), errors);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let field = format!("spec.egress[{i}]");
        check_ports(&field, rule.ports.as_deref(), errors);
        check_peers(&format!("{field}.to"), rule.to.as_deref(), errors);
    }
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        let shown = crate::kinds::validate::json(&types);
        errors.push(FieldError::invalid(
            "spec.policyTypes",
            shown,
            "may not specify more than two policyTypes",
        ));
    } else {
        for (i, kind) in types.iter().enumerate() {
            errors.one_of(format!("spec.policyTypes[{i}]"), Some(kind), &["Ingress", "Egress"]);
        }
    }
}

fn check_ports(field: &str, ports: Option<&[NetworkPolicyPort]>, errors: &mut Errors) {
    for (i, given) in ports.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}.ports[{i}]");
        errors.one_of(format!("{at}.protocol"), given.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
        match (&given.port, given.end_port) {
            (Some(IntOrString::Int(number)), end) => {
                port(format!("{at}.port"), *number, errors);
                if let Some(end) = end {
                    if end < *number {
                        let detail = "must be greater than or equal to `port`";
                        errors.push(FieldError::invalid(format!("{at}.endPort"), *number, detail));
                    }
                    port(format!("{at}.endPort"), end, errors);
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if end.is_some() {
                    let detail = "may not be specified when `port` is non-numeric";
                    errors.push(FieldError::invalid(format!("{at}.endPort"), end, detail));
                }
                crate::kinds::core::check_port_name(&format!("{at}.port"), name, errors);
            }
            (None, Some(end)) => {
                let detail = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(format!("{at}.endPort"), end, detail));
            }
            (None, None) => {}
        }
    }
}

fn check_peers(field: &str, peers: Option<&[NetworkPolicyPeer]>, errors: &mut Errors) {
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}[{i}]");
        let selects = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
        let mut given = false;
        for (part, selector) in selects {
            if let Some(selector) = selector {
                given = true;
                label_selector(&format!("{at}.{part}"), selector, errors);
            }
        }
        match (&peer.ip_block, given) {
            (None, false) => errors.push(FieldError::required(at, "must specify a peer")),
            (Some(_), true) => {
                let detail = "may not specify both ipBlock and another peer";
                errors.push(FieldError::forbidden(at, detail));
            }
            (Some(block), false) => check_block(&format!("{at}.ipBlock"), block, errors),
            (None, true) => {}
        }
    }
}

fn check_block(field: &str, block: &IPBlock, errors: &mut Errors) {
    if block.cidr.is_empty() {
        return errors.required(format!("{field}.cidr"), true);
    }
    let check = |at: String, text: &str, errors: &mut Errors| {
        if let Some(fault) = network::fault(text) {
            errors.push(FieldError::invalid(at, text, fault));
        }
        Network::parse(text)
    };
    let Some(outer) = check(format!("{field}.cidr"), &block.cidr, errors) else { return };
    for (i, except) in block.except.iter().flatten().enumerate() {
        let at = format!("{field}.except[{i}]");
        if check(at.clone(), except, errors).is_some_and(|inner| !outer.holds(&inner)) {
            errors.push(FieldError::invalid(at, except.as_str(), "must be a strict subset of `cidr`"));
        }
    }
}
