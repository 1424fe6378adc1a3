//! Pods that nobody will ever clean up: those of nodes that are gone, and those that were deleted before they got one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::time::rfc3339_seconds;
use client::{Cache, Change, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{self, Context, now};
use crate::{meta, pod};

/// A node may be registered anew: its pods wait that long.
const NODE_GONE_FOR: Duration = Duration::from_secs(40);

pub fn start(context: &Context) -> Vec<Controller> {
    let nodes = context.caches.of::<Node>();
    let pods = context.caches.of::<Pod>();
    let reconciler = PodGc {
        context: context.clone(),
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        missing: Mutex::default(),
    };
    let all = Arc::clone(&pods);
    let controller = Controller::new("podgc", reconciler).owns_kind(&pods).watches(
        &nodes,
        move |change: &Change<Node>| {
            if change.new.is_some() {
                return Vec::new();
            }
            let name = change.object().metadata.name.clone();
            let there = all.all().into_iter().filter(|p| pod::node_name(p) == name.as_deref());
            there.map(|p| Key::of(&*p)).collect()
        },
    );
    vec![controller]
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Its node is not there.
    Orphan,
    /// It was deleted before it had a node: no agent will confirm.
    NeverScheduled,
}

fn judge(pod: &Pod, node_exists: impl Fn(&str) -> bool) -> Verdict {
    match pod::node_name(pod) {
        Some(node) if node_exists(node) => Verdict::Keep,
        Some(_) => Verdict::Orphan,
        None if meta::is_deleting(&pod.metadata) => Verdict::NeverScheduled,
        None => Verdict::Keep,
    }
}

struct PodGc {
    context: Context,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    /// Since when a node is missing.
    missing: Mutex<HashMap<String, Instant>>,
}

impl Reconciler for PodGc {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(pod) = self.pods.get(&key) else { return Ok(Next::OnChange) };
            match judge(&pod, |node| self.nodes.get(&Key::new("", node)).is_some()) {
                Verdict::Keep => {
                    if let Some(node) = pod::node_name(&pod) {
                        self.missing.lock().remove(node);
                    }
                    Ok(Next::OnChange)
                }
                Verdict::NeverScheduled => self.remove(&pod).await,
                Verdict::Orphan => self.orphan(&pod).await,
            }
        })
    }
}

impl PodGc {
    async fn orphan(&self, pod: &Pod) -> Outcome {
        let node = pod::node_name(pod).unwrap_or_default().to_owned();
        let since = *self.missing.lock().entry(node.clone()).or_insert_with(Instant::now);
        let left = NODE_GONE_FOR.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let api: Api<Node> = self.context.cluster_api();
        if api.get_opt(&node).await?.is_some() {
            return Ok(Next::OnChange);
        }
        if !pod::has_ended(pod) {
            let condition = json!({ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": rfc3339_seconds(now()) });
            let status = json!({ "phase": "Failed", "conditions": [condition] });
            let patch =
                Patch::Strategic(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }));
            let api: Api<Pod> = self.context.api(meta::namespace(&pod.metadata));
            let name = meta::name(&pod.metadata);
            context::ignore_missing(api.patch_status(name, &context::params_patch(), &patch).await)?;
        }
        self.remove(pod).await
    }

    async fn remove(&self, pod: &Pod) -> Outcome {
        let api: Api<Pod> = self.context.api(meta::namespace(&pod.metadata));
        let now = DeleteParams { grace_period_seconds: Some(0), ..Default::default() };
        context::delete_exactly(&api, &pod.metadata, now).await?;
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_named;

    #[test]
    fn pods_without_a_future() {
        let there = |name: &str| name == "n1";
        let cases = [
            (pod_named("a").on("n1"), Verdict::Keep),
            (pod_named("a").on("n2"), Verdict::Orphan),
            (pod_named("a"), Verdict::Keep),
            (pod_named("a").deleting(), Verdict::NeverScheduled),
        ];
        for (pod, expected) in cases {
            assert_eq!(judge(&pod.0, there), expected);
        }
    }
}
