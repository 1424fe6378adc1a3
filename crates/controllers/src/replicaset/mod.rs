//! ReplicaSets: as many pods as asked for, made in growing batches so that a mistake in the template costs one
//! request and not hundreds.

mod plan;

use std::sync::Arc;

use api::selector::Selector;
use client::{Cache, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::context::{self, Context, is_namespace_terminating, now};
use crate::expectations::Expectations;
use crate::{meta, pod};

pub fn start(context: &Context) -> Vec<Controller> {
    let sets = context.caches.of::<ReplicaSet>();
    let pods = context.caches.of::<Pod>();
    let reconciler = ReplicaSets {
        expectations: Expectations::follow(&pods),
        recorder: context.recorder("replicaset-controller"),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        context: context.clone(),
    };
    let all_sets = Arc::clone(&sets);
    let controller = Controller::new("replicaset", reconciler)
        .owns_kind(&sets)
        .watches_owned(&pods, "ReplicaSet")
        .watches(&pods, move |change| would_adopt(&all_sets, change.object()));
    vec![controller]
}

/// A pod that nobody manages concerns each set whose selector it matches.
fn would_adopt(sets: &Cache<ReplicaSet>, pod: &Pod) -> Vec<Key> {
    if meta::controller_of(&pod.metadata).is_some() || meta::is_deleting(&pod.metadata) {
        return Vec::new();
    }
    let sets = sets.in_namespace(meta::namespace(&pod.metadata)).into_iter();
    let matching = sets.filter(|set| {
        let selector = set.spec.as_ref().map(|spec| Selector::from_object(&spec.selector));
        matches!(selector, Some(Ok(selector)) if selector.matches(meta::labels(&pod.metadata)))
    });
    matching.map(|set| Key::of(&*set)).collect()
}

struct ReplicaSets {
    context: Context,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

impl Reconciler for ReplicaSets {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.sets.get(&key) {
                Some(set) => self.sync(&set).await,
                None => Ok(Next::OnChange),
            }
        })
    }
}

impl ReplicaSets {
    async fn sync(&self, set: &ReplicaSet) -> Outcome {
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let selector = Selector::from_object(&spec.selector)?;
        // First: what comes in while pods are looked at must not pass for what was looked at.
        let waiting = self.expectations.pending(meta::uid(&set.metadata));
        let candidates = Context::candidates(&self.pods, set, &selector);
        let pods = self.context.claim(set, &selector, candidates).await?;
        let failure = if waiting.is_none() && !meta::is_deleting(&set.metadata) {
            self.manage(set, spec, &pods).await.err()
        } else {
            None
        };
        let reported = failure.as_ref().filter(|error| !is_namespace_terminating(error));
        let reported = reported.map(|error| ("FailedCreate", error.to_string()));
        let (status, available_in) = plan::status(set, &pods, reported, now());
        if set.status.as_ref() != Some(&status) {
            let updated = ReplicaSet { status: Some(status), ..set.clone() };
            let api: Api<ReplicaSet> = self.context.api(meta::namespace(&set.metadata));
            context::ignore_missing(context::write_status(&api, &updated).await)?;
        }
        match failure {
            Some(error) if !is_namespace_terminating(&error) => Err(error.into()),
            _ => Ok([waiting, available_in].into_iter().flatten().min().map_or(Next::OnChange, Next::After)),
        }
    }

    async fn manage(
        &self,
        set: &ReplicaSet,
        spec: &ReplicaSetSpec,
        pods: &[Arc<Pod>],
    ) -> Result<(), kube::Error> {
        let plan = plan::plan(spec.replicas.unwrap_or(1), pods);
        let owner = meta::uid(&set.metadata);
        if plan.create > 0 {
            self.expectations.expect(owner, plan.create, []);
            return self.create(set, spec, plan.create).await;
        }
        if !plan.delete.is_empty() {
            let uids = plan.delete.iter().map(|p| meta::uid(&p.metadata).to_owned());
            self.expectations.expect(owner, 0, uids);
            let results = join_all(plan.delete.iter().map(|pod| self.delete(set, pod))).await;
            return results.into_iter().collect();
        }
        Ok(())
    }

    /// One, then two, then four …: after a batch with a failure no more are tried.
    async fn create(&self, set: &ReplicaSet, spec: &ReplicaSetSpec, count: usize) -> Result<(), kube::Error> {
        let template = spec.template.clone().unwrap_or_default();
        let mut pod =
            pod::from_template(&template, meta::namespace(&set.metadata), meta::controller_ref(set));
        pod.metadata.generate_name = Some(pod::generate_name(meta::name(&set.metadata)));
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_one(set, &pod))).await;
            left -= size;
            batch *= 2;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                // Those not tried will not be seen either.
                (0..left).for_each(|_| self.expectations.created(meta::uid(&set.metadata)));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn create_one(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = self.context.api(meta::namespace(&set.metadata));
        match api.create(&context::params(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name(&created.metadata));
                self.recorder.record(set, Level::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(meta::uid(&set.metadata));
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", crate::message_of(&error));
                    self.recorder.record(set, Level::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &ReplicaSet, pod: &Pod) -> Result<(), kube::Error> {
        let name = meta::name(&pod.metadata);
        match self.context.delete_pod(pod).await {
            Ok(()) => {
                self.recorder.record(set, Level::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                if self.pods.get(&Key::of(pod)).is_none_or(|known| known.metadata.uid != pod.metadata.uid) {
                    self.expectations.deleted(meta::uid(&set.metadata), meta::uid(&pod.metadata));
                }
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(meta::uid(&set.metadata), meta::uid(&pod.metadata));
                let message = format!("Error deleting: {}", crate::message_of(&error));
                self.recorder.record(set, Level::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}
