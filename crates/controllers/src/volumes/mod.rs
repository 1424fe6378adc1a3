//! Persistent volumes: claims are bound to volumes that exist or are made for them, and volumes are kept or removed
//! when their claim is gone.

mod local;
mod plan;
pub mod protection;

use std::sync::Arc;

use base::constants::annotations;
use client::{Cache, Change, Controller, Key, Level, Next, Outcome, Reconciler, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::{self, Context};
use crate::meta;
use plan::{ClaimAction, Reclaim, VolumeAction};

pub fn start(context: &Context) -> Vec<Controller> {
    let claims = context.caches.of::<PersistentVolumeClaim>();
    let volumes = context.caches.of::<PersistentVolume>();
    let classes = context.caches.of::<StorageClass>();
    let nodes = context.caches.of::<Node>();
    let shared = Arc::new(Shared {
        context: context.clone(),
        recorder: context.recorder("persistentvolume-controller"),
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
        classes: Arc::clone(&classes),
        nodes: Arc::clone(&nodes),
    });
    let unbound = {
        let claims = Arc::clone(&claims);
        move || claims.all().iter().filter(|c| !is_bound(c)).map(|c| Key::of(&**c)).collect::<Vec<_>>()
    };
    let on_class = unbound.clone();
    let on_node = unbound.clone();
    let of_claims = Controller::new("pvc-binder", Claims(Arc::clone(&shared)))
        // One at a time: two claims must not be given the same volume.
        .workers(1)
        .owns_kind(&claims)
        .watches(&volumes, move |change: &Change<PersistentVolume>| {
            let mut keys: Vec<Key> = claim_of(change.object()).into_iter().collect();
            let free =
                change.new.as_ref().is_some_and(|v| v.spec.as_ref().is_none_or(|s| s.claim_ref.is_none()));
            if free {
                keys.extend(unbound());
            }
            keys
        })
        .watches(&classes, move |_| on_class())
        .watches(
            &nodes,
            move |change: &Change<Node>| if change.old.is_none() { on_node() } else { Vec::new() },
        );
    let all = Arc::clone(&volumes);
    let of_volumes = Controller::new("pv-binder", Volumes(shared)).owns_kind(&volumes).watches(
        &claims,
        move |change: &Change<PersistentVolumeClaim>| {
            let key = Key::of(&**change.object());
            let bound = change.object().spec.as_ref().and_then(|s| s.volume_name.clone());
            let mut keys: Vec<Key> = bound.into_iter().map(|name| Key::new("", name)).collect();
            if change.new.is_none() {
                // Also one that was reserved and never bound.
                keys.extend(
                    all.all().iter().filter(|v| claim_of(v).as_ref() == Some(&key)).map(|v| Key::of(&**v)),
                );
            }
            keys
        },
    );
    vec![of_claims, of_volumes]
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reserved = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(reserved.namespace.clone()?, reserved.name.clone()?))
}

struct Shared {
    context: Context,
    recorder: Recorder,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
    classes: Arc<Cache<StorageClass>>,
    nodes: Arc<Cache<Node>>,
}

struct Claims(Arc<Shared>);
struct Volumes(Arc<Shared>);

impl Reconciler for Claims {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let this = &self.0;
            let Some(claim) = this.claims.get(&key) else { return Ok(Next::OnChange) };
            if meta::is_deleting(&claim.metadata) && !is_bound(&claim) {
                return Ok(Next::OnChange);
            }
            let action = plan::claim(&claim, &this.volumes.all(), &this.classes.all());
            this.act_on_claim(&claim, action).await
        })
    }
}

impl Reconciler for Volumes {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let this = &self.0;
            let Some(volume) = this.volumes.get(&key) else { return Ok(Next::OnChange) };
            let claim = claim_of(&volume).and_then(|key| this.claims.get(&key));
            match plan::volume(&volume, claim.as_deref()) {
                VolumeAction::Phase(phase) => this.set_phase(&volume, phase, None).await?,
                VolumeAction::Reclaim => return this.reclaim(&volume).await,
                VolumeAction::Done => {}
            }
            Ok(Next::OnChange)
        })
    }
}

