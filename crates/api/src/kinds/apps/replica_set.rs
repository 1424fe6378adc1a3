//! `ReplicaSet`: a number of equal pods.

use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;

use super::{Wording, check_counts, check_workload, wide_cells, workload_warnings};
use crate::columns::{age_cell, name_cell};
use crate::kinds::core::pod_default_template;
use crate::kinds::{Build, Kind};

pub fn kind() -> Kind {
    Build::<ReplicaSet>::new("replicasets", true)
        .short(&["rs"])
        .in_all()
        .status()
        .generation()
        .scale()
        .default(|set| {
            if let Some(spec) = &mut set.spec {
                spec.replicas.get_or_insert(1);
                spec.template.iter_mut().for_each(pod_default_template);
            }
        })
        .warnings(|set| {
            let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
            workload_warnings(&set.metadata, true, template)
        })
        .validate(|set, errors| {
            let spec = set.spec.clone().unwrap_or_default();
            let template = spec.template.unwrap_or_default();
            errors.not_negative("spec.minReadySeconds", spec.min_ready_seconds.map(i64::from));
            let wording = Wording {
                selector_required: true,
                shows_faulty_selector: Some(": invalid label selector"),
                owner: "ReplicaSet",
            };
            check_workload(&wording, &spec.selector, &template, spec.replicas, errors);
        })
        .validate_update(|new, old, errors| {
            let selector = |s: &ReplicaSet| {
                s.spec.as_ref().map(|s| s.selector.clone()).filter(|s| *s != Default::default())
            };
            errors.immutable("spec.selector", &selector(new), &selector(old));
        })
        .validate_status(|new, _, errors| {
            let status = new.status.clone().unwrap_or_default();
            let counts = [
                ("replicas", Some(i64::from(status.replicas))),
                ("fullyLabeledReplicas", status.fully_labeled_replicas.map(i64::from)),
                ("readyReplicas", status.ready_replicas.map(i64::from)),
                ("availableReplicas", status.available_replicas.map(i64::from)),
                ("observedGeneration", status.observed_generation),
                ("terminatingReplicas", status.terminating_replicas.map(i64::from)),
            ];
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            check_counts(&counts, &parts, "readyReplicas", errors);
        })
        .row(row)
        .done()
}

fn row(set: &ReplicaSet) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let [containers, images, selector] = wide_cells(&spec.template.unwrap_or_default(), &spec.selector);
    vec![
        name_cell(&set.metadata),
        spec.replicas.unwrap_or(0).into(),
        status.replicas.into(),
        status.ready_replicas.unwrap_or(0).into(),
        age_cell(&set.metadata),
        containers,
        images,
        selector,
    ]
}
