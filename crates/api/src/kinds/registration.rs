//! `apiregistration.k8s.io/v1`: which server answers for a group and version.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceStatus,
};
use serde_json::Value;

use super::names::Rule;
use super::validate::named;
use super::{Build, Errors, Kind};
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::status::FieldError;

pub fn kinds() -> Vec<Kind> {
    let service = Build::<APIService>::new("apiservices", false)
        .metadata_on_update(&[Change, Whole])
        .rules(|r| r.update_needs_version = true)
        .rules(|r| r.any_finalizer = true)
        .category("api-extensions")
        .prefix("/registry/apiregistration.k8s.io/apiservices")
        .names(Rule::PathSegment)
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .default(|service| {
            let reference = service.spec.as_mut().and_then(|s| s.service.as_mut());
            if let Some(reference) = reference {
                reference.port.get_or_insert(443);
            }
        })
        .prepare_create(born)
        .validate(validate)
        .validate_status(|new, _, errors| {
            let conditions = new.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            for (i, condition) in conditions.iter().enumerate() {
                let at = format!("status.conditions[{i}].status");
                errors.one_of(at, Some(&condition.status), &["True", "False", "Unknown"]);
            }
        })
        .row(row)
        .done();
    vec![service]
}

/// Nobody has to look whether this server answers for itself.
fn born(service: &mut APIService) {
    let local = service.spec.as_ref().is_none_or(|spec| spec.service.is_none());
    let condition = APIServiceCondition {
        type_: "Available".into(),
        status: "True".into(),
        reason: Some("Local".into()),
        message: Some("Local APIServices are always available".into()),
        last_transition_time: Some(Time(base::time::now())),
    };
    service.status = Some(APIServiceStatus { conditions: local.then(|| vec![condition]) });
}

fn validate(service: &APIService, errors: &mut Errors) {
    let spec = service.spec.clone().unwrap_or_default();
    let (group, version) = (spec.group.unwrap_or_default(), spec.version.unwrap_or_default());
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let expected = format!("{version}.{group}");
    let local = spec.service.is_none();
    // That there is none is said of all kinds.
    if name != expected && !name.is_empty() {
        let detail = "must be `spec.version+\".\"+spec.group`: ".to_owned() + &format!("{expected:?}");
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
    if group.is_empty() {
        if version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", detail));
        }
    } else {
        named("spec.group", &group, Rule::Subdomain, errors);
    }
    if let Some(fault) = super::names::fault(Rule::Label1035, &version) {
        errors.push(FieldError::invalid("spec.version", version.as_str(), fault));
    }
    if !(1..=20_000).contains(&spec.group_priority_minimum) {
        let detail = "must be positive and less than 20000";
        errors.push(FieldError::invalid("spec.groupPriorityMinimum", spec.group_priority_minimum, detail));
    }
    if !(1..=1000).contains(&spec.version_priority) {
        let detail = "must be positive and less than 1000";
        errors.push(FieldError::invalid("spec.versionPriority", spec.version_priority, detail));
    }
    let bundle = spec.ca_bundle.map_or(0, |b| b.0.len());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    if local {
        if bundle > 0 {
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid("spec.caBundle", format!("{bundle} bytes"), detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, detail));
        }
        return;
    }
    let reference = spec.service.unwrap_or_default();
    errors.required("spec.service.namespace", super::validate::is_empty(reference.namespace.as_deref()));
    errors.required("spec.service.name", super::validate::is_empty(reference.name.as_deref()));
    if let Some(port) = reference.port.filter(|port| !(1..=65_535).contains(port)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid("spec.service.port", port, detail));
    }
    if insecure && bundle > 0 {
        let detail = "may not be true if caBundle is present";
        errors.push(FieldError::invalid("spec.insecureSkipTLSVerify", true, detail));
    }
}

fn row(service: &APIService) -> Vec<Value> {
    let reference = service.spec.as_ref().and_then(|s| s.service.clone());
    let place = reference.map_or_else(
        || "Local".to_owned(),
        |r| format!("{}/{}", r.namespace.unwrap_or_default(), r.name.unwrap_or_default()),
    );
    let conditions = service.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let available = match conditions.into_iter().find(|c| c.type_ == "Available") {
        None => "Unknown".to_owned(),
        Some(c) if c.status == "True" => c.status,
        Some(c) => format!("{} ({})", c.status, c.reason.unwrap_or_default()),
    };
    vec![name_cell(&service.metadata), place.into(), available.into(), age_cell(&service.metadata)]
}
