//! The restricted level: what good practice asks of a pod beyond the baseline.

use k8s_openapi::api::core::v1::Volume;

use super::baseline::{added_capabilities, explicit_seccomp, proc_mount};
use super::view::{Values, View, named, plural, quoted, setters};
use super::{Check, Violation};

/// In the order of their names, in which they are told.
pub const CHECKS: &[Check] = &[
    Check::new("allowPrivilegeEscalation", 8, privilege_escalation),
    Check::replacing("capabilities_restricted", 22, "capabilities_baseline", capabilities),
    Check::replacing("procMount_restricted", 35, "procMount", proc_mount),
    Check::replacing("restrictedVolumes", 0, "hostPathVolumes", volumes),
    Check::new("runAsNonRoot", 0, non_root),
    Check::new("runAsUser", 23, user),
    Check::replacing("seccompProfile_restricted", 19, "seccompProfile_baseline", seccomp),
];

fn privilege_escalation(view: &View<'_>) -> Option<Violation> {
    if view.since(25) && view.is_windows() {
        return None;
    }
    let containers = view.bad(|p| p.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    if containers.is_empty() {
        return None;
    }
    let who = named("container", &containers);
    Violation::new(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

fn capabilities(view: &View<'_>) -> Option<Violation> {
    if view.since(25) && view.is_windows() {
        return None;
    }
    let keeping = view.bad(|p| {
        let dropped = p.security.and_then(|s| s.capabilities.as_ref()?.drop.as_ref());
        !dropped.into_iter().flatten().any(|c| c == "ALL")
    });
    let dropping = (!keeping.is_empty()).then(|| {
        format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named("container", &keeping))
    });
    let adding = added_capabilities(view, |c| c.as_str() != "NET_BIND_SERVICE");
    let faults: Vec<String> = dropping.into_iter().chain(adding).collect();
    if faults.is_empty() { None } else { Violation::new("unrestricted capabilities", faults.join("; ")) }
}

fn volumes(view: &View<'_>) -> Option<Violation> {
    let bad: Vec<(&str, &str)> =
        view.spec.volumes.iter().flatten().filter_map(|v| Some((v.name.as_str(), restricted(v)?))).collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let types: Values = bad.iter().map(|(_, kind)| (*kind).to_owned()).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let (who, what) = (named("volume", &names), plural("restricted volume type", types.len()));
    Violation::new("restricted volume types", format!("{who} {uses} {what} {}", quoted(types)))
}

/// The type of a volume that may not be used.
fn restricted(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        ("hostPath", volume.host_path.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    Some(types.into_iter().find(|(_, used)| *used).map_or("unknown", |(name, _)| name))
}

fn non_root(view: &View<'_>) -> Option<Violation> {
    if view.since(35) && view.has_own_users() {
        return None;
    }
    let reason = "runAsNonRoot != true";
    let of_pod = view.security.and_then(|s| s.run_as_non_root);
    let explicit = view.insecure(|s| s.run_as_non_root == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return Violation::new(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = view.bad(|p| p.security.and_then(|s| s.run_as_non_root).or(of_pod).is_none());
    if silent.is_empty() {
        return None;
    }
    let who = named("container", &silent);
    Violation::new(reason, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn user(view: &View<'_>) -> Option<Violation> {
    if view.since(35) && view.has_own_users() {
        return None;
    }
    let of_pod = view.security.and_then(|s| s.run_as_user) == Some(0);
    let who = setters(of_pod, &view.insecure(|s| s.run_as_user == Some(0)))?;
    Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp(view: &View<'_>) -> Option<Violation> {
    if view.since(25) && view.is_windows() {
        return None;
    }
    if let Some(explicit) = explicit_seccomp(view) {
        return Some(explicit);
    }
    let of_pod = view.security.is_some_and(|s| s.seccomp_profile.is_some());
    let silent = view.bad(|p| !of_pod && p.security.is_none_or(|s| s.seccomp_profile.is_none()));
    if silent.is_empty() {
        return None;
    }
    let who = named("container", &silent);
    Violation::new(
        "seccompProfile",
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ),
    )
}
