//! Deployments: rolls pods from one template to the next by sizing one ReplicaSet a template.

mod limits;
mod plan;
mod rollout;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::selector::Selector;
use client::{Cache, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch};

use crate::context::{self, Context, is_namespace_terminating, now};
use crate::meta;
use plan::{Action, Plan};

pub fn start(context: &Context) -> Vec<Controller> {
    let deployments = context.caches.of::<Deployment>();
    let sets = context.caches.of::<ReplicaSet>();
    let pods = context.caches.of::<Pod>();
    let reconciler = Deployments {
        recorder: context.recorder("deployment-controller"),
        deployments: Arc::clone(&deployments),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        context: context.clone(),
    };
    let of_pod = Arc::clone(&sets);
    let controller = Controller::new("deployment", reconciler)
        .owns_kind(&deployments)
        .watches_owned(&sets, "Deployment")
        // `Recreate` waits for the last pod of the old template to be gone.
        .watches(&pods, move |change| match change.new {
            None => deployment_of(&of_pod, change.object()).into_iter().collect(),
            Some(_) => Vec::new(),
        });
    vec![controller]
}

fn deployment_of(sets: &Cache<ReplicaSet>, pod: &Pod) -> Option<Key> {
    let namespace = meta::namespace(&pod.metadata);
    let owner = meta::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    let set = sets.get(&Key::new(namespace, owner.name.clone()))?;
    let owner = meta::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(Key::new(namespace, owner.name.clone()))
}

struct Deployments {
    context: Context,
    deployments: Arc<Cache<Deployment>>,
    sets: Arc<Cache<ReplicaSet>>,
    pods: Arc<Cache<Pod>>,
    recorder: Recorder,
}

impl Reconciler for Deployments {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.deployments.get(&key) {
                Some(deployment) => self.sync(&deployment).await,
                None => Ok(Next::OnChange),
            }
        })
    }
}

impl Deployments {
    async fn sync(&self, deployment: &Deployment) -> Outcome {
        let Some(spec) = &deployment.spec else { return Ok(Next::OnChange) };
        let selector = Selector::from_object(&spec.selector)?;
        if selector.is_everything() {
            self.recorder.record(
                deployment,
                Level::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Next::OnChange);
        }
        let candidates = Context::candidates(&self.sets, deployment, &selector);
        let sets = self.context.claim(deployment, &selector, candidates).await?;
        let old_pods_run = limits::is_recreate(spec) && self.old_pods_run(deployment, &sets);
        let Some(plan) = plan::plan(deployment, sets, old_pods_run, now()) else { return Ok(Next::OnChange) };
        self.execute(deployment, plan).await
    }

    /// Whether pods of other templates than the current still hold what the new ones need.
    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let Some(spec) = &deployment.spec else { return false };
        let (_, old) = sets::split(spec, sets.iter().cloned().map(sets::Set::new).collect());
        old.iter().any(|set| {
            let pods = self.pods.owned_by(meta::namespace(&set.seen.metadata), meta::uid(&set.seen.metadata));
            pods.iter().any(|pod| !crate::pod::has_ended(pod))
        })
    }

    async fn execute(&self, deployment: &Deployment, plan: Plan) -> Outcome {
        let mut status = plan.status;
        let mut failure = None;
        let mut version = deployment.metadata.resource_version.clone();
        for action in plan.actions {
            match self.act(deployment, action).await {
                Ok(Done::Fine) => {}
                Ok(Done::Noted(new)) => version = new,
                Ok(Done::Collision) => {
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        self.write_status(deployment, version, status).await?;
        match failure {
            Some(error) if !is_namespace_terminating(&error) => Err(error.into()),
            _ => Ok(plan.look_again.map_or(Next::OnChange, Next::After)),
        }
    }

    /// Only over the version that the plan was made from: a later one may tell of a rollout that this plan has not seen.
    async fn write_status(
        &self,
        deployment: &Deployment,
        version: Option<String>,
        status: DeploymentStatus,
    ) -> Result<(), kube::Error> {
        if deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let namespace = meta::namespace(&deployment.metadata);
        let api: Api<Deployment> = self.context.api(namespace);
        let metadata = serde_json::json!({ "uid": deployment.metadata.uid, "resourceVersion": version });
        let patch = serde_json::json!({ "metadata": metadata, "status": whole(&status) });
        let name = meta::name(&deployment.metadata);
        context::ignore_missing(api.patch_status(name, &context::params_patch(), &Patch::Merge(patch)).await)
    }

    async fn act(&self, deployment: &Deployment, action: Action) -> Result<Done, kube::Error> {
        let namespace = meta::namespace(&deployment.metadata);
        let sets: Api<ReplicaSet> = self.context.api(namespace);
        match action {
            Action::Create(set) => return self.create(deployment, &sets, *set).await,
            Action::Update { set, from, to } => {
                let name = meta::name(&set.metadata);
                sets.replace(name, &context::params(), &set).await?;
                self.tell_scaled(deployment, name, from, to);
            }
            Action::Delete(set) => {
                context::delete_exactly(&sets, &set.metadata, DeleteParams::background()).await?
            }
            Action::SetRevision(revision) => {
                let api: Api<Deployment> = self.context.api(namespace);
                let patch = plan::revision_patch(revision, deployment.metadata.resource_version.as_deref());
                let name = meta::name(&deployment.metadata);
                let noted = api.patch(name, &context::params_patch(), &Patch::Merge(patch)).await?;
                return Ok(Done::Noted(noted.metadata.resource_version));
            }
        }
        Ok(Done::Fine)
    }

    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: ReplicaSet,
    ) -> Result<Done, kube::Error> {
        let name = meta::name(&set.metadata);
        match sets.create(&context::params(), &set).await {
            Ok(_) => {
                self.tell_scaled(deployment, name, 0, sets::size(&set));
                Ok(Done::Fine)
            }
            Err(error) if client::is_conflict(&error) => {
                let Some(there) = sets.get_opt(name).await? else { return Err(error) };
                let ours = meta::is_controlled_by(&there.metadata, meta::uid(&deployment.metadata));
                let template =
                    |s: &ReplicaSet| s.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
                // Ours and not seen yet, or another template with the same hash.
                let known = ours && sets::same_template(&template(&there), &template(&set));
                Ok(if known { Done::Fine } else { Done::Collision })
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let message =
                        format!("Failed to create new replica set \"{name}\": {}", crate::message_of(&error));
                    self.recorder.record(deployment, Level::Warning, "ReplicaSetCreateError", message);
                }
                Err(error)
            }
        }
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {set} from {from} to {to}");
            self.recorder.record(deployment, Level::Normal, "ScalingReplicaSet", message);
        }
    }
}

enum Done {
    Fine,
    /// The Deployment itself has another version now.
    Noted(Option<String>),
    Collision,
}

/// All fields of a status, so that merging also removes those that are no longer there.
fn whole(status: &DeploymentStatus) -> serde_json::Value {
    serde_json::json!({
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "updatedReplicas": status.updated_replicas,
        "readyReplicas": status.ready_replicas,
        "availableReplicas": status.available_replicas,
        "unavailableReplicas": status.unavailable_replicas,
        "terminatingReplicas": status.terminating_replicas,
        "collisionCount": status.collision_count,
        "conditions": status.conditions,
    })
}
