//! `certificates.k8s.io/v1`: certificates asked for, approved and signed.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::validate::json;
use super::{Build, Errors, Kind, Part, names};
use crate::columns::{age_cell, name_cell};
use crate::csr::LEGACY;
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::status::FieldError;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const SHORTEST_SECONDS: i32 = 600;
const APPROVAL: Part =
    Part { name: "approval", paths: &["status.conditions", "metadata.labels", "metadata.annotations"] };
const DECIDED: &[&str] = &["Approved", "Denied", "Failed"];

pub fn kinds() -> Vec<Kind> {
    let request = Build::<CertificateSigningRequest>::new("certificatesigningrequests", false)
        .metadata_on_update(&[Whole, Change])
        .metadata_on_status(&[Whole, Change])
        .short(&["csr"])
        .rules(|r| {
            r.spec_names_requester = true;
            r.no_namespace_field = true;
            r.disowns = &["spec"];
            r.status_disowns = &["status.conditions"];
        })
        .part(&APPROVAL, |new, old, errors| {
            set_times(new, old);
            validate_status(new, old, errors);
        })
        .status()
        .prepare_update(|new, old| new.spec = old.spec.clone())
        .validate(|r, errors| validate(&r.spec, errors))
        .validate_create(|r, errors| refuse_legacy(&r.spec, errors))
        .prepare_status(set_times)
        .validate_status(|new, old, errors| {
            validate_status(new, old, errors);
            let has = |r: &CertificateSigningRequest, kind: &str| {
                r.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == kind)
            };
            for kind in ["Approved", "Denied"].into_iter().filter(|kind| has(new, kind) && !has(old, kind)) {
                let detail = format!("updates may not add a condition of type {kind:?}");
                errors.push(FieldError::forbidden("status.conditions", detail));
            }
            check_certificate(new, errors);
        })
        .row(row)
        .fields(&["spec.signerName"], |r| vec![("spec.signerName", r.spec.signer_name.clone())])
        .done();
    vec![request]
}

fn validate(spec: &CertificateSigningRequestSpec, errors: &mut Errors) {
    let text = String::from_utf8_lossy(&spec.request.0).into_owned();
    if !(text.contains("-----BEGIN CERTIFICATE REQUEST-----")) {
        let shown = if spec.request.0.is_empty() { Value::Null } else { json(&spec.request) };
        errors.push(FieldError::invalid("spec.request", shown, "PEM block type must be CERTIFICATE REQUEST"));
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    errors.required("spec.usages", usages.is_empty());
    let mut seen = HashSet::new();
    for (i, usage) in usages.iter().enumerate() {
        errors.one_of(format!("spec.usages[{i}]"), Some(usage), USAGES);
        if !seen.insert(usage) {
            errors.push(FieldError::duplicate(format!("spec.usages[{i}]"), usage.as_str()));
        }
    }
    check_signer("spec.signerName", &spec.signer_name, errors);
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < SHORTEST_SECONDS) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", seconds, detail));
    }
}

/// Those that are there stay.
fn refuse_legacy(spec: &CertificateSigningRequestSpec, errors: &mut Errors) {
    if spec.signer_name == LEGACY {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid("spec.signerName", LEGACY, detail));
    }
}

/// `domain/path`.
fn check_signer(field: &str, signer: &str, errors: &mut Errors) {
    if signer.is_empty() {
        return errors.required(field, true);
    }
    let parts: Vec<&str> = signer.split('/').collect();
    let [domain, path] = parts.as_slice() else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(field, signer, detail));
    };
    for label in domain.split('.') {
        if let Some(fault) = names::fault(names::Rule::Label, label) {
            errors.push(FieldError::invalid(field, *domain, format!("validating label {label:?}: {fault}")));
        }
    }
    for label in path.split('.') {
        if let Some(fault) = names::fault(names::Rule::Subdomain, label) {
            errors.push(FieldError::invalid(field, *path, format!("validating label {label:?}: {fault}")));
        }
    }
    if domain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(field, *domain, detail));
    }
}

