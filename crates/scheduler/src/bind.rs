//! What follows a decision: volumes are prepared and the pod is bound, or it is told why not and victims are removed.

use std::sync::Arc;
use std::time::Duration;

use base::constants::{FIELD_MANAGER, annotations};
use base::time::{now, rfc3339_seconds};
use client::{Cache, Key, Level, Recorder};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::preempt::Victims;
use crate::volumes::{Need, claim_names, is_bound, selected_node};

/// How long volumes may take to be ready before another node is tried.
const VOLUMES_TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("binding rejected: {0}")]
    Bind(#[source] kube::Error),
    #[error("binding volumes: {0}")]
    Volumes(#[source] kube::Error),
    #[error("binding volumes: timed out waiting for the condition")]
    VolumesTimeout,
    #[error("binding volumes: claim {0:?} was taken from the selected node")]
    VolumesElsewhere(String),
}

/// The few things that binding needs.
#[derive(Clone)]
pub struct Binder {
    pub client: Client,
    pub recorder: Recorder,
    pub claims: Arc<Cache<PersistentVolumeClaim>>,
    /// Fires whenever a claim changed.
    pub claims_changed: watch::Sender<()>,
}

impl Binder {
    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    pub async fn bind(&self, pod: &Pod, node: &str, needs: &[Need]) -> Result<(), BindError> {
        if !needs.is_empty() {
            self.prepare_volumes(node, needs).await.map_err(BindError::Volumes)?;
            self.volumes_bound(pod, node).await?;
        }
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let target = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..Default::default()
        };
        let metadata = ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        };
        let binding = Binding { metadata, target };
        let bound: Result<Status, _> =
            self.pods(pod).create_subresource("binding", name, &params(), &binding).await;
        bound.map_err(BindError::Bind)?;
        let message = format!("Successfully assigned {} to {node}", Key::of(pod));
        self.recorder.record(pod, Level::Normal, "Scheduled", message);
        Ok(())
    }

    async fn prepare_volumes(&self, node: &str, needs: &[Need]) -> Result<(), kube::Error> {
        for need in needs {
            match need {
                Need::Reserve { claim, volume } => {
                    let api: Api<PersistentVolume> = Api::all(self.client.clone());
                    let reference = ObjectReference {
                        api_version: Some("v1".into()),
                        kind: Some("PersistentVolumeClaim".into()),
                        namespace: claim.metadata.namespace.clone(),
                        name: claim.metadata.name.clone(),
                        uid: claim.metadata.uid.clone(),
                        ..Default::default()
                    };
                    let patch = json!({
                        "metadata": { "resourceVersion": volume.metadata.resource_version, "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
                        "spec": { "claimRef": reference },
                    });
                    let name = volume.metadata.name.as_deref().unwrap_or_default();
                    api.patch(name, &params_patch(), &Patch::Merge(patch)).await?;
                }
                Need::Provision(claim) if selected_node(claim) == Some(node) => {}
                Need::Provision(claim) => {
                    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
                    let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
                    // Any version of this very claim: others write its status and finalizers meanwhile.
                    let patch = json!({ "metadata": {
                        "uid": claim.metadata.uid,
                        "annotations": { annotations::SELECTED_NODE: node },
                    } });
                    let name = claim.metadata.name.as_deref().unwrap_or_default();
                    api.patch(name, &params_patch(), &Patch::Merge(patch)).await?;
                }
            }
        }
        Ok(())
    }

    async fn volumes_bound(&self, pod: &Pod, node: &str) -> Result<(), BindError> {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let keys: Vec<Key> =
            claim_names(pod).into_iter().map(|(name, _)| Key::new(namespace.clone(), name)).collect();
        let mut changed = self.claims_changed.subscribe();
        let mut seen_selected = Vec::new();
        let wait = async {
            loop {
                changed.mark_unchanged();
                let mut all = true;
                for key in &keys {
                    let Some(claim) = self.claims.get(key) else {
                        return Err(BindError::VolumesElsewhere(key.name.clone()));
                    };
                    if is_bound(&claim) {
                        continue;
                    }
                    all = false;
                    match selected_node(&claim) {
                        Some(selected) if selected == node => seen_selected.push(key.clone()),
                        // The provisioner takes the annotation away when it cannot provide on that node.
                        None if seen_selected.contains(key) => {
                            return Err(BindError::VolumesElsewhere(key.name.clone()));
                        }
                        _ => {}
                    }
                }
                if all {
                    return Ok(());
                }
                if changed.changed().await.is_err() {
                    return Err(BindError::VolumesTimeout);
                }
            }
        };
        tokio::time::timeout(VOLUMES_TIMEOUT, wait).await.unwrap_or(Err(BindError::VolumesTimeout))
    }

    /// Tells a pod why it waits.
    pub async fn report(
        &self,
        pod: &Pod,
        reason: &str,
        message: &str,
        nominated: Option<&str>,
    ) -> Result<(), kube::Error> {
        let known = pod
            .status
            .as_ref()
            .and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled"));
        let same = |c: &&k8s_openapi::api::core::v1::PodCondition| {
            c.status == "False"
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message)
        };
        let nominated_already = pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref());
        if known.as_ref().is_some_and(same) && (nominated.is_none() || nominated == nominated_already) {
            return Ok(());
        }
        let since = known.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
        let since = since.map_or_else(|| rfc3339_seconds(now()), |t| rfc3339_seconds(t.0));
        let mut status = json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since,
        }] });
        if let Some(node) = nominated {
            status["nominatedNodeName"] = json!(node);
        }
        self.patch_status(pod, status).await
    }

    pub fn tell_failed(&self, pod: &Pod, message: &str) {
        self.recorder.record(pod, Level::Warning, "FailedScheduling", message);
    }

    async fn patch_status(&self, pod: &Pod, status: serde_json::Value) -> Result<(), kube::Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": status });
        match self.pods(pod).patch_status(name, &params_patch(), &Patch::Strategic(patch)).await {
            Err(error) if !client::is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes those who make room for `pod`.
    pub async fn preempt(&self, pod: &Pod, victims: &Victims) -> Result<(), kube::Error> {
        for victim in victims.pods.iter().filter(|v| !v.is_deleting()) {
            let condition = json!({ "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastTransitionTime": rfc3339_seconds(now()),
            }] });
            self.patch_status(&victim.pod, condition).await?;
            let exactly = Preconditions { uid: victim.pod.metadata.uid.clone(), resource_version: None };
            let how = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            let name = victim.pod.metadata.name.as_deref().unwrap_or_default();
            match self.pods(&victim.pod).delete(name, &how).await {
                Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                    return Err(error);
                }
                _ => {}
            }
            let by = pod.metadata.uid.as_deref().unwrap_or_default();
            let message = format!("Preempted by pod {by} on node {}", victims.node);
            self.recorder.record(&*victim.pod, Level::Normal, "Preempted", message);
        }
        Ok(())
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() }
}

fn params_patch() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() }
}
