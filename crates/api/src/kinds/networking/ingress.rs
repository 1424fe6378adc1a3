//! `Ingress`: hosts and paths, and the services behind them.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressLoadBalancerIngress, IngressRule, IngressSpec,
};
use serde_json::Value;

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::{self, Rule};
use crate::kinds::network::address_warning;
use crate::kinds::validate::{is_empty, named, new_address, port, reachable_name};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

/// The class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub fn kind() -> Kind {
    Build::<Ingress>::new("ingresses", true)
        .metadata_on_update(&[Change, Whole])
        .short(&["ing"])
        .prefix("/registry/ingress")
        .status()
        .generation()
        .warnings(|ingress| {
            const CLASS: &str = "kubernetes.io/ingress.class";
            let annotated = ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CLASS));
            let text =
                format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
            annotated.then_some(text).into_iter().collect()
        })
        .validate(|ingress, errors| {
            let spec = ingress.spec.clone().unwrap_or_default();
            check_spec(&spec, errors);
        })
        .validate_create(|ingress, errors| {
            let annotations = ingress.metadata.annotations.as_ref();
            let given = annotations.and_then(|a| a.get(CLASS_ANNOTATION));
            let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
            if let (Some(given), Some(class)) = (given, class)
                && given != class
            {
                let detail = "must match `ingressClassName` when both are specified";
                let at = format!("annotations.{CLASS_ANNOTATION}");
                errors.push(FieldError::invalid(at, given.as_str(), detail));
            }
        })
        .validate_status(|new, old, errors| {
            let (now, before) = (balanced(new), balanced(old));
            let before: Vec<&str> = before.iter().filter_map(|i| i.ip.as_deref()).collect();
            for (i, place) in now.iter().enumerate() {
                let at = format!("status.loadBalancer.ingress[{i}]");
                if let Some(ip) = place.ip.as_deref().filter(|ip| !ip.is_empty()) {
                    new_address(format!("{at}.ip"), ip, &before, errors);
                }
                if let Some(name) = place.hostname.as_deref().filter(|name| !name.is_empty()) {
                    reachable_name(format!("{at}.hostname"), name, errors);
                }
            }
        })
        .status_warnings(|ingress| {
            let places = balanced(ingress).into_iter().enumerate();
            let told = places.filter_map(|(i, place)| {
                let ip = place.ip.filter(|ip| !ip.is_empty())?;
                address_warning(&format!("status.loadBalancer.ingress[{i}]"), &ip)
            });
            told.collect()
        })
        .row(row)
        .done()
}

fn check_spec(spec: &IngressSpec, errors: &mut Errors) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", serde_json::Value::Null, detail));
    }
    if let Some(backend) = &spec.default_backend {
        check_backend("spec.defaultBackend", backend, errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        check_rule(&format!("spec.rules[{i}]"), rule, errors);
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        for (h, host) in tls.hosts.iter().flatten().enumerate() {
            check_host(&format!("spec.tls[{i}].hosts[{h}]"), host, errors);
        }
        if let Some(name) = tls.secret_name.as_deref().filter(|n| !n.is_empty()) {
            named(format!("spec.tls[{i}].secretName"), name, Rule::Subdomain, errors);
        }
    }
    if let Some(class) = spec.ingress_class_name.as_deref()
        && let Some(fault) = names::fault(Rule::Subdomain, class)
    {
        errors.push(FieldError::invalid("spec.ingressClassName", class, fault));
    }
}

/// A name, or one whose first part is `*`.
fn check_host(field: &str, host: &str, errors: &mut Errors) {
    if host.contains('*') {
        if !host.strip_prefix("*.").is_some_and(names::is_subdomain) {
            let detail = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
                          lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex \
                          used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
            errors.push(FieldError::invalid(field, host, detail));
        }
    } else if let Some(fault) = names::fault(Rule::Subdomain, host) {
        errors.push(FieldError::invalid(field, host, fault));
    }
}

fn check_rule(field: &str, rule: &IngressRule, errors: &mut Errors) {
    if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
        if host.parse::<std::net::IpAddr>().is_ok() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(format!("{field}.host"), host, detail));
        } else {
            check_host(&format!("{field}.host"), host, errors);
        }
    }
    let Some(http) = &rule.http else { return };
    errors.required(format!("{field}.http.paths"), http.paths.is_empty());
    for (i, path) in http.paths.iter().enumerate() {
        check_path(&format!("{field}.http.paths[{i}]"), path, errors);
    }
}

