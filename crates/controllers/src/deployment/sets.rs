//! The ReplicaSets of a Deployment: which is the new one, how one is made, and what a Deployment notes on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::constants::{annotations, labels};
use base::id::short_hash;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::limits::Limits;
use crate::meta;

pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";

/// Annotations that belong to one object and are not passed on from a Deployment to its sets.
const OWN: [&str; 5] = [
    annotations::LAST_APPLIED,
    annotations::DEPLOYMENT_REVISION,
    REVISION_HISTORY,
    annotations::DESIRED_REPLICAS,
    annotations::MAX_REPLICAS,
];

/// A set as it is, and as the plan wants it.
#[derive(Clone, Debug)]
pub struct Set {
    pub seen: Arc<ReplicaSet>,
    pub wanted: ReplicaSet,
}

impl Set {
    pub fn new(seen: Arc<ReplicaSet>) -> Self {
        Self { wanted: (*seen).clone(), seen }
    }

    pub fn name(&self) -> &str {
        meta::name(&self.seen.metadata)
    }

    /// Pods asked for, by the plan so far.
    pub fn size(&self) -> i32 {
        size(&self.wanted)
    }

    pub fn available(&self) -> i32 {
        self.seen.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    pub fn ready(&self) -> i32 {
        self.seen.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
    }

    /// Pods there are.
    pub fn pods(&self) -> i32 {
        self.seen.status.as_ref().map_or(0, |s| s.replicas)
    }

    pub fn revision(&self) -> i64 {
        revision(&self.wanted.metadata)
    }

    pub fn resize(&mut self, size: i32, limits: &Limits) {
        self.wanted.spec.get_or_insert_default().replicas = Some(size);
        note_limits(&mut self.wanted.metadata, limits);
    }
}

pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub fn revision(meta: &ObjectMeta) -> i64 {
    meta::annotation(meta, annotations::DEPLOYMENT_REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub fn noted(meta: &ObjectMeta, key: &str) -> Option<i32> {
    meta::annotation(meta, key)?.parse().ok()
}

/// Notes on a set what it is a part of, so that it can later be told whether the Deployment was scaled since.
pub fn note_limits(meta: &mut ObjectMeta, limits: &Limits) {
    let notes = meta.annotations.get_or_insert_default();
    notes.insert(annotations::DESIRED_REPLICAS.into(), limits.desired.to_string());
    notes.insert(annotations::MAX_REPLICAS.into(), limits.total().to_string());
}

/// Equal but for the label that a Deployment itself adds.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(labels::POD_TEMPLATE_HASH);
        }
        let empty = |map: Option<BTreeMap<String, String>>| map.filter(|m| !m.is_empty());
        (empty(meta.labels), empty(meta.annotations))
    };
    without(a) == without(b) && a.spec == b.spec
}

/// Splits a Deployment's sets into the one with its template (the oldest, if by accident there are two) and the
/// rest, oldest first.
pub fn split(spec: &DeploymentSpec, mut sets: Vec<Set>) -> (Option<Set>, Vec<Set>) {
    sets.sort_by_key(|set| (meta::created(&set.seen.metadata), set.name().to_owned()));
    let is_new = |set: &Set| {
        let template = set.seen.spec.as_ref().and_then(|s| s.template.as_ref());
        template.is_some_and(|template| same_template(template, &spec.template))
    };
    let at = sets.iter().position(is_new);
    let new = at.map(|at| sets.remove(at));
    (new, sets)
}

/// The set for the current template. Its name follows from the template, so that making it twice makes one.
pub fn new_set(deployment: &Deployment, spec: &DeploymentSpec, revision: i64) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let labelled = |labels: Option<BTreeMap<String, String>>| {
        let mut labels = labels.unwrap_or_default();
        labels.insert(labels::POD_TEMPLATE_HASH.into(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template.clone();
    let template_meta = template.metadata.get_or_insert_default();
    template_meta.labels = labelled(template_meta.labels.take());
    let mut selector = spec.selector.clone();
    selector.match_labels = labelled(selector.match_labels.take());
    let mut notes = passed_on(deployment);
    notes.insert(annotations::DEPLOYMENT_REVISION.into(), revision.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta::name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: template_meta.labels.clone(),
            annotations: Some(notes),
            owner_references: Some(vec![meta::controller_ref(deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    // Types of ours always have a JSON form.
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if collisions > 0 {
        bytes.extend(collisions.to_le_bytes());
    }
    short_hash(&bytes)
}

fn passed_on(deployment: &Deployment) -> BTreeMap<String, String> {
    let all = deployment.metadata.annotations.iter().flatten();
    all.filter(|(key, _)| !OWN.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Brings the notes of a set that has become (or still is) the new one up to date. An old set that comes back takes
/// the next revision and keeps its former ones as history.
pub fn refresh(set: &mut Set, deployment: &Deployment, spec: &DeploymentSpec, next_revision: i64) {
    let former = set.revision();
    let notes = set.wanted.metadata.annotations.get_or_insert_default();
    notes.extend(passed_on(deployment));
    if former < next_revision {
        notes.insert(annotations::DEPLOYMENT_REVISION.into(), next_revision.to_string());
        if former > 0 {
            let history = notes.entry(REVISION_HISTORY.into()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&former.to_string());
        }
    }
    set.wanted.spec.get_or_insert_default().min_ready_seconds = spec.min_ready_seconds;
}
