//! `scheduling.k8s.io/v1`: names for how important pods are.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Build, Kind};
use crate::columns::{age_cell, name_cell};

pub fn kinds() -> Vec<Kind> {
    let class = Build::<PriorityClass>::new("priorityclasses", false)
        .generation()
        .short(&["pc"])
        .default(|class| {
            class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
        })
        .validate(|class, errors| {
            let system = class.metadata.name.as_deref().is_some_and(|n| n.starts_with("system-"));
            const HIGHEST_USER_VALUE: i32 = 1_000_000_000;
            if !system && class.value.unwrap_or(0) > HIGHEST_USER_VALUE {
                let detail = "maximum allowed value of a user defined priority is 1000000000";
                errors.push(crate::status::FieldError::forbidden("value", detail));
            }
        })
        .validate_update(|new, old, errors| errors.immutable("value", &new.value, &old.value))
        .row(|c| {
            vec![
                name_cell(&c.metadata),
                c.value.unwrap_or(0).into(),
                c.global_default.unwrap_or(false).to_string().into(),
                age_cell(&c.metadata),
                c.preemption_policy.clone().unwrap_or_default().into(),
            ]
        })
        .done();
    vec![class]
}
