//! `ServiceCIDR`: a range that services have their addresses from.

use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;

use crate::columns::{age_cell, name_cell};
use crate::kinds::network::{self, Network};
use crate::kinds::validate::json;
use crate::kinds::{Build, Errors, Kind};
use crate::status::{FieldError, Problem};

pub fn kind() -> Kind {
    Build::<ServiceCIDR>::new("servicecidrs", false)
        .status()
        .rules(|r| r.status_keeps = &["metadata"])
        .validate_create(validate)
        .validate_update(|new, old, errors| {
            let ranges = |c: &ServiceCIDR| c.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
            let (now, before) = (ranges(new), ranges(old));
            if now.len() != before.len() && (before.len(), now.len()) != (1, 2) {
                let given =
                    new.spec.as_ref().map_or(Value::Null, |s| json(&s.cidrs.as_deref().unwrap_or_default()));
                return errors.push(FieldError::immutable("spec.cidrs", given));
            }
            // A second family may come later; what was there stays.
            for (i, (now, before)) in now.iter().zip(&before).enumerate() {
                errors.immutable(format!("spec.cidrs[{i}]"), now, before);
            }
            if now.len() != before.len() {
                validate(new, errors);
            }
        })
        .row(row)
        .done()
}

fn validate(cidr: &ServiceCIDR, errors: &mut Errors) {
    let ranges = cidr.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
    if ranges.is_empty() {
        errors.push(FieldError::required("spec.cidrs", "at least one CIDR required"));
    }
    if ranges.len() > 2 {
        // As the original prints its own type.
        let message = format!("Invalid value: {{\"CIDRs\":{}}}: may only hold up to 2 values", json(&ranges));
        let problem = Problem::Worded("FieldValueInvalid", message);
        return errors.push(FieldError { field: "spec.cidrs".into(), problem });
    }
    for (i, range) in ranges.iter().enumerate() {
        if let Some(fault) = network::fault(range) {
            errors.push(FieldError::invalid(format!("spec.cidrs[{i}]"), range.as_str(), fault));
        }
    }
    if let [one, two] = ranges.as_slice()
        && let (Some(one), Some(two)) = (Network::parse(one), Network::parse(two))
        && one.is_ipv4() == two.is_ipv4()
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid("spec.cidrs", json(&ranges), detail));
    }
}

fn row(cidr: &ServiceCIDR) -> Vec<Value> {
    let ranges = cidr.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
    vec![name_cell(&cidr.metadata), ranges.join(",").into(), age_cell(&cidr.metadata)]
}