fn check_path(field: &str, path: &HTTPIngressPath, errors: &mut Errors) {
    const TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    let text = path.path.as_deref().unwrap_or_default();
    let at = format!("{field}.path");
    match path.path_type.as_str() {
        "" => errors.push(FieldError::required(format!("{field}.pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(FieldError::invalid(at.as_str(), text, "must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(sequence) {
                    let detail = format!("must not contain '{sequence}'");
                    errors.push(FieldError::invalid(at.as_str(), text, detail));
                }
            }
            for ending in ["/..", "/."] {
                if text.ends_with(ending) {
                    let detail = format!("cannot end with '{ending}'");
                    errors.push(FieldError::invalid(at.as_str(), text, detail));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(FieldError::invalid(at, text, "must be an absolute path"));
            }
        }
        other => errors.one_of(format!("{field}.pathType"), Some(other), TYPES),
    }
    check_backend(&format!("{field}.backend"), &path.backend, errors);
}

fn check_backend(field: &str, backend: &IngressBackend, errors: &mut Errors) {
    match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(field, "", detail));
        }
        (None, Some(resource)) => {
            if let Some(group) = resource.api_group.as_deref().filter(|group| !group.is_empty()) {
                named(format!("{field}.resource.apiGroup"), group, Rule::Subdomain, errors);
            }
            named(format!("{field}.resource.kind"), &resource.kind, Rule::PathSegment, errors);
            named(format!("{field}.resource.name"), &resource.name, Rule::PathSegment, errors);
        }
        (None, None) => {
            errors.push(FieldError::invalid(field, "", "resource or service backend is required"));
        }
        (Some(service), None) => {
            named(format!("{field}.service.name"), &service.name, Rule::Label, errors);
            let (name, number) = match &service.port {
                Some(port) => (port.name.as_deref(), port.number.unwrap_or(0)),
                None => (None, 0),
            };
            match (is_empty(name), number) {
                (false, n) if n != 0 => {
                    errors.push(FieldError::invalid(field, "", "cannot set both port name & port number"));
                }
                (true, 0) => errors.push(FieldError::required(field, "port name or number is required")),
                (false, _) => crate::kinds::core::check_port_name(
                    &format!("{field}.service.port.name"),
                    name.unwrap_or_default(),
                    errors,
                ),
                (true, number) => port(format!("{field}.service.port.number"), number, errors),
            }
        }
    }
}

/// Where it is reached.
fn balanced(ingress: &Ingress) -> Vec<IngressLoadBalancerIngress> {
    let status = ingress.status.as_ref();
    status.and_then(|s| s.load_balancer.as_ref()?.ingress.clone()).unwrap_or_default()
}

fn row(ingress: &Ingress) -> Vec<Value> {
    let spec = ingress.spec.clone().unwrap_or_default();
    let annotated = ingress.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION).cloned());
    let class = spec.ingress_class_name.clone().or(annotated);
    let hosts: Vec<String> =
        spec.rules.iter().flatten().filter_map(|r| r.host.clone()).filter(|h| !h.is_empty()).collect();
    const HOSTS_SHOWN: usize = 3;
    let shown = match hosts.len() {
        0 => "*".to_owned(),
        n if n > HOSTS_SHOWN => {
            format!("{} + {} more...", hosts[..HOSTS_SHOWN].join(","), n - HOSTS_SHOWN)
        }
        _ => hosts.join(","),
    };
    let addresses = balanced(ingress)
        .into_iter()
        .filter_map(|i| i.ip.filter(|ip| !ip.is_empty()).or(i.hostname.filter(|h| !h.is_empty())));
    let addresses = addresses.collect::<Vec<_>>().join(",");
    let ports = if spec.tls.is_some_and(|t| !t.is_empty()) { "80, 443" } else { "80" };
    vec![
        name_cell(&ingress.metadata),
        or_none(class.as_deref()),
        shown.into(),
        addresses.into(),
        ports.into(),
        age_cell(&ingress.metadata),
    ]
}
