//! What a claim may ask for, alone or in a template.

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration, ExactDeviceRequest,
    OpaqueDeviceConfiguration, ResourceClaimSpec,
};

use crate::kinds::Errors;
use crate::kinds::names::{self, Rule};
use crate::kinds::validate::{named, qualified};
use crate::status::{FieldError, Problem};

/// Requests, constraints, configurations of a claim, and subrequests of a request.
const REQUESTS: usize = 32;
const SUBREQUESTS: usize = 8;
const SELECTORS: usize = 32;

pub fn default(spec: &mut ResourceClaimSpec) {
    let devices = spec.devices.iter_mut().flat_map(|d| d.requests.iter_mut().flatten());
    for request in devices {
        if let Some(exact) = &mut request.exactly {
            settle(&mut exact.allocation_mode, &mut exact.count);
            exact.tolerations.iter_mut().flatten().for_each(default_toleration);
        }
        for sub in request.first_available.iter_mut().flatten() {
            settle(&mut sub.allocation_mode, &mut sub.count);
            sub.tolerations.iter_mut().flatten().for_each(default_toleration);
        }
    }
}

/// One device, unless it says how many.
fn settle(mode: &mut Option<String>, count: &mut Option<i64>) {
    let mode = mode.get_or_insert_with(|| "ExactCount".into());
    if mode == "ExactCount" && count.unwrap_or(0) == 0 {
        *count = Some(1);
    }
}

fn default_toleration(toleration: &mut DeviceToleration) {
    toleration.operator.get_or_insert_with(|| "Equal".into());
}

pub fn check(field: &str, spec: &ResourceClaimSpec, errors: &mut Errors) {
    if let Some(devices) = &spec.devices {
        check_devices(&format!("{field}.devices"), devices, errors);
    }
}

fn too_many(field: String, actual: usize, limit: usize, errors: &mut Errors) {
    if actual > limit {
        errors.push(FieldError { field, problem: Problem::TooMany(actual, limit) });
    }
}

fn check_devices(field: &str, devices: &DeviceClaim, errors: &mut Errors) {
    let requests = devices.requests.as_deref().unwrap_or_default();
    too_many(format!("{field}.requests"), requests.len(), REQUESTS, errors);
    let mut known = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let at = format!("{field}.requests[{i}]");
        if known.contains(&request.name) {
            errors.push(FieldError::duplicate(at.as_str(), request.name.as_str()));
        }
        known.insert(request.name.clone());
        known
            .extend(request.first_available.iter().flatten().map(|s| format!("{}/{}", request.name, s.name)));
        check_request(&at, request, errors);
    }
    let constraints = devices.constraints.as_deref().unwrap_or_default();
    too_many(format!("{field}.constraints"), constraints.len(), REQUESTS, errors);
    for (i, constraint) in constraints.iter().enumerate() {
        check_constraint(&format!("{field}.constraints[{i}]"), constraint, &known, errors);
    }
    let configs = devices.config.as_deref().unwrap_or_default();
    too_many(format!("{field}.config"), configs.len(), REQUESTS, errors);
    for (i, config) in configs.iter().enumerate() {
        let at = format!("{field}.config[{i}]");
        check_references(&format!("{at}.requests"), config.requests.as_deref(), &known, errors);
        check_opaque(&at, config.opaque.as_ref(), errors);
    }
}

pub fn check_references(
    field: &str,
    requests: Option<&[String]>,
    known: &HashSet<String>,
    errors: &mut Errors,
) {
    let requests = requests.unwrap_or_default();
    for (i, request) in requests.iter().enumerate() {
        if requests[..i].contains(request) {
            errors.push(FieldError::duplicate(format!("{field}[{i}]"), request.as_str()));
        }
        check_reference(&format!("{field}[{i}]"), request, known, errors);
    }
}

/// A request of the claim, or one of those that another may be met by.
pub fn check_reference(field: &str, request: &str, known: &HashSet<String>, errors: &mut Errors) {
    if !known.contains(request) {
        let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        errors.push(FieldError::invalid(field, request, detail));
    }
}

/// What a claim's parts may refer to.
pub fn request_names(spec: &ResourceClaimSpec) -> HashSet<String> {
    let requests = spec.devices.iter().flat_map(|d| d.requests.iter().flatten());
    let mut known = HashSet::new();
    for request in requests {
        known.insert(request.name.clone());
        let alternatives = request.first_available.iter().flatten();
        known.extend(alternatives.map(|sub| format!("{}/{}", request.name, sub.name)));
    }
    known
}

fn check_constraint(
    field: &str,
    constraint: &DeviceConstraint,
    known: &HashSet<String>,
    errors: &mut Errors,
) {
    check_references(&format!("{field}.requests"), constraint.requests.as_deref(), known, errors);
    let attribute = constraint.match_attribute.as_deref();
    if attribute.is_none() && constraint.distinct_attribute.is_none() {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.push(FieldError::required(field, detail));
    }
    for (part, name) in
        [("matchAttribute", attribute), ("distinctAttribute", constraint.distinct_attribute.as_deref())]
    {
        if let Some(name) = name {
            check_full_name(&format!("{field}.{part}"), name, errors);
        }
    }
}

pub fn check_opaque(field: &str, opaque: Option<&OpaqueDeviceConfiguration>, errors: &mut Errors) {
    let Some(opaque) = opaque else {
        return errors.push(FieldError::required(format!("{field}.opaque"), ""));
    };
    named(format!("{field}.opaque.driver"), &opaque.driver, Rule::Subdomain, errors);
    let at = format!("{field}.opaque.parameters");
    match &opaque.parameters.0 {
        serde_json::Value::Null => errors.required(at, true),
        serde_json::Value::Object(_) => {}
        _ => errors.push(FieldError::invalid(at, "<value omitted>", "must be a valid JSON object")),
    }
}

