//! Claims that a pod uses, volumes that a claim uses and the classes of attributes that either names are not removed
//! under them: finalizers hold them until they are free.

use std::sync::Arc;

use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::Api;
use kube::api::ListParams;

use crate::context::{self, Context};
use crate::{meta, pod};

pub const PVC_FINALIZER: &str = "kubernetes.io/pvc-protection";
pub const PV_FINALIZER: &str = "kubernetes.io/pv-protection";
const VAC_FINALIZER: &str = "kubernetes.io/vac-protection";

pub fn start(context: &Context) -> Vec<Controller> {
    let claims = context.caches.of::<PersistentVolumeClaim>();
    let volumes = context.caches.of::<PersistentVolume>();
    let pods = context.caches.of::<Pod>();
    let of_claims =
        ClaimProtection { context: context.clone(), claims: Arc::clone(&claims), pods: Arc::clone(&pods) };
    let of_volumes = VolumeProtection { context: context.clone(), volumes: Arc::clone(&volumes) };
    let claims_of_pod = |pod: &Pod| {
        let namespace = meta::namespace(&pod.metadata);
        claim_names(pod).into_iter().map(|name| Key::new(namespace, name)).collect::<Vec<_>>()
    };
    vec![
        Controller::new("pvc-protection", of_claims).owns_kind(&claims).watches(&pods, move |change| {
            match change.new.as_ref().is_none_or(|pod| pod::has_ended(pod)) {
                true => claims_of_pod(change.object()),
                false => Vec::new(),
            }
        }),
        Controller::new("pv-protection", of_volumes).owns_kind(&volumes),
        attribute_classes(context, claims, volumes),
    ]
}

/// Classes of attributes are looked at again when a claim or a volume that named one changes or goes.
fn attribute_classes(
    context: &Context,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
) -> Controller {
    let classes = context.caches.of::<VolumeAttributesClass>();
    let reconciler = ClassProtection {
        context: context.clone(),
        classes: Arc::clone(&classes),
        claims: Arc::clone(&claims),
        volumes: Arc::clone(&volumes),
    };
    let keys = |names: Vec<String>| names.into_iter().map(|name| Key::new("", name)).collect::<Vec<_>>();
    Controller::new("vac-protection", reconciler)
        .owns_kind(&classes)
        .watches(&claims, move |change| keys(change.old.iter().flat_map(|c| classes_of_claim(c)).collect()))
        .watches(&volumes, move |change| keys(change.old.iter().flat_map(|v| classes_of_volume(v)).collect()))
}

/// That which it is to have, that which it has, and that which it is on its way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let status = claim.status.as_ref();
    [
        claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone()),
        status.and_then(|s| s.current_volume_attributes_class_name.clone()),
        status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.clone()),
    ]
    .into_iter()
    .flatten()
    .filter(|name| !name.is_empty())
    .collect()
}

fn classes_of_volume(volume: &PersistentVolume) -> Vec<String> {
    let name = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.clone());
    name.into_iter().filter(|name| !name.is_empty()).collect()
}

struct ClassProtection {
    context: Context,
    classes: Arc<Cache<VolumeAttributesClass>>,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    volumes: Arc<Cache<PersistentVolume>>,
}

impl Reconciler for ClassProtection {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(class) = self.classes.get(&key) else { return Ok(Next::OnChange) };
            let api: Api<VolumeAttributesClass> = self.context.cluster_api();
            let held = meta::has_finalizer(&class.metadata, VAC_FINALIZER);
            let names = |list: Vec<String>| list.contains(&key.name);
            let used = || {
                self.claims.all().iter().any(|c| names(classes_of_claim(c)))
                    || self.volumes.all().iter().any(|v| names(classes_of_volume(v)))
            };
            match (meta::is_deleting(&class.metadata), held) {
                (false, false) => context::add_finalizer(&api, &*class, VAC_FINALIZER).await?,
                (true, true) if !used() => {
                    context::remove_finalizer(&api, &*class, VAC_FINALIZER).await?;
                }
                _ => {}
            }
            Ok(Next::OnChange)
        })
    }
}

pub fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let names = volumes.filter_map(|volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        named.or_else(|| {
            volume.ephemeral.as_ref().map(|_| format!("{}-{}", meta::name(&pod.metadata), volume.name))
        })
    });
    names.collect()
}

fn uses(pod: &Pod, claim: &str) -> bool {
    !pod::has_ended(pod) && pod::node_name(pod).is_some() && claim_names(pod).iter().any(|name| name == claim)
}

struct ClaimProtection {
    context: Context,
    claims: Arc<Cache<PersistentVolumeClaim>>,
    pods: Arc<Cache<Pod>>,
}

impl Reconciler for ClaimProtection {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(claim) = self.claims.get(&key) else { return Ok(Next::OnChange) };
            let api: Api<PersistentVolumeClaim> = self.context.api(&key.namespace);
            let held = meta::has_finalizer(&claim.metadata, PVC_FINALIZER);
            match (meta::is_deleting(&claim.metadata), held) {
                (false, false) => context::add_finalizer(&api, &*claim, PVC_FINALIZER).await?,
                (true, true) if !self.in_use(&key).await? => {
                    context::remove_finalizer(&api, &*claim, PVC_FINALIZER).await?;
                }
                _ => {}
            }
            Ok(Next::OnChange)
        })
    }
}

impl ClaimProtection {
    /// A pod that was bound a moment ago may be missing in the cache: the API has the last word.
    async fn in_use(&self, key: &Key) -> Result<bool, kube::Error> {
        if self.pods.in_namespace(&key.namespace).iter().any(|pod| uses(pod, &key.name)) {
            return Ok(true);
        }
        let api: Api<Pod> = self.context.api(&key.namespace);
        let live = api.list(&ListParams::default()).await?;
        Ok(live.items.iter().any(|pod| uses(pod, &key.name)))
    }
}

struct VolumeProtection {
    context: Context,
    volumes: Arc<Cache<PersistentVolume>>,
}

impl Reconciler for VolumeProtection {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(volume) = self.volumes.get(&key) else { return Ok(Next::OnChange) };
            let api: Api<PersistentVolume> = self.context.cluster_api();
            let held = meta::has_finalizer(&volume.metadata, PV_FINALIZER);
            let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
            match (meta::is_deleting(&volume.metadata), held) {
                (false, false) => context::add_finalizer(&api, &*volume, PV_FINALIZER).await?,
                (true, true) if !bound => context::remove_finalizer(&api, &*volume, PV_FINALIZER).await?,
                _ => {}
            }
            Ok(Next::OnChange)
        })
    }
}
