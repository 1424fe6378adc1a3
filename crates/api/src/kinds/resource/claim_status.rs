//! What the status of a claim may say: which devices it was given, who uses them, and what their drivers say of them.

use std::collections::HashSet;

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaim, ResourceClaimStatus,
};

use super::claims::{check_driver, check_opaque, request_names};
use crate::kinds::Errors;
use crate::kinds::core::check_node_selector;
use crate::kinds::names::{self, Rule};
use crate::kinds::network::Network;
use crate::kinds::validate::{conditions, json};
use crate::status::{FieldError, Problem};

/// Who may use a claim at once.
const USERS: usize = 256;

pub fn check(new: &ResourceClaim, old: &ResourceClaim, errors: &mut Errors) {
    let status = |claim: &ResourceClaim| claim.status.clone().unwrap_or_default();
    let (now, before) = (status(new), status(old));
    check_users(&now, errors);
    check_devices(&now, errors);
    let users = |status: &ResourceClaimStatus| status.reserved_for.clone().unwrap_or_default();
    let reserved = users(&now);
    if !reserved.is_empty() && now.allocation.is_none() {
        let detail = "may not be specified when `allocated` is not set";
        errors.push(FieldError::forbidden("status.reservedFor", detail));
    } else if new.metadata.deletion_timestamp.is_some()
        && reserved.iter().any(|user| !users(&before).contains(user))
    {
        let detail =
            "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.push(FieldError::forbidden("status.reservedFor", detail));
    }
    match (&now.allocation, &before.allocation) {
        (Some(given), Some(held)) => errors.immutable("status.allocation", given, held),
        (Some(given), None) => {
            check_allocation("status.allocation", given, &request_names(&new.spec), errors)
        }
        _ => {}
    }
}

fn check_users(status: &ResourceClaimStatus, errors: &mut Errors) {
    let users = status.reserved_for.as_deref().unwrap_or_default();
    if users.len() > USERS {
        let problem = Problem::TooMany(users.len(), USERS);
        errors.push(FieldError { field: "status.reservedFor".into(), problem });
    }
    let mut seen = HashSet::new();
    for (i, user) in users.iter().enumerate() {
        let field = format!("status.reservedFor[{i}]");
        if !seen.insert(user.uid.as_str()) {
            errors.push(FieldError::duplicate(field.as_str(), user.uid.as_str()));
        }
        errors.required(format!("{field}.resource"), user.resource.is_empty());
        errors.required(format!("{field}.name"), user.name.is_empty());
        errors.required(format!("{field}.uid"), user.uid.is_empty());
    }
}

/// A device by its driver, its pool and its name there, and which share of it.
type Device<'a> = (&'a str, &'a str, &'a str, &'a str);

/// As the original prints its own type.
fn shown(device: Device<'_>) -> String {
    let (driver, pool, device, share) = device;
    format!("{{\"Driver\":{driver:?},\"Pool\":{pool:?},\"Device\":{device:?},\"ShareID\":{share:?}}}")
}

fn check_devices(status: &ResourceClaimStatus, errors: &mut Errors) {
    let results =
        status.allocation.iter().flat_map(|a| a.devices.iter()).flat_map(|d| d.results.iter().flatten());
    let given: HashSet<Device<'_>> = results
        .map(|r| (&*r.driver, &*r.pool, &*r.device, r.share_id.as_deref().unwrap_or_default()))
        .collect();
    let mut seen = HashSet::new();
    for (i, device) in status.devices.iter().flatten().enumerate() {
        let field = format!("status.devices[{i}]");
        let share = device.share_id.as_deref().unwrap_or_default();
        let this: Device<'_> = (&device.driver, &device.pool, &device.device, share);
        if !seen.insert(this) {
            let problem = Problem::Worded("FieldValueDuplicate", format!("Duplicate value: {}", shown(this)));
            errors.push(FieldError { field: field.clone(), problem });
        }
        check_device(&field, device, errors);
        if !given.contains(&this) {
            let message = format!("Invalid value: {}: must be an allocated device in the claim", shown(this));
            let problem = Problem::Worded("FieldValueInvalid", message);
            errors.push(FieldError { field: field.clone(), problem });
        }
        conditions(&format!("{field}.conditions"), device.conditions.as_deref().unwrap_or_default(), errors);
        if let Some(network) = &device.network_data {
            check_network(&format!("{field}.networkData"), network, errors);
        }
    }
}

