//! Which volume a claim gets, and what a volume's state is: pure questions to claims, volumes and classes.

use std::sync::Arc;

use api::quantity::Quantity as Amount;
use api::selector::Selector;
use base::constants::{LOCAL_PROVISIONER, annotations};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::meta;

#[derive(Debug)]
pub enum ClaimAction {
    /// The claim named no class, and there is a default one.
    SetClass(String),
    /// Both sides point at each other, or should: finish it.
    Bind(Arc<PersistentVolume>),
    Provision(Arc<StorageClass>),
    /// Somebody else makes the volume.
    AwaitProvisioner(String),
    /// Nothing to do yet; the reason and text of an event, if users should know.
    Wait(Option<(&'static str, String)>),
    /// Its volume is gone, or another's.
    Lost(&'static str, String),
    Done,
}

pub fn text(field: Option<&String>) -> &str {
    field.map(String::as_str).unwrap_or_default()
}

/// Whether a volume is reserved for this claim, or for one of its name that nobody has seen yet.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reserved = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reserved.is_some_and(|r| {
        r.name == claim.metadata.name
            && r.namespace == claim.metadata.namespace
            && r.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

pub fn claim(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    classes: &[Arc<StorageClass>],
) -> ClaimAction {
    let spec = claim.spec.clone().unwrap_or_default();
    let bound_once = meta::annotation(&claim.metadata, annotations::BIND_COMPLETED).is_some();
    if let Some(name) = spec.volume_name.filter(|n| !n.is_empty()) {
        return named(claim, &name, bound_once, volumes);
    }
    let Some(class_name) = &spec.storage_class_name else {
        let default = default_class(classes).map(|class| meta::name(&class.metadata).to_owned());
        return match default {
            Some(name) => ClaimAction::SetClass(name),
            None => bind_or(claim, volumes, no_class),
        };
    };
    let class = classes.iter().find(|c| c.metadata.name.as_ref() == Some(class_name));
    let waits = class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let selected = meta::annotation(&claim.metadata, annotations::SELECTED_NODE).is_some();
    if waits && !selected {
        // The scheduler reserves a volume for the claim, or selects a node to make one on.
        return match volumes.iter().find(|v| is_for(v, claim)) {
            Some(volume) => ClaimAction::Bind(Arc::clone(volume)),
            None => ClaimAction::Wait(Some((
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".into(),
            ))),
        };
    }
    bind_or(claim, volumes, || match class {
        _ if class_name.is_empty() => no_class(),
        None => ClaimAction::Wait(Some((
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io \"{class_name}\" not found"),
        ))),
        Some(class) if class.provisioner == "kubernetes.io/no-provisioner" => ClaimAction::Wait(Some((
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".into(),
        ))),
        Some(class) if class.provisioner == LOCAL_PROVISIONER => ClaimAction::Provision(Arc::clone(class)),
        Some(class) => ClaimAction::AwaitProvisioner(class.provisioner.clone()),
    })
}

fn no_class() -> ClaimAction {
    let text = "no persistent volumes available for this claim and no storage class is set";
    ClaimAction::Wait(Some(("FailedBinding", text.into())))
}

fn named(
    claim: &PersistentVolumeClaim,
    name: &str,
    bound_once: bool,
    volumes: &[Arc<PersistentVolume>],
) -> ClaimAction {
    let Some(volume) = volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name)) else {
        return match bound_once {
            true => ClaimAction::Lost(
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!".into(),
            ),
            false => ClaimAction::Wait(None),
        };
    };
    let free = volume.spec.as_ref().is_none_or(|s| s.claim_ref.is_none());
    if free || is_for(volume, claim) {
        return match free && bound_once {
            true => ClaimAction::Lost(
                "ClaimLost",
                "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!".into(),
            ),
            false if is_complete(claim, volume) => ClaimAction::Done,
            false => ClaimAction::Bind(Arc::clone(volume)),
        };
    }
    match bound_once {
        true => ClaimAction::Lost(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly".into(),
        ),
        false => ClaimAction::Wait(Some((
            "FailedBinding",
            format!("volume \"{name}\" already bound to a different claim."),
        ))),
    }
}

fn is_complete(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let reserved = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_ref());
    let volume_phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Bound")
        && meta::annotation(&claim.metadata, annotations::BIND_COMPLETED).is_some()
        && reserved == claim.metadata.uid.as_ref()
        && volume_phase == Some("Bound")
}

