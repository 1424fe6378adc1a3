//! Jobs: pods that run to their end, counted exactly.

mod indexes;
mod plan;

use std::sync::Arc;

use base::constants::labels;
use client::{Cache, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::Api;
use kube::api::DeleteParams;

use crate::context::{self, Context, is_namespace_terminating, now};
use crate::expectations::Expectations;
use crate::{meta, pod};
use plan::{FINALIZER, INDEX, Plan};

pub fn start(context: &Context) -> Vec<Controller> {
    let jobs = context.caches.of::<Job>();
    let pods = context.caches.of::<Pod>();
    let reconciler = Jobs {
        expectations: Expectations::follow(&pods),
        recorder: context.recorder("job-controller"),
        jobs: Arc::clone(&jobs),
        pods: Arc::clone(&pods),
        context: context.clone(),
    };
    vec![Controller::new("job", reconciler).owns_kind(&jobs).watches_owned(&pods, "Job")]
}

struct Jobs {
    context: Context,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    expectations: Arc<Expectations>,
    recorder: Recorder,
}

impl Reconciler for Jobs {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.jobs.get(&key) {
                Some(job) if job.spec.as_ref().is_some_and(is_ours) => self.sync(&job).await,
                Some(_) => Ok(Next::OnChange),
                None => self.release_orphans(&key).await,
            }
        })
    }
}

/// A Job may name another controller as its own.
fn is_ours(spec: &JobSpec) -> bool {
    spec.managed_by.as_deref().is_none_or(|by| by.is_empty() || by == "kubernetes.io/job-controller")
}

impl Jobs {
    async fn sync(&self, job: &Job) -> Outcome {
        let owner = meta::uid(&job.metadata);
        let (waiting, pods) =
            self.expectations.before(owner, || self.pods.owned_by(meta::namespace(&job.metadata), owner));
        let pods = pods.into_iter().filter(|p| meta::is_controlled_by(&p.metadata, owner));
        let pods: Vec<Arc<Pod>> = pods.collect();
        let Some(mut plan) = plan::plan(job, &pods, waiting.is_none(), now()) else {
            return Ok(Next::OnChange);
        };
        if plan.delete_job {
            let api: Api<Job> = self.context.api(meta::namespace(&job.metadata));
            context::delete_exactly(&api, &job.metadata, DeleteParams::foreground()).await?;
            return Ok(Next::OnChange);
        }
        // Noted before anything is let go: an end whose pod vanishes must not be lost.
        if job.status.as_ref() != Some(&plan.status) {
            let api: Api<Job> = self.context.api(meta::namespace(&job.metadata));
            let updated = Job { status: Some(plan.status.clone()), ..job.clone() };
            context::write_status(&api, &updated).await?;
            for (warning, reason, message) in std::mem::take(&mut plan.events) {
                let level = if warning { Level::Warning } else { Level::Normal };
                self.recorder.record(job, level, &reason, message);
            }
        }
        for pod in &plan.release {
            self.release(pod).await?;
        }
        match self.change_pods(job, &plan).await {
            Err(error) if !is_namespace_terminating(&error) => Err(error.into()),
            _ => {
                Ok([waiting, plan.look_again].into_iter().flatten().min().map_or(Next::OnChange, Next::After))
            }
        }
    }

    async fn release(&self, pod: &Pod) -> Result<(), kube::Error> {
        if !meta::has_finalizer(&pod.metadata, FINALIZER) {
            return Ok(());
        }
        let api: Api<Pod> = self.context.api(meta::namespace(&pod.metadata));
        context::remove_finalizer(&api, pod, FINALIZER).await
    }

