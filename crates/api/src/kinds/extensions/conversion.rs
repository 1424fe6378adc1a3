//! How objects of one version become those of another.

use std::collections::HashSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition,
};

use super::stored::is_established;
use crate::kinds::admission::check_place;
use crate::kinds::validate::json;
use crate::kinds::{Errors, names};
use crate::status::FieldError;

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const CLIENT: &str = "spec.conversion.webhookClientConfig";
const VERSIONS: &str = "spec.conversion.conversionReviewVersions";

pub fn check(given: &CustomResourceConversion, errors: &mut Errors) {
    let webhook = given.webhook.as_ref();
    let versions = webhook.map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default();
    match given.strategy.as_str() {
        "" => errors.required("spec.conversion.strategy", true),
        strategy => errors.one_of("spec.conversion.strategy", Some(strategy), &["None", "Webhook"]),
    }
    if given.strategy == "Webhook" {
        match webhook.and_then(|w| w.client_config.as_ref()) {
            None => errors.push(FieldError::required(CLIENT, "required when strategy is set to Webhook")),
            Some(client) => {
                let service = client.service.as_ref();
                let service =
                    service.map(|s| (s.name.as_str(), s.namespace.as_str(), s.path.as_deref(), s.port));
                check_place(CLIENT, client.url.as_deref(), service, errors);
            }
        }
        return review_versions(versions, errors);
    }
    let detail = "should not be set when strategy is not set to Webhook";
    if webhook.is_some_and(|w| w.client_config.is_some()) {
        errors.push(FieldError::forbidden(CLIENT, detail));
    }
    if !versions.is_empty() {
        errors.push(FieldError::forbidden(VERSIONS, detail));
    }
}

/// Once a definition is served, what vouches for its webhook can be read; what could not be before may stay.
pub fn bundle(given: &CustomResourceConversion, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    let of = |conversion: &CustomResourceConversion| {
        let bundle = conversion.webhook.as_ref()?.client_config.as_ref()?.ca_bundle.clone()?;
        (!bundle.0.is_empty()).then_some(bundle)
    };
    let Some(old) = old.filter(|old| is_established(old)) else { return };
    let before = old.spec.conversion.as_ref().and_then(of);
    let Some(bundle) = of(given).filter(|_| given.strategy == "Webhook") else { return };
    if is_readable(&bundle.0) || before.is_some_and(|before| !is_readable(&before.0)) {
        return;
    }
    let detail = "unable to load root certificates: unable to parse bytes as PEM block";
    errors.push(FieldError::invalid(format!("{CLIENT}.caBundle"), json(&bundle), detail));
}

fn is_readable(bundle: &[u8]) -> bool {
    let blocks = x509_parser::pem::Pem::iter_from_buffer(bundle);
    blocks.flatten().any(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok())
}

fn review_versions(versions: &[String], errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(VERSIONS, true);
    }
    let mut seen = HashSet::new();
    for (i, version) in versions.iter().enumerate() {
        let at = format!("{VERSIONS}[{i}]");
        if !seen.insert(version) {
            errors.push(FieldError::invalid(at, version.as_str(), "duplicate version"));
        } else if let Some(fault) = names::fault(names::Rule::Label1035, version) {
            errors.push(FieldError::invalid(at, version.as_str(), fault));
        }
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(VERSIONS, json(&versions), detail));
    }
}