fn bind_or(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    or: impl FnOnce() -> ClaimAction,
) -> ClaimAction {
    match find(claim, volumes) {
        Some(volume) => ClaimAction::Bind(volume),
        None => or(),
    }
}

/// A volume that was reserved for the claim, or else the smallest free one that satisfies it.
fn find(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<Arc<PersistentVolume>> {
    if let Some(reserved) = volumes.iter().find(|v| is_for(v, claim)) {
        return Some(Arc::clone(reserved));
    }
    let fitting = volumes.iter().filter(|volume| satisfies(volume, claim));
    fitting.min_by_key(|v| (capacity(v), v.metadata.name.clone())).map(Arc::clone)
}

fn satisfies(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    let offered = has.access_modes.clone().unwrap_or_default();
    let selector =
        wants.selector.as_ref().map(|s| Selector::from_object(s).unwrap_or_else(|_| Selector::nothing()));
    has.claim_ref.is_none()
        && !meta::is_deleting(&volume.metadata)
        && volume
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .is_none_or(|p| p == "Available" || p == "Pending")
        && text(has.storage_class_name.as_ref()) == text(wants.storage_class_name.as_ref())
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.access_modes.iter().flatten().all(|m| offered.contains(m))
        && selector.is_none_or(|s| s.matches(meta::labels(&volume.metadata)))
        && capacity(volume) >= requested(claim)
}

fn bytes(quantity: Option<&Quantity>) -> i64 {
    quantity.and_then(|q| Amount::parse(&q.0).ok()).map_or(0, |amount| amount.to_i64())
}

fn capacity(volume: &PersistentVolume) -> i64 {
    bytes(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage")))
}

fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    bytes(resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")))
}

/// The newest of those marked as default.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let marked = classes
        .iter()
        .filter(|c| meta::annotation(&c.metadata, annotations::DEFAULT_STORAGE_CLASS) == Some("true"));
    marked.max_by_key(|c| (meta::created(&c.metadata), std::cmp::Reverse(c.metadata.name.clone())))
}

pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..Default::default()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum VolumeAction {
    Phase(&'static str),
    /// Ask the API whether the claim is really gone; then [`reclaim`].
    Reclaim,
    Done,
}

/// What a volume's state should be, given the claim of the name it is reserved for.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeAction {
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let to =
        |wanted: &'static str| if phase == wanted { VolumeAction::Done } else { VolumeAction::Phase(wanted) };
    let Some(reserved) = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) else {
        return to("Available");
    };
    let Some(uid) = reserved.uid.as_ref().filter(|uid| !uid.is_empty()) else { return to("Available") };
    match claim.filter(|c| c.metadata.uid.as_ref() == Some(uid)) {
        None => VolumeAction::Reclaim,
        // The claim's own turn makes it bound.
        Some(_) => VolumeAction::Done,
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reclaim {
    Keep,
    Remove,
    Fail(String),
}

pub fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let by = meta::annotation(&volume.metadata, annotations::PROVISIONED_BY);
    match (policy, by) {
        (Some("Delete"), Some(by)) if by == LOCAL_PROVISIONER => Reclaim::Remove,
        // Its own provisioner does it.
        (Some("Delete"), Some(_)) => Reclaim::Keep,
        (Some("Delete"), None) => Reclaim::Fail(
            "error getting deleter volume plugin for volume: no deletable volume plugin matched".into(),
        ),
        (Some("Recycle"), _) => Reclaim::Fail("no recyclable volume plugin matched".into()),
        _ => Reclaim::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::VolumeResourceRequirements;

    fn a_claim(class: Option<&str>, size: &str) -> PersistentVolumeClaim {
        let mut claim = PersistentVolumeClaim::default();
        claim.metadata.name = Some("data".into());
        claim.metadata.namespace = Some("ns".into());
        claim.metadata.uid = Some("u".into());
        let spec = claim.spec.get_or_insert_default();
        spec.storage_class_name = class.map(str::to_owned);
        spec.access_modes = Some(vec!["ReadWriteOnce".into()]);
        let requests = Some([("storage".to_owned(), Quantity(size.into()))].into());
        spec.resources = Some(VolumeResourceRequirements { requests, ..Default::default() });
        claim
    }

    fn a_volume(name: &str, class: &str, size: &str) -> PersistentVolume {
        let mut volume = PersistentVolume::default();
        volume.metadata.name = Some(name.into());
        let spec = volume.spec.get_or_insert_default();
        spec.storage_class_name = Some(class.into());
        spec.access_modes = Some(vec!["ReadWriteOnce".into(), "ReadOnlyMany".into()]);
        spec.capacity = Some([("storage".to_owned(), Quantity(size.into()))].into());
        volume
    }

    fn a_class(name: &str, mode: &str, default: bool) -> Arc<StorageClass> {
        let mut class = StorageClass { provisioner: LOCAL_PROVISIONER.into(), ..Default::default() };
        class.metadata.name = Some(name.into());
        class.volume_binding_mode = Some(mode.into());
        let mark = (annotations::DEFAULT_STORAGE_CLASS.to_owned(), default.to_string());
        class.metadata.annotations = Some([mark].into());
        Arc::new(class)
    }

    fn told(action: &ClaimAction) -> String {
        match action {
            ClaimAction::SetClass(name) => format!("class {name}"),
            ClaimAction::Bind(volume) => format!("bind {}", meta::name(&volume.metadata)),
            ClaimAction::Provision(_) => "provision".into(),
            ClaimAction::AwaitProvisioner(by) => format!("await {by}"),
            ClaimAction::Wait(event) => event.as_ref().map_or("wait", |(reason, _)| *reason).into(),
            ClaimAction::Lost(reason, _) => (*reason).into(),
            ClaimAction::Done => "done".into(),
        }
    }

    #[test]
    fn claims_get_what_fits_or_have_it_made() {
        let volumes: Vec<_> = [
            a_volume("big", "fast", "10Gi"),
            a_volume("small", "fast", "2Gi"),
            a_volume("tiny", "fast", "1Mi"),
            a_volume("other", "slow", "1Gi"),
        ]
        .into_iter()
        .map(Arc::new)
        .collect();
        let classes = [a_class("local", "WaitForFirstConsumer", true), a_class("now", "Immediate", false)];
        let mut selected = a_claim(Some("local"), "1Gi");
        selected.metadata.annotations =
            Some([(annotations::SELECTED_NODE.to_owned(), "n1".to_owned())].into());
        let cases = [
            (a_claim(None, "1Gi"), "class local"),
            (a_claim(Some("fast"), "1Gi"), "bind small"),
            (a_claim(Some("fast"), "3Gi"), "bind big"),
            (a_claim(Some("fast"), "30Gi"), "ProvisioningFailed"),
            (a_claim(Some(""), "1Gi"), "FailedBinding"),
            (a_claim(Some("local"), "1Gi"), "WaitForFirstConsumer"),
            (a_claim(Some("now"), "1Gi"), "provision"),
            (selected, "provision"),
        ];
        for (c, expected) in cases {
            assert_eq!(told(&claim(&c, &volumes, &classes)), expected, "{:?}", c.spec);
        }
    }

    #[test]
    fn a_bound_claim_that_loses_its_volume_is_lost() {
        let mut c = a_claim(Some("fast"), "1Gi");
        c.spec.get_or_insert_default().volume_name = Some("v".into());
        assert_eq!(told(&claim(&c, &[], &[])), "wait");
        let mut v = a_volume("v", "fast", "1Gi");
        assert_eq!(told(&claim(&c, &[Arc::new(v.clone())], &[])), "bind v");
        c.metadata.annotations = Some([(annotations::BIND_COMPLETED.to_owned(), "yes".to_owned())].into());
        assert_eq!(told(&claim(&c, &[], &[])), "ClaimLost");
        v.spec.get_or_insert_default().claim_ref =
            Some(ObjectReference { name: Some("x".into()), uid: Some("x".into()), ..Default::default() });
        assert_eq!(told(&claim(&c, &[Arc::new(v)], &[])), "ClaimMisbound");
    }

    #[test]
    fn volumes_are_free_reserved_or_to_be_reclaimed() {
        let mut v = a_volume("v", "", "1Gi");
        assert_eq!(volume(&v, None), VolumeAction::Phase("Available"));
        let c = a_claim(None, "1Gi");
        v.spec.get_or_insert_default().claim_ref = Some(reference(&c));
        assert_eq!(volume(&v, Some(&c)), VolumeAction::Done);
        assert_eq!(volume(&v, None), VolumeAction::Reclaim);
        assert_eq!(reclaim(&v), Reclaim::Keep);
        v.spec.get_or_insert_default().persistent_volume_reclaim_policy = Some("Delete".into());
        assert!(matches!(reclaim(&v), Reclaim::Fail(_)));
        v.metadata.annotations =
            Some([(annotations::PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())].into());
        assert_eq!(reclaim(&v), Reclaim::Remove);
    }
}
