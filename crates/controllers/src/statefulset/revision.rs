//! Revisions of a StatefulSet: its template as it was at each change, kept in ControllerRevisions in the form that
//! `kubectl rollout undo` patches back.

use std::sync::Arc;

use base::constants::labels;
use base::id::short_hash;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::meta;

const DEFAULT_HISTORY: i32 = 10;

/// The revision for the current template, and what must be written for it to exist.
#[derive(Debug)]
pub enum Latest {
    Known(Arc<ControllerRevision>),
    /// An old one that comes back: it becomes the newest.
    Renumber(ControllerRevision),
    Create(ControllerRevision),
}

impl Latest {
    pub fn revision(&self) -> &ControllerRevision {
        match self {
            Self::Known(revision) => revision,
            Self::Renumber(revision) | Self::Create(revision) => revision,
        }
    }
}

fn data(template: &PodTemplateSpec) -> Value {
    // Types of ours always have a JSON form.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision holds.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

pub fn latest(set: &StatefulSet, template: &PodTemplateSpec, all: &[Arc<ControllerRevision>]) -> Latest {
    let data = data(template);
    let newest = all.iter().map(|r| r.revision).max().unwrap_or(0);
    let equal =
        all.iter().filter(|r| r.data.as_ref().is_some_and(|d| d.0 == data)).max_by_key(|r| r.revision);
    match equal {
        Some(revision) if revision.revision == newest => Latest::Known(Arc::clone(revision)),
        Some(revision) => {
            Latest::Renumber(ControllerRevision { revision: newest + 1, ..(**revision).clone() })
        }
        None => Latest::Create(create(set, data, template, newest + 1)),
    }
}

fn create(set: &StatefulSet, data: Value, template: &PodTemplateSpec, number: i64) -> ControllerRevision {
    let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let mut bytes = data.to_string().into_bytes();
    if collisions > 0 {
        bytes.extend(collisions.to_le_bytes());
    }
    let hash = short_hash(&bytes);
    let mut own_labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    own_labels.insert("controller.kubernetes.io/hash".into(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta::name(&set.metadata))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(own_labels),
            annotations: set.metadata.annotations.clone().map(|mut notes| {
                notes.remove(base::constants::annotations::LAST_APPLIED);
                notes
            }),
            owner_references: Some(vec![meta::controller_ref(set)]),
            ..Default::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Revisions that no pod has and that are beyond the history to keep, oldest first.
pub fn surplus(
    set: &StatefulSet,
    all: &[Arc<ControllerRevision>],
    pods: &[Arc<k8s_openapi::api::core::v1::Pod>],
    live: &[&str],
) -> Vec<Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(DEFAULT_HISTORY);
    let has = |name: &str| {
        let mut hashes =
            pods.iter().filter_map(|p| meta::labels(&p.metadata).get(labels::CONTROLLER_REVISION_HASH));
        hashes.any(|hash| hash == name)
    };
    let mut old: Vec<_> = all
        .iter()
        .filter(|r| !live.contains(&meta::name(&r.metadata)) && !has(meta::name(&r.metadata)))
        .cloned()
        .collect();
    old.sort_by_key(|r| r.revision);
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.truncate(excess);
    old
}
