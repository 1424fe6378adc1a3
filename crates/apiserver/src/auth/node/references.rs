//! Everything that a pod refers to and its node must therefore be able to read.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume, VolumeProjection,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

/// Something in the pod's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
}

#[derive(Default)]
struct Found {
    seen: HashSet<Reference>,
    all: Vec<Reference>,
}

impl Found {
    fn add(&mut self, kind: Kind, name: Option<&String>) {
        let Some(name) = name.filter(|n| !n.is_empty()) else { return };
        let reference = Reference { kind, name: name.clone() };
        if self.seen.insert(reference.clone()) {
            self.all.push(reference);
        }
    }
}

/// Each once.
pub fn of(pod: &Pod) -> Vec<Reference> {
    let mut found = Found::default();
    let Some(spec) = &pod.spec else { return found.all };
    let account = spec.service_account_name.as_ref().or(spec.service_account.as_ref());
    found.add(Kind::ServiceAccount, account);
    spec.image_pull_secrets.iter().flatten().for_each(|s| found.add(Kind::Secret, Some(&s.name)));
    environment(spec, &mut found);
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    spec.volumes.iter().flatten().for_each(|v| volume(name, v, &mut found));
    for claim in spec.resource_claims.iter().flatten() {
        found.add(Kind::ResourceClaim, claim.resource_claim_name.as_ref());
    }
    let status = pod.status.as_ref();
    for claim in status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten()) {
        found.add(Kind::ResourceClaim, claim.resource_claim_name.as_ref());
    }
    let extended = status.and_then(|s| s.extended_resource_claim_status.as_ref());
    found.add(Kind::ResourceClaim, extended.map(|s| &s.resource_claim_name));
    found.all
}

fn environment(spec: &PodSpec, found: &mut Found) {
    let mut look = |from: &Option<Vec<EnvFromSource>>, env: &Option<Vec<EnvVar>>| {
        for source in from.iter().flatten() {
            found.add(Kind::ConfigMap, source.config_map_ref.as_ref().map(|r| &r.name));
            found.add(Kind::Secret, source.secret_ref.as_ref().map(|r| &r.name));
        }
        for source in env.iter().flatten().filter_map(|v| v.value_from.as_ref()) {
            found.add(Kind::ConfigMap, source.config_map_key_ref.as_ref().map(|r| &r.name));
            found.add(Kind::Secret, source.secret_key_ref.as_ref().map(|r| &r.name));
        }
    };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .for_each(|c| look(&c.env_from, &c.env));
    spec.ephemeral_containers.iter().flatten().for_each(|c| look(&c.env_from, &c.env));
}

fn volume(pod: &str, volume: &Volume, found: &mut Found) {
    found.add(Kind::ConfigMap, volume.config_map.as_ref().map(|s| &s.name));
    found.add(Kind::Secret, volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()));
    found.add(Kind::Claim, volume.persistent_volume_claim.as_ref().map(|s| &s.claim_name));
    if volume.ephemeral.is_some() {
        found.add(Kind::Claim, Some(&format!("{pod}-{}", volume.name)));
    }
    volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).for_each(|s| projection(s, found));
    let local = [
        volume.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()),
        volume.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|s| &s.secret_ref),
        volume.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()),
    ];
    local.into_iter().flatten().for_each(|r| found.add(Kind::Secret, Some(&r.name)));
    found.add(Kind::Secret, volume.azure_file.as_ref().map(|s| &s.secret_name));
}

fn projection(source: &VolumeProjection, found: &mut Found) {
    found.add(Kind::ConfigMap, source.config_map.as_ref().map(|s| &s.name));
    found.add(Kind::Secret, source.secret.as_ref().map(|s| &s.name));
}

/// Namespace and name.
pub type Name = (String, String);

/// The claim that holds a volume, and the secrets, by namespace and name, with which a node mounts it.
pub fn of_volume(volume: &PersistentVolume) -> (Option<Name>, Vec<Name>) {
    let Some(spec) = &volume.spec else { return (None, Vec::new()) };
    let claim = spec
        .claim_ref
        .as_ref()
        .map(|r| (r.namespace.clone().unwrap_or_default(), r.name.clone().unwrap_or_default()));
    let here = claim.as_ref().map(|(namespace, _)| namespace.clone()).unwrap_or_default();
    let csi = spec
        .csi
        .iter()
        .flat_map(|c| [&c.node_stage_secret_ref, &c.node_publish_secret_ref, &c.node_expand_secret_ref]);
    let others = [
        spec.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|s| &s.secret_ref),
    ];
    let secrets = csi.flatten().chain(others.into_iter().flatten()).map(|r| {
        let namespace = r.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| here.clone());
        (namespace, r.name.clone().unwrap_or_default())
    });
    let azure = spec.azure_file.as_ref().map(|s| {
        let namespace = s.secret_namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| here.clone());
        (namespace, s.secret_name.clone())
    });
    let secrets = secrets.chain(azure).filter(|(_, name)| !name.is_empty()).collect();
    (claim, secrets)
}