fn check_request(field: &str, request: &DeviceRequest, errors: &mut Errors) {
    named(format!("{field}.name"), &request.name, Rule::Label, errors);
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required";
            errors.push(FieldError::required(field, detail));
        }
        (Some(_), false) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(FieldError::invalid(field, serde_json::Value::Null, detail));
        }
        (Some(exact), true) => check_exact(&format!("{field}.exactly"), exact, errors),
        (None, false) => {
            too_many(format!("{field}.firstAvailable"), alternatives.len(), SUBREQUESTS, errors);
            for (i, sub) in alternatives.iter().enumerate() {
                let at = format!("{field}.firstAvailable[{i}]");
                if alternatives[..i].iter().any(|earlier| earlier.name == sub.name) {
                    errors.push(FieldError::duplicate(at.as_str(), sub.name.as_str()));
                }
                named(format!("{at}.name"), &sub.name, Rule::Label, errors);
                check_what(&at, &sub.device_class_name, sub.selectors.as_deref(), errors);
                check_count(&at, sub.allocation_mode.as_deref(), sub.count, errors);
                check_tolerations(&at, sub.tolerations.as_deref(), errors);
            }
        }
    }
}

fn check_exact(field: &str, exact: &ExactDeviceRequest, errors: &mut Errors) {
    check_what(field, &exact.device_class_name, exact.selectors.as_deref(), errors);
    check_count(field, exact.allocation_mode.as_deref(), exact.count, errors);
    check_tolerations(field, exact.tolerations.as_deref(), errors);
}

/// Why a device may be kept from those who do not tolerate it.
pub const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

fn check_tolerations(field: &str, tolerations: Option<&[DeviceToleration]>, errors: &mut Errors) {
    for (i, toleration) in tolerations.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}.tolerations[{i}]");
        if let Some(key) = toleration.key.as_deref().filter(|key| !key.is_empty()) {
            qualified(format!("{at}.key"), key, errors);
        }
        let value = toleration.value.as_deref().unwrap_or_default();
        match toleration.operator.as_deref() {
            Some("Exists") if !value.is_empty() => {
                let detail = "must be empty for operator `Exists`";
                errors.push(FieldError::invalid(format!("{at}.value"), value, detail));
            }
            operator => errors.one_of(format!("{at}.operator"), operator, &["Equal", "Exists"]),
        }
        let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty());
        errors.one_of(format!("{at}.effect"), effect, EFFECTS);
    }
}

/// A name of a domain's own: `example.com/name`.
pub fn check_full_name(field: &str, name: &str, errors: &mut Errors) {
    let Some((domain, id)) = name.split_once('/') else {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        return errors.push(FieldError::invalid(field, name, detail));
    };
    check_qualified_name(field, Some(domain), id, errors);
}

/// An identifier, which may have a domain before it.
pub fn check_qualified_name(field: &str, domain: Option<&str>, id: &str, errors: &mut Errors) {
    const LIMIT: usize = 32;
    if let Some(domain) = domain {
        named(field, domain, Rule::Subdomain, errors);
    }
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    let holds = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if id.len() > LIMIT {
        errors.push(FieldError { field: field.into(), problem: Problem::TooLong(LIMIT) });
    }
    if !(id.starts_with(starts) && id.bytes().all(holds)) {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters \
                      or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(field, id, detail));
    }
}

fn check_what(field: &str, class: &str, selectors: Option<&[DeviceSelector]>, errors: &mut Errors) {
    named(format!("{field}.deviceClassName"), class, Rule::Subdomain, errors);
    check_selectors(&format!("{field}.selectors"), selectors, errors);
}

pub fn check_selectors(field: &str, selectors: Option<&[DeviceSelector]>, errors: &mut Errors) {
    let selectors = selectors.unwrap_or_default();
    too_many(field.to_owned(), selectors.len(), SELECTORS, errors);
    for (i, selector) in selectors.iter().enumerate() {
        match &selector.cel {
            None => errors.push(FieldError::required(format!("{field}[{i}].cel"), "")),
            Some(cel) => check_expression(&format!("{field}[{i}].cel.expression"), &cel.expression, errors),
        }
    }
}

/// What cannot be read as an expression at all; what a device has is known to its driver alone.
fn check_expression(field: &str, source: &str, errors: &mut Errors) {
    let env = cel::Env::default().variable("device", cel::Type::Dyn);
    let Err(issues) = cel::Program::compile(&env, source) else { return };
    let issues = issues.to_string();
    if issues.contains("Syntax error") {
        let detail = format!("compilation failed: {issues}");
        errors.push(FieldError::invalid(field, source, detail));
    }
}

fn check_count(field: &str, mode: Option<&str>, count: Option<i64>, errors: &mut Errors) {
    match (mode, count.unwrap_or(0)) {
        (Some("ExactCount"), count) if count <= 0 => {
            errors.push(FieldError::invalid(format!("{field}.count"), count, "must be greater than zero"));
        }
        (Some("All"), count) if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(format!("{field}.count"), count, detail));
        }
        (Some("ExactCount" | "All"), _) => {}
        (other, _) => errors.one_of(format!("{field}.allocationMode"), other, &["All", "ExactCount"]),
    }
}

/// A driver's name, as other places of the group hold it.
pub fn check_driver(field: &str, driver: &str, errors: &mut Errors) {
    const LIMIT: usize = 63;
    if driver.is_empty() {
        return errors.required(field, true);
    }
    if driver.len() > LIMIT {
        errors.push(FieldError { field: field.into(), problem: Problem::TooLong(LIMIT) });
    }
    if let Some(fault) = names::fault(Rule::Subdomain, driver) {
        errors.push(FieldError::invalid(field, driver, fault));
    }
}
