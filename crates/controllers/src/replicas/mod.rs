//! What keeps a number of equal pods: as many as asked for, made in growing batches so that a mistake in the template
//! costs one request and not hundreds. There are two kinds of this, a new one and an old one; they only say where they
//! have what is looked for ([`Replicated`]).

mod plan;

use std::sync::Arc;

use api::selector::{Selector, SelectorError};
use client::{Cache, Controller, Key, Level, Next, Object, Outcome, Reconciler, Recorder};
use futures::future::{BoxFuture, join_all};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSetStatus;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::{Api, Resource};
use serde::Serialize;

use crate::context::{self, Context, is_namespace_terminating, now};
use crate::expectations::Expectations;
use crate::{meta, pod};
use plan::Plan;

/// A kind whose objects keep a number of equal pods.
pub trait Replicated: Object + Resource<Scope = NamespaceResourceScope> + Serialize {
    /// As its owner references name it.
    const KIND: &'static str;
    /// What its controller is called.
    const CONTROLLER: &'static str;
    /// Who its events are from.
    const COMPONENT: &'static str;

    /// Of the pods that it counts as its own.
    fn selector(&self) -> Result<Selector, SelectorError>;

    /// `None` while it asks for nothing.
    fn wanted(&self) -> Option<Wanted>;

    /// In the newer kind's words, which are all that the older has.
    fn status(&self) -> ReplicaSetStatus;

    /// The same with another status, as far as its kind has the fields.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

/// What is asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub template: PodTemplateSpec,
}

pub fn start<T: Replicated>(context: &Context) -> Vec<Controller> {
    let sets = context.caches.of::<T>();
    let pods = context.caches.of::<Pod>();
    let reconciler = Replicas {
        expectations: Expectations::follow(&pods),
        recorder: context.recorder(T::COMPONENT),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        context: context.clone(),
    };
    let all_sets = Arc::clone(&sets);
    let controller = Controller::new(T::CONTROLLER, reconciler)
        .owns_kind(&sets)
        .watches_owned(&pods, T::KIND)
        .watches(&pods, move |change| would_adopt(&all_sets, change.object()));
    vec![controller]
}

/// A pod that nobody manages concerns each set whose selector it matches.
fn would_adopt<T: Replicated>(sets: &Cache<T>, pod: &Pod) -> Vec<Key> {
    if meta::controller_of(&pod.metadata).is_some() || meta::is_deleting(&pod.metadata) {
        return Vec::new();
    }
    let sets = sets.in_namespace(meta::namespace(&pod.metadata)).into_iter();
    let matching = sets.filter(|set| set.selector().is_ok_and(|s| s.matches(meta::labels(&pod.metadata))));
    matching.map(|set| Key::of(&*set)).collect()
}

struct Replicas<T> {
    context: Context,
    sets: Arc<Cache<T>>,
    pods: Arc<Cache<Pod>>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

impl<T: Replicated> Reconciler for Replicas<T> {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.sets.get(&key) {
                Some(set) => self.sync(&*set).await,
                None => Ok(Next::OnChange),
            }
        })
    }
}

impl<T: Replicated> Replicas<T> {
    async fn sync(&self, set: &T) -> Outcome {
        let Some(wanted) = set.wanted() else { return Ok(Next::OnChange) };
        let selector = set.selector()?;
        let (waiting, candidates) = self
            .expectations
            .before(meta::uid(set.meta()), || Context::candidates(&self.pods, set, &selector));
        let pods = self.context.claim(set, &selector, candidates).await?;
        let plan = match waiting.is_none() && !meta::is_deleting(set.meta()) {
            true => plan::plan(wanted.replicas, &pods),
            false => Plan::default(),
        };
        let failure = self.carry_out(set, &wanted, &plan).await.err();
        let reported = failure.as_ref().filter(|error| !is_namespace_terminating(error));
        let reported = reported.map(|error| (plan.failure(), crate::message_of(error)));
        let (status, available_in) = plan::status(set, &wanted, &pods, reported, now());
        let updated = set.with_status(status);
        if updated.status() != set.status() {
            let api: Api<T> = self.context.api(meta::namespace(set.meta()));
            context::ignore_missing(context::write_status(&api, &updated).await)?;
        }
        match failure {
            Some(error) if !is_namespace_terminating(&error) => Err(error.into()),
            _ => Ok([waiting, available_in].into_iter().flatten().min().map_or(Next::OnChange, Next::After)),
        }
    }

    async fn carry_out(&self, set: &T, wanted: &Wanted, plan: &Plan) -> Result<(), kube::Error> {
        let owner = meta::uid(set.meta());
        if plan.create > 0 {
            self.expectations.expect(owner, plan.create, []);
            return self.create(set, wanted, plan.create).await;
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
    async fn create(&self, set: &T, wanted: &Wanted, count: usize) -> Result<(), kube::Error> {
        let (namespace, owner) = (meta::namespace(set.meta()), meta::controller_ref(set));
        let mut pod = pod::from_template(&wanted.template, namespace, owner);
        pod.metadata.generate_name = Some(pod::generate_name(meta::name(set.meta())));
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| self.create_one(set, &pod))).await;
            left -= size;
            batch *= 2;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                // Those not tried will not be seen either.
                (0..left).for_each(|_| self.expectations.created(meta::uid(set.meta())));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn create_one(&self, set: &T, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = self.context.api(meta::namespace(set.meta()));
        match api.create(&context::params(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name(&created.metadata));
                self.recorder.record(set, Level::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(meta::uid(set.meta()));
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", crate::message_of(&error));
                    self.recorder.record(set, Level::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, set: &T, pod: &Pod) -> Result<(), kube::Error> {
        let name = meta::name(&pod.metadata);
        match self.context.delete_pod(pod).await {
            Ok(()) => {
                self.recorder.record(set, Level::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                if self.pods.get(&Key::of(pod)).is_none_or(|known| known.metadata.uid != pod.metadata.uid) {
                    self.expectations.deleted(meta::uid(set.meta()), meta::uid(&pod.metadata));
                }
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(meta::uid(set.meta()), meta::uid(&pod.metadata));
                let message = format!("Error deleting: {}", crate::message_of(&error));
                self.recorder.record(set, Level::Warning, "FailedDelete", message);
                Err(error)
            }
        }
    }
}
