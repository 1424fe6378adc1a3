//! StatefulSets: pods with an identity, each with its own claims.

mod plan;
mod revision;

use std::sync::Arc;

use api::selector::Selector;
use client::{Cache, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::{self, Context, is_namespace_terminating, now};
use crate::meta;
use plan::{Action, Revisions};
use revision::Latest;

pub fn start(context: &Context) -> Vec<Controller> {
    let sets = context.caches.of::<StatefulSet>();
    let pods = context.caches.of::<Pod>();
    let revisions = context.caches.of::<ControllerRevision>();
    let claims = context.caches.of::<PersistentVolumeClaim>();
    let reconciler = StatefulSets {
        context: context.clone(),
        recorder: context.recorder("statefulset-controller"),
        sets: Arc::clone(&sets),
        pods: Arc::clone(&pods),
        revisions: Arc::clone(&revisions),
        claims: Arc::clone(&claims),
    };
    let controller = Controller::new("statefulset", reconciler)
        .owns_kind(&sets)
        .watches_owned(&pods, "StatefulSet")
        .watches_owned(&revisions, "StatefulSet")
        .watches(&claims, |_| Vec::new());
    vec![controller]
}

struct StatefulSets {
    context: Context,
    recorder: Recorder,
    sets: Arc<Cache<StatefulSet>>,
    pods: Arc<Cache<Pod>>,
    revisions: Arc<Cache<ControllerRevision>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
}

impl Reconciler for StatefulSets {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(set) = self.sets.get(&key) else { return Ok(Next::OnChange) };
            self.sync(&set).await
        })
    }
}

impl StatefulSets {
    async fn sync(&self, set: &StatefulSet) -> Outcome {
        let Some(spec) = &set.spec else { return Ok(Next::OnChange) };
        let selector = Selector::from_object(&spec.selector)?;
        let namespace = meta::namespace(&set.metadata);
        let name = meta::name(&set.metadata);
        let candidates = Context::candidates(&self.pods, set, &selector).into_iter();
        let named = candidates.filter(|p| plan::ordinal(name, p).is_some());
        let pods = self.context.claim(set, &selector, named.collect()).await?;
        let revisions = self.revisions.owned_by(namespace, meta::uid(&set.metadata));
        let latest = revision::latest(set, &spec.template, &revisions);
        if !meta::is_deleting(&set.metadata) && !self.write_revision(set, &latest).await? {
            return Ok(Next::OnChange);
        }
        let update = meta::name(&latest.revision().metadata).to_owned();
        let current = set.status.as_ref().and_then(|s| s.current_revision.clone()).filter(|c| !c.is_empty());
        let current = current.unwrap_or_else(|| update.clone());
        let named = Revisions { current: &current, update: &update };
        let Some(plan) = plan::plan(set, &pods, named, now()) else { return Ok(Next::OnChange) };
        // Told first: what a pod is made from depends on how many had the former revision.
        if set.status.as_ref() != Some(&plan.status) {
            let updated = StatefulSet { status: Some(plan.status.clone()), ..set.clone() };
            let api: Api<StatefulSet> = self.context.api(namespace);
            context::ignore_missing(context::write_status(&api, &updated).await)?;
        }
        let known = revisions.iter().find(|r| meta::name(&r.metadata) == current);
        let former = known.and_then(|r| revision::template(r));
        for action in plan.actions {
            let done = self.act(set, action, (&current, former.as_ref()), &update).await;
            match done {
                Err(error) if is_namespace_terminating(&error) => return Ok(Next::OnChange),
                other => other?,
            }
        }
        let live = [current.as_str(), update.as_str()];
        for old in revision::surplus(set, &revisions, &pods, &live) {
            let api: Api<ControllerRevision> = self.context.api(namespace);
            context::delete_exactly(&api, &old.metadata, DeleteParams::default()).await?;
        }
        Ok(plan.look_again.map_or(Next::OnChange, Next::After))
    }

    /// False if the name is taken by another template's revision: a collision was counted, and a new turn follows.
    async fn write_revision(&self, set: &StatefulSet, latest: &Latest) -> Result<bool, kube::Error> {
        let namespace = meta::namespace(&set.metadata);
        let api: Api<ControllerRevision> = self.context.api(namespace);
        match latest {
            Latest::Known(_) => Ok(true),
            Latest::Renumber(revision) => {
                api.replace(meta::name(&revision.metadata), &context::params(), revision).await?;
                Ok(true)
            }
            Latest::Create(revision) => match api.create(&context::params(), revision).await {
                Ok(_) => Ok(true),
                Err(error) if is_namespace_terminating(&error) => Ok(false),
                Err(error) if client::is_conflict(&error) => {
                    let there = api.get(meta::name(&revision.metadata)).await?;
                    if there.data == revision.data
                        && meta::is_controlled_by(&there.metadata, meta::uid(&set.metadata))
                    {
                        return Ok(true);
                    }
                    let mut updated = set.clone();
                    let status = updated.status.get_or_insert_default();
                    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                    let sets: Api<StatefulSet> = self.context.api(namespace);
                    context::write_status(&sets, &updated).await?;
                    Ok(false)
                }
                Err(error) => Err(error),
            },
        }
    }