impl Shared {
    fn claim_api(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        self.context.api(meta::namespace(&claim.metadata))
    }

    async fn act_on_claim(&self, claim: &PersistentVolumeClaim, action: ClaimAction) -> Outcome {
        match action {
            ClaimAction::Done => {}
            ClaimAction::Wait(event) => {
                if let Some((reason, message)) = event {
                    let level = if reason == "ProvisioningFailed" { Level::Warning } else { Level::Normal };
                    self.recorder.record(claim, level, reason, message);
                }
                self.claim_phase(claim, "Pending").await?;
            }
            ClaimAction::SetClass(name) => {
                self.patch_claim(claim, json!({ "spec": { "storageClassName": name } })).await?;
            }
            ClaimAction::AwaitProvisioner(by) => {
                let message = format!(
                    "Waiting for a volume to be created either by the external provisioner '{by}' or manually by the \
                     system administrator. If volume creation is delayed, please verify that the provisioner is \
                     running and correctly registered."
                );
                self.recorder.record(claim, Level::Normal, "ExternalProvisioning", message);
                if meta::annotation(&claim.metadata, annotations::STORAGE_PROVISIONER) != Some(&by) {
                    self.patch_claim(
                        claim,
                        json!({ "metadata": { "annotations": { annotations::STORAGE_PROVISIONER: by } } }),
                    )
                    .await?;
                }
            }
            ClaimAction::Lost(reason, message) => {
                self.recorder.record(claim, Level::Warning, reason, message);
                self.claim_phase(claim, "Lost").await?;
            }
            ClaimAction::Provision(class) => return self.provision(claim, &class).await,
            ClaimAction::Bind(volume) => self.bind(claim, &volume).await?,
        }
        Ok(Next::OnChange)
    }

