//! `IPAddress`: who has an address of the service range. Its name is the address.

use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};
use serde_json::Value;

use crate::columns::name_cell;
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::names::Rule;
use crate::kinds::validate::named;
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<IPAddress>::new("ipaddresses", false)
        .metadata_on_update(&[Whole, Change])
        .short(&["ip"])
        .names(Rule::Address)
        .validate(validate)
        .validate_update(|new, old, errors| {
            let parent = |a: &IPAddress| a.spec.parent_ref.clone();
            let (now, before) = (parent(new), parent(old));
            // One that is not there is nothing, to the original.
            match now == ParentReference::default() {
                true if now != before => errors.push(FieldError::immutable("spec.parentRef", Value::Null)),
                _ => errors.immutable("spec.parentRef", &now, &before),
            }
        })
        .row(row)
        .done()
}

fn validate(address: &IPAddress, errors: &mut Errors) {
    let parent = &address.spec.parent_ref;
    if let Some(group) = parent.group.as_deref().filter(|g| !g.is_empty())
        && let Some(fault) = crate::kinds::names::fault(Rule::Subdomain, group)
    {
        errors.push(FieldError::invalid("spec.parentRef.group", group, fault));
    }
    if parent.resource.is_empty() && parent.name.is_empty() {
        return errors.required("spec.parentRef", true);
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        named(format!("spec.parentRef.{field}"), value, Rule::PathSegment, errors);
    }
    if let Some(namespace) = parent.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        named("spec.parentRef.namespace", namespace, Rule::PathSegment, errors);
    }
}

fn row(address: &IPAddress) -> Vec<Value> {
    let parent = address.spec.parent_ref.clone();
    let mut place = parent.resource;
    if let Some(group) = parent.group.filter(|g| !g.is_empty()) {
        place = format!("{place}.{group}");
    }
    if let Some(namespace) = parent.namespace.filter(|n| !n.is_empty()) {
        place = format!("{place}/{namespace}");
    }
    vec![name_cell(&address.metadata), format!("{place}/{}", parent.name).into()]
}