fn check_device(field: &str, device: &AllocatedDeviceStatus, errors: &mut Errors) {
    check_driver(&format!("{field}.driver"), &device.driver, errors);
    check_pool(&format!("{field}.pool"), &device.pool, errors);
    check_name(&format!("{field}.device"), &device.device, errors);
}

/// Names of domains, parted by slashes.
pub fn check_pool(field: &str, pool: &str, errors: &mut Errors) {
    if pool.is_empty() {
        return errors.required(field, true);
    }
    for part in pool.split('/') {
        if let Some(fault) = names::fault(Rule::Subdomain, part) {
            errors.push(FieldError::invalid(field, part, fault));
        }
    }
}

pub fn check_name(field: &str, name: &str, errors: &mut Errors) {
    if let Some(fault) = names::fault(Rule::Label, name) {
        errors.push(FieldError::invalid(field, name, fault));
    }
}

fn check_network(field: &str, network: &NetworkDeviceData, errors: &mut Errors) {
    let ips = network.ips.as_deref().unwrap_or_default();
    for (i, ip) in ips.iter().enumerate() {
        let at = format!("{field}.ips[{i}]");
        if ips[..i].contains(ip) {
            errors.push(FieldError::duplicate(at.as_str(), ip.as_str()));
        }
        if Network::parse(ip).is_none() {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.push(FieldError::invalid(at, ip.as_str(), detail));
        }
    }
}

fn check_allocation(field: &str, given: &AllocationResult, known: &HashSet<String>, errors: &mut Errors) {
    let devices = given.devices.clone().unwrap_or_default();
    for (i, result) in devices.results.iter().flatten().enumerate() {
        check_result(&format!("{field}.devices.results[{i}]"), result, known, errors);
    }
    for (i, config) in devices.config.iter().flatten().enumerate() {
        check_config(&format!("{field}.devices.config[{i}]"), config, known, errors);
    }
    if let Some(selector) = &given.node_selector {
        check_node_selector(&format!("{field}.nodeSelector"), selector, errors);
    }
}

fn check_result(
    field: &str,
    result: &DeviceRequestAllocationResult,
    known: &HashSet<String>,
    errors: &mut Errors,
) {
    super::claims::check_reference(&format!("{field}.request"), &result.request, known, errors);
    check_driver(&format!("{field}.driver"), &result.driver, errors);
    check_pool(&format!("{field}.pool"), &result.pool, errors);
    check_name(&format!("{field}.device"), &result.device, errors);
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let (met, failed) = (&result.binding_conditions, &result.binding_failure_conditions);
    if given(met) && !given(failed) {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        let at = format!("{field}.bindingFailureConditions");
        errors.push(FieldError::invalid(at, json(failed), detail));
    }
    if given(failed) && !given(met) {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.push(FieldError::invalid(format!("{field}.bindingConditions"), json(met), detail));
    }
    if let Some(share) = result.share_id.as_deref().filter(|share| share.len() != UUID_LENGTH) {
        let detail = format!("error validating uid: invalid UUID length: {}", share.len());
        errors.push(FieldError::invalid(format!("{field}.shareID"), share, detail));
    }
}

const UUID_LENGTH: usize = 36;

fn check_config(
    field: &str,
    config: &DeviceAllocationConfiguration,
    known: &HashSet<String>,
    errors: &mut Errors,
) {
    let at = format!("{field}.source");
    match config.source.as_str() {
        "" => errors.required(at, true),
        source => errors.one_of(at, Some(source), &["FromClaim", "FromClass"]),
    }
    super::claims::check_references(&format!("{field}.requests"), config.requests.as_deref(), known, errors);
    check_opaque(field, config.opaque.as_ref(), errors);
}