    async fn change_pods(&self, job: &Job, plan: &Plan) -> Result<(), kube::Error> {
        let owner = meta::uid(&job.metadata);
        if !plan.delete.is_empty() {
            self.expectations.expect(
                owner,
                0,
                plan.delete.iter().map(|(p, _)| meta::uid(&p.metadata).to_owned()),
            );
            let all = plan.delete.iter().map(|(pod, uncounted)| self.delete(job, pod, *uncounted));
            return join_all(all).await.into_iter().collect();
        }
        if plan.create.is_empty() {
            return Ok(());
        }
        self.expectations.expect(owner, plan.create.len(), []);
        let (mut left, mut batch) = (&plan.create[..], 1);
        while !left.is_empty() {
            let (now, rest) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(|index| self.create(job, *index))).await;
            (left, batch) = (rest, batch * 2);
            if let Some(error) = results.into_iter().find_map(Result::err) {
                // Those not tried will not be seen either.
                left.iter().for_each(|_| self.expectations.created(owner));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn delete(&self, job: &Job, pod: &Pod, uncounted: bool) -> Result<(), kube::Error> {
        let done = async {
            if uncounted {
                self.release(pod).await?;
            }
            self.context.delete_pod(pod).await
        };
        let result = done.await;
        match &result {
            Ok(()) => {
                let message = format!("Deleted pod: {}", meta::name(&pod.metadata));
                self.recorder.record(job, Level::Normal, "SuccessfulDelete", message);
            }
            Err(_) => self.expectations.deleted(meta::uid(&job.metadata), meta::uid(&pod.metadata)),
        }
        result
    }

    async fn create(&self, job: &Job, index: Option<i32>) -> Result<(), kube::Error> {
        let Some(spec) = &job.spec else { return Ok(()) };
        let pod = new_pod(job, spec, index);
        let api: Api<Pod> = self.context.api(meta::namespace(&job.metadata));
        match api.create(&context::params(), &pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", meta::name(&created.metadata));
                self.recorder.record(job, Level::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(meta::uid(&job.metadata));
                if !is_namespace_terminating(&error) {
                    let message = format!("Error creating: {}", crate::message_of(&error));
                    self.recorder.record(job, Level::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Pods whose Job is gone will not be counted by anybody: their finalizer must not hold them.
    async fn release_orphans(&self, key: &Key) -> Outcome {
        let of_job = |pod: &Arc<Pod>| {
            let owner = meta::controller_of(&pod.metadata);
            owner.is_some_and(|o| o.kind == "Job" && o.name == key.name)
                && meta::has_finalizer(&pod.metadata, FINALIZER)
        };
        let orphans: Vec<_> = self.pods.in_namespace(&key.namespace).into_iter().filter(of_job).collect();
        if orphans.is_empty() {
            return Ok(Next::OnChange);
        }
        let api: Api<Job> = self.context.api(&key.namespace);
        let live = api.get_opt(&key.name).await?.and_then(|job| job.metadata.uid);
        for pod in orphans {
            let owner = meta::controller_of(&pod.metadata).map(|o| o.uid.clone());
            if owner != live {
                self.release(&pod).await?;
            }
        }
        Ok(Next::OnChange)
    }
}

fn new_pod(job: &Job, spec: &JobSpec, index: Option<i32>) -> Pod {
    let name = meta::name(&job.metadata);
    let mut pod =
        pod::from_template(&spec.template, meta::namespace(&job.metadata), meta::controller_ref(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let marks = pod.metadata.labels.get_or_insert_default();
    marks.entry(labels::JOB_NAME.into()).or_insert_with(|| name.to_owned());
    marks.entry(labels::JOB_CONTROLLER_UID.into()).or_insert_with(|| meta::uid(&job.metadata).to_owned());
    let Some(index) = index else {
        pod.metadata.generate_name = Some(pod::generate_name(name));
        return pod;
    };
    marks.insert(INDEX.into(), index.to_string());
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.generate_name = Some(pod::generate_name(&format!("{name}-{index}")));
    let pod_spec = pod.spec.get_or_insert_default();
    pod_spec.hostname = Some(format!("{name}-{index}"));
    let source =
        ObjectFieldSelector { field_path: format!("metadata.annotations['{INDEX}']"), ..Default::default() };
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".into(),
        value_from: Some(EnvVarSource { field_ref: Some(source), ..Default::default() }),
        ..Default::default()
    };
    for container in pod_spec.containers.iter_mut().chain(pod_spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|e| e.name == variable.name) {
            env.push(variable.clone());
        }
    }
    pod
}
