//! Pods on a node with a `NoExecute` taint leave it: at once, or when what they tolerate has run out.

use std::sync::Arc;
use std::time::Duration;

use base::time::rfc3339_seconds;
use client::{Cache, Change, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::Api;
use kube::api::Patch;
use serde_json::json;

use crate::context::{self, Context, now};
use crate::pod;

pub fn start(context: &Context) -> Vec<Controller> {
    let nodes = context.caches.of::<Node>();
    let pods = context.caches.of::<Pod>();
    let reconciler = Eviction {
        context: context.clone(),
        nodes: Arc::clone(&nodes),
        pods: Arc::clone(&pods),
        recorder: context.recorder("taint-eviction-controller"),
    };
    let on_nodes = Arc::clone(&pods);
    let controller = Controller::new("tainteviction", reconciler).owns_kind(&pods).watches(
        &nodes,
        move |change: &Change<Node>| {
            let taints = |node: &Option<Arc<Node>>| node.as_ref().map(|n| no_execute(n)).unwrap_or_default();
            if taints(&change.old) == taints(&change.new) {
                return Vec::new();
            }
            let name = change.object().metadata.name.clone();
            let there = on_nodes.all().into_iter().filter(|p| pod::node_name(p) == name.as_deref());
            there.map(|p| Key::of(&*p)).collect()
        },
    );
    vec![controller]
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stay,
    StayFor(Duration),
    Leave,
}

fn judge(tolerations: &[Toleration], taints: &[Taint], now: Timestamp) -> Verdict {
    let mut stay: Option<Duration> = None;
    for taint in taints {
        let tolerating: Vec<_> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if tolerating.is_empty() {
            return Verdict::Leave;
        }
        let Some(seconds) = tolerating.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let left = pod::remaining(since, seconds.max(0), now);
        stay = Some(stay.map_or(left, |known| known.min(left)));
    }
    match stay {
        None => Verdict::Stay,
        Some(left) if left.is_zero() => Verdict::Leave,
        Some(left) => Verdict::StayFor(left),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().filter(|f| !f.is_empty());
    given(&toleration.effect).is_none_or(|e| e == taint.effect)
        && given(&toleration.key).is_none_or(|k| k == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => given(&toleration.key).is_some() && given(&toleration.value) == given(&taint.value),
        }
}

struct Eviction {
    context: Context,
    nodes: Arc<Cache<Node>>,
    pods: Arc<Cache<Pod>>,
    recorder: Recorder,
}

impl Reconciler for Eviction {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(pod) = self.pods.get(&key).filter(|p| pod::is_active(p)) else {
                return Ok(Next::OnChange);
            };
            let Some(node) = pod::node_name(&pod).and_then(|n| self.nodes.get(&Key::new("", n))) else {
                return Ok(Next::OnChange);
            };
            let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.clone()).unwrap_or_default();
            match judge(&tolerations, &no_execute(&node), now()) {
                Verdict::Stay => Ok(Next::OnChange),
                Verdict::StayFor(left) => Ok(Next::After(left)),
                Verdict::Leave => self.evict(&pod).await,
            }
        })
    }
}

impl Eviction {
    async fn evict(&self, pod: &Pod) -> Outcome {
        let key = Key::of(pod);
        self.recorder.record(
            pod,
            Level::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {key}"),
        );
        let condition = json!({ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": rfc3339_seconds(now()) });
        let patch =
            json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
        let api: Api<Pod> = self.context.api(&key.namespace);
        context::ignore_missing(
            api.patch_status(&key.name, &context::params_patch(), &Patch::Strategic(patch)).await,
        )?;
        self.context.delete_pod(pod).await?;
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn tolerated_time_runs_from_when_the_taint_was_put() {
        let taint = |key: &str| Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(0))),
            value: None,
        };
        let toleration = |key: &str, seconds: Option<i64>| Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Default::default()
        };
        let cases = [
            (vec![], vec![], Verdict::Stay),
            (vec![], vec![taint("a")], Verdict::Leave),
            (vec![toleration("a", None)], vec![taint("a")], Verdict::Stay),
            (vec![toleration("a", Some(300))], vec![taint("a")], Verdict::StayFor(Duration::from_secs(290))),
            (vec![toleration("a", Some(10))], vec![taint("a")], Verdict::Leave),
            (vec![toleration("a", Some(300))], vec![taint("a"), taint("b")], Verdict::Leave),
        ];
        for (tolerations, taints, expected) in cases {
            assert_eq!(judge(&tolerations, &taints, at(10)), expected, "{tolerations:?}");
        }
    }
}
