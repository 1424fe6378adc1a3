//! `ComponentStatus`: whether the parts of the control plane live. Old, read only, worked out when asked for.

use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::Value;

use crate::columns::name_cell;
use crate::kinds::{Build, Kind, Storage};

pub fn kind() -> Kind {
    let mut kind = Build::<ComponentStatus>::new("componentstatuses", false)
        .short(&["cs"])
        .deprecated("v1 ComponentStatus is deprecated in v1.19+")
        .verbs(&["get", "list"])
        .row(row)
        .done();
    kind.storage = Storage::Virtual;
    kind
}

fn row(status: &ComponentStatus) -> Vec<Value> {
    let healthy = status.conditions.iter().flatten().find(|c| c.type_ == "Healthy");
    let (shown, message, error) = match healthy {
        Some(c) => (
            if c.status == "True" { "Healthy" } else { "Unhealthy" },
            c.message.clone().unwrap_or_default(),
            c.error.clone().unwrap_or_default(),
        ),
        None => ("Unknown", String::new(), String::new()),
    };
    vec![name_cell(&status.metadata), shown.into(), message.into(), error.into()]
}
