//! `scheduling.k8s.io/v1`: names for how important pods are.

use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Build, Kind};
use crate::columns::{age_cell, name_cell};

pub fn kinds() -> Vec<Kind> {
    let class = Build::<PriorityClass>::new("priorityclasses", false)
        .generation()
        .rules(|r| r.one_generation = true)
        .short(&["pc"])
        .default(|class| {
            class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
        })
        .validate_create(|class, errors| {
            let name = class.metadata.name.as_deref().unwrap_or_default();
            let known = matches!(name, "system-node-critical" | "system-cluster-critical");
            let system = name.starts_with("system-");
            if system && !known {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known \
                     system priority class"
                );
                errors.push(crate::status::FieldError::forbidden("metadata.name", detail));
            }
            const SYSTEM: &[(&str, i32)] =
                &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
            let wanted = SYSTEM.iter().find(|(known, _)| *known == name);
            if let Some((_, wanted)) = wanted.filter(|(_, wanted)| class.value != Some(*wanted)) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: value of {name} \
                     PriorityClass must be {wanted}"
                );
                errors.push(crate::status::FieldError::forbidden("metadata.name", detail));
            }
            const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
            errors.one_of("preemptionPolicy", class.preemption_policy.as_deref(), POLICIES);
            const HIGHEST_USER_VALUE: i32 = 1_000_000_000;
            if !system && class.value.unwrap_or(0) > HIGHEST_USER_VALUE {
                let detail = "maximum allowed value of a user defined priority is 1000000000";
                errors.push(crate::status::FieldError::forbidden("value", detail));
            }
        })
        .validate_update(|new, old, errors| {
            if new.value != old.value {
                let detail = "may not be changed in an update.";
                errors.push(crate::status::FieldError::forbidden("value", detail));
            }
            errors.immutable("preemptionPolicy", &new.preemption_policy, &old.preemption_policy);
        })
        .row(|c| {
            vec![
                name_cell(&c.metadata),
                c.value.unwrap_or(0).into(),
                c.global_default.unwrap_or(false).into(),
                age_cell(&c.metadata),
                c.preemption_policy.clone().unwrap_or_default().into(),
            ]
        })
        .done();
    vec![class]
}
