//! ReplicaSets: a number of equal pods; see `replicas/`.

use api::selector::{Selector, SelectorError};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};

use crate::replicas::{Replicated, Wanted};

impl Replicated for ReplicaSet {
    const KIND: &'static str = "ReplicaSet";
    const CONTROLLER: &'static str = "replicaset";
    const COMPONENT: &'static str = "replicaset-controller";

    fn selector(&self) -> Result<Selector, SelectorError> {
        self.spec
            .as_ref()
            .map_or_else(|| Ok(Selector::nothing()), |spec| Selector::from_object(&spec.selector))
    }

    fn wanted(&self) -> Option<Wanted> {
        self.spec.as_ref().map(|spec| Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            template: spec.template.clone().unwrap_or_default(),
        })
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}
