//! Health of what was applied: what it is that is still waited for.

use std::time::Instant;

use serde_json::Value;

use super::Kustomizations;
use super::outcome::Failure;
use crate::health::{self, Health};
use crate::inventory::Id;
use crate::types::KustomizationSpec;

/// A revision whose objects are applied and are waited for.
pub struct Waiting {
    pub(super) mark: String,
    pub(super) since: Instant,
    /// One of them is gone again.
    pub(super) lost: bool,
}

/// What is told of an object that is not there.
pub(super) const NOT_FOUND: &str = "status: 'NotFound'";

impl Kustomizations {
    /// What is not healthy yet of what is to be waited for; a failure that will not pass is an error at once.
    pub(super) async fn check_health(
        &self,
        spec: &KustomizationSpec,
        wanted: &[Value],
    ) -> Result<Option<String>, Failure> {
        let mut ids: Vec<Id> = Vec::new();
        if spec.wait == Some(true) {
            ids.extend(wanted.iter().map(Id::of));
        } else {
            for check in &spec.health_checks {
                let (group, version) = match (check.api_version.as_deref(), check.kind.as_str()) {
                    (Some(v), _) => v.split_once('/').map_or(("", v), |(g, v)| (g, v)),
                    (None, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") => ("apps", "v1"),
                    (None, _) => ("", "v1"),
                };
                ids.push(Id {
                    group: group.into(),
                    version: version.into(),
                    kind: check.kind.clone(),
                    namespace: check.namespace.clone().unwrap_or_default(),
                    name: check.name.clone(),
                });
            }
        }
        let mut unhealthy = Vec::new();
        for id in ids {
            let found = self.cluster.get(&id).await.map_err(|e| Failure::Health(e.to_string()))?;
            match found.as_ref().map(health::of) {
                None => unhealthy.push(format!("{} {NOT_FOUND}", id.label())),
                Some(Health::Healthy) => {}
                Some(Health::Progressing(what)) => {
                    unhealthy.push(format!("{} status: 'InProgress': {what}", id.label()))
                }
                Some(Health::Failed(what)) => {
                    return Err(Failure::Health(format!("{} status: 'Failed': {what}", id.label())));
                }
            }
        }
        Ok((!unhealthy.is_empty()).then(|| unhealthy.join(", ")))
    }
}