/// When a condition was set, and since when it has been as it is.
fn set_times(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    let now = Time(base::time::now());
    // Of several old ones alike the first counts.
    let before = old.status.iter().flat_map(|s| s.conditions.iter().flatten().rev());
    let before: HashMap<_, _> = before.map(|c| ((c.type_.as_str(), c.status.as_str()), c)).collect();
    for condition in new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        condition.last_update_time.get_or_insert_with(|| now.clone());
        let held = before.get(&(condition.type_.as_str(), condition.status.as_str()));
        let since = held.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| now.clone());
        condition.last_transition_time.get_or_insert(since);
    }
}

fn validate_status(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut Errors) {
    let of = |r: &CertificateSigningRequest| {
        r.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default()
    };
    let (conditions, before) = (of(new), of(old));
    let mut seen = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let field = format!("status.conditions[{i}]");
        errors.required(format!("{field}.type"), condition.type_.is_empty());
        match condition.status.as_str() {
            "" => errors.required(format!("{field}.status"), true),
            "True" => {}
            status if DECIDED.contains(&condition.type_.as_str()) => {
                errors.push(FieldError::not_supported(format!("{field}.status"), status, &["True"]));
            }
            status => errors.one_of(format!("{field}.status"), Some(status), &["False", "True", "Unknown"]),
        }
        if !seen.insert(condition.type_.as_str()) {
            errors.push(FieldError::duplicate(format!("{field}.type"), condition.type_.as_str()));
        }
    }
    let has = |kind: &str| conditions.iter().any(|c| c.type_ == kind);
    if has("Approved") && has("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid("status.conditions", "Denied", detail));
    }
    for kind in DECIDED {
        if before.iter().any(|c| c.type_ == *kind) && !has(kind) {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", detail));
        }
    }
    let certificate =
        |r: &CertificateSigningRequest| r.status.as_ref().and_then(|s| s.certificate.clone()).map(|c| c.0);
    let held = certificate(old).filter(|c| !c.is_empty());
    if held.is_some() && held != certificate(new) {
        let detail = "updates may not change set certificate";
        errors.push(FieldError::forbidden("status.certificate", detail));
    }
}

/// Blocks of certificates and nothing else.
fn check_certificate(request: &CertificateSigningRequest, errors: &mut Errors) {
    let certificate = request.status.as_ref().and_then(|s| s.certificate.as_ref());
    let Some(bytes) = certificate.map(|c| &c.0).filter(|bytes| !bytes.is_empty()) else { return };
    let text = String::from_utf8_lossy(bytes);
    let kinds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----"))
        .collect();
    let fault = match kinds.iter().find(|kind| **kind != "CERTIFICATE") {
        _ if kinds.is_empty() => Some("must contain at least one CERTIFICATE PEM block".to_owned()),
        Some(kind) => Some(format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}")),
        None => None,
    };
    if let Some(detail) = fault {
        errors.push(FieldError::invalid("status.certificate", "<certificate data>", detail));
    }
}

fn row(request: &CertificateSigningRequest) -> Vec<Value> {
    let status = request.status.clone().unwrap_or_default();
    let has = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind);
    let mut shown = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        shown.push_str(",Failed");
    }
    if status.certificate.is_some_and(|c| !c.0.is_empty()) {
        shown.push_str(",Issued");
    }
    let spec = &request.spec;
    let duration = spec.expiration_seconds.map(|s| base::time::human_age(i64::from(s)));
    let signer = if spec.signer_name.is_empty() { "<none>" } else { &spec.signer_name };
    vec![
        name_cell(&request.metadata),
        age_cell(&request.metadata),
        signer.into(),
        spec.username.clone().unwrap_or_default().into(),
        duration.unwrap_or_else(|| "<none>".into()).into(),
        shown.into(),
    ]
}