    async fn provision(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Outcome {
        let made = local::volume(claim, class, &self.nodes.all(), &self.context.config.volumes_dir);
        let volume = match made {
            Ok(volume) => volume,
            Err(error) => {
                let message = format!(
                    "failed to provision volume with StorageClass \"{}\": {error}",
                    meta::name(&class.metadata)
                );
                self.recorder.record(claim, Level::Warning, "ProvisioningFailed", message);
                if let local::LocalError::NoNode(_) = error {
                    // Gives the scheduler the choice again.
                    self.patch_claim(
                        claim,
                        json!({ "metadata": { "annotations": { annotations::SELECTED_NODE: null } } }),
                    )
                    .await?;
                }
                return Ok(Next::OnChange);
            }
        };
        let api: Api<PersistentVolume> = self.context.cluster_api();
        context::ignore_existing(api.create(&context::params(), &volume).await)?;
        let message = format!("Successfully provisioned volume {}", meta::name(&volume.metadata));
        self.recorder.record(claim, Level::Normal, "ProvisioningSucceeded", message);
        // The volume's appearance brings the claim back to be bound.
        Ok(Next::OnChange)
    }

    /// Each step leaves a state that the next turn goes on from.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), kube::Error> {
        let api: Api<PersistentVolume> = self.context.cluster_api();
        let name = meta::name(&volume.metadata);
        let reserved = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_ref());
        let mut bound = volume.clone();
        if reserved != claim.metadata.uid.as_ref() {
            let patch = json!({
                "metadata": { "resourceVersion": volume.metadata.resource_version,
                    "annotations": { "pv.kubernetes.io/bound-by-controller": "yes" } },
                "spec": { "claimRef": plan::reference(claim) },
            });
            bound = api.patch(name, &context::params_patch(), &Patch::Merge(patch)).await?;
        }
        self.set_phase(&bound, "Bound", None).await?;
        let mut current = claim.clone();
        let done = meta::annotation(&claim.metadata, annotations::BIND_COMPLETED).is_some();
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == Some(name);
        if !done || !named {
            let mut notes = json!({ annotations::BIND_COMPLETED: "yes" });
            if !named {
                notes["pv.kubernetes.io/bound-by-controller"] = json!("yes");
            }
            let patch = json!({ "metadata": { "annotations": notes }, "spec": { "volumeName": name } });
            current = self.patch_claim(claim, patch).await?;
        }
        let spec = volume.spec.clone().unwrap_or_default();
        let status = PersistentVolumeClaimStatus {
            phase: Some("Bound".into()),
            access_modes: spec.access_modes,
            capacity: spec.capacity,
            ..current.status.clone().unwrap_or_default()
        };
        if current.status.as_ref() != Some(&status) {
            current.status = Some(status);
            context::write_status(&self.claim_api(claim), &current).await?;
        }
        Ok(())
    }

    /// Patches this very version, and returns the next.
    async fn patch_claim(
        &self,
        claim: &PersistentVolumeClaim,
        mut patch: serde_json::Value,
    ) -> Result<PersistentVolumeClaim, kube::Error> {
        patch["metadata"]["resourceVersion"] = json!(claim.metadata.resource_version);
        let api = self.claim_api(claim);
        api.patch(meta::name(&claim.metadata), &context::params_patch(), &Patch::Merge(patch)).await
    }

    async fn claim_phase(&self, claim: &PersistentVolumeClaim, phase: &str) -> Result<(), kube::Error> {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let mut updated = claim.clone();
        updated.status.get_or_insert_default().phase = Some(phase.into());
        context::ignore_missing(context::write_status(&self.claim_api(claim), &updated).await)
    }

    async fn set_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<String>,
    ) -> Result<(), kube::Error> {
        let mut updated = volume.clone();
        let status = updated.status.get_or_insert_default();
        if status.phase.as_deref() != Some(phase) {
            status.last_phase_transition_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(context::now()));
        }
        status.phase = Some(phase.into());
        status.message = message;
        if updated.status == volume.status {
            return Ok(());
        }
        let api: Api<PersistentVolume> = self.context.cluster_api();
        context::ignore_missing(context::write_status(&api, &updated).await)
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Outcome {
        // The cache of claims may not have seen the claim yet: data is at stake, so ask.
        if let Some(key) = claim_of(volume) {
            let api: Api<PersistentVolumeClaim> = self.context.api(&key.namespace);
            let live = api.get_opt(&key.name).await?;
            let uid = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_ref());
            if live.is_some_and(|claim| claim.metadata.uid.as_ref() == uid) {
                return Ok(Next::OnChange);
            }
        }
        match plan::reclaim(volume) {
            Reclaim::Keep => self.set_phase(volume, "Released", None).await?,
            Reclaim::Fail(message) => {
                self.recorder.record(volume, Level::Warning, "VolumeFailedDelete", message.clone());
                self.set_phase(volume, "Failed", Some(message)).await?;
            }
            Reclaim::Remove => {
                self.set_phase(volume, "Released", None).await?;
                return self.remove(volume).await;
            }
        }
        Ok(Next::OnChange)
    }

    async fn remove(&self, volume: &PersistentVolume) -> Outcome {
        let directory = local::directory(volume, &self.context.config.volumes_dir);
        let removed = match directory {
            Ok(path) => local::remove(path).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            self.recorder.record(volume, Level::Warning, "VolumeFailedDelete", error.to_string());
            self.set_phase(volume, "Failed", Some(error.to_string())).await?;
            return Err(error.into());
        }
        let api: Api<PersistentVolume> = self.context.cluster_api();
        context::delete_exactly(&api, &volume.metadata, DeleteParams::default()).await?;
        Ok(Next::OnChange)
    }
}