    async fn act(
        &self,
        set: &StatefulSet,
        action: Action,
        (current, former): (&str, Option<&PodTemplateSpec>),
        update: &str,
    ) -> Result<(), kube::Error> {
        match action {
            Action::Create(ordinal) => {
                let latest = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
                let (template, revision) = match former {
                    Some(former) if plan::wants_current(set, ordinal) => (former.clone(), current),
                    _ => (latest, update),
                };
                self.create_claims(set, ordinal).await?;
                self.create_pod(set, &plan::new_pod(set, &template, revision, ordinal)).await
            }
            Action::Delete { pod, scaled_down } => {
                if scaled_down {
                    self.hand_claims_to(set, &pod).await?;
                }
                self.context.delete_pod(&pod).await?;
                let message = format!(
                    "delete Pod {} in StatefulSet {} successful",
                    meta::name(&pod.metadata),
                    meta::name(&set.metadata)
                );
                self.recorder.record(set, Level::Normal, "SuccessfulDelete", message);
                Ok(())
            }
        }
    }

    async fn create_pod(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let (name, set_name) = (meta::name(&pod.metadata), meta::name(&set.metadata));
        let api: Api<Pod> = self.context.api(meta::namespace(&set.metadata));
        match api.create(&context::params(), pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {set_name} successful");
                self.recorder.record(set, Level::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            // Ours, and the cache has not seen it; or another's, whose end will be seen.
            Err(error) if client::is_conflict(&error) => Ok(()),
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let why = crate::message_of(&error);
                    let message = format!("create Pod {name} in StatefulSet {set_name} failed error: {why}");
                    self.recorder.record(set, Level::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), kube::Error> {
        let namespace = meta::namespace(&set.metadata);
        let api: Api<PersistentVolumeClaim> = self.context.api(namespace);
        for claim in plan::new_claims(set, ordinal) {
            let name = meta::name(&claim.metadata);
            if let Some(known) = self.claims.get(&Key::new(namespace, name)) {
                self.take_back(set, &known).await?;
                continue;
            }
            match api.create(&context::params(), &claim).await {
                Ok(_) => {
                    let message = format!(
                        "create Claim {name} Pod {}-{ordinal} in StatefulSet {0} success",
                        meta::name(&set.metadata)
                    );
                    self.recorder.record(set, Level::Normal, "SuccessfulCreate", message);
                }
                other => context::ignore_existing(other)?,
            }
        }
        Ok(())
    }

    fn claims_go_when_scaled(set: &StatefulSet) -> bool {
        let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        policy.and_then(|p| p.when_scaled.as_deref()) == Some("Delete")
    }

    /// Before a pod is scaled away its claims become its own, so that they go with it, if that is asked for.
    async fn hand_claims_to(&self, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
        let Some(ordinal) =
            plan::ordinal(meta::name(&set.metadata), pod).filter(|_| Self::claims_go_when_scaled(set))
        else {
            return Ok(());
        };
        let owner =
            OwnerReference { controller: None, block_owner_deletion: None, ..meta::controller_ref(pod) };
        for claim in plan::new_claims(set, ordinal) {
            let api: Api<PersistentVolumeClaim> = self.context.api(meta::namespace(&set.metadata));
            // The set's own reference would keep the claim.
            let mut owners = vec![json!(owner)];
            owners.push(json!({ "$patch": "delete", "uid": meta::uid(&set.metadata) }));
            let patch = Patch::Strategic(json!({ "metadata": { "ownerReferences": owners } }));
            let name = meta::name(&claim.metadata);
            context::ignore_missing(api.patch(name, &context::params_patch(), &patch).await)?;
        }
        Ok(())
    }

    /// A claim that was to go with a former pod is kept for the one that comes.
    async fn take_back(&self, set: &StatefulSet, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
        let owners = claim.metadata.owner_references.clone().unwrap_or_default();
        if meta::is_deleting(&claim.metadata) || !owners.iter().any(|o| o.kind == "Pod") {
            return Ok(());
        }
        let mut kept: Vec<_> = owners.into_iter().filter(|o| o.kind != "Pod").collect();
        let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        if policy.and_then(|p| p.when_deleted.as_deref()) == Some("Delete") && kept.is_empty() {
            kept.push(meta::controller_ref(set));
        }
        let patch = json!({ "metadata": { "resourceVersion": claim.metadata.resource_version, "ownerReferences": kept } });
        let api: Api<PersistentVolumeClaim> = self.context.api(meta::namespace(&claim.metadata));
        api.patch(meta::name(&claim.metadata), &context::params_patch(), &Patch::Merge(patch)).await.map(drop)
    }
}
