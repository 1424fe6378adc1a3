//! Validation of a pod's volumes: each has one source, and each source has rules of its own.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, EphemeralVolumeSource, HostPathVolumeSource, KeyToPath,
    NFSVolumeSource, PodSpec, ProjectedVolumeSource, SecretVolumeSource, Volume,
};

use super::container_validate::{check_field_ref, check_resource_ref};
use super::pod_validate::check_name;
use crate::kinds::Errors;
use crate::kinds::validate::{amount_is_valid, is_empty};
use crate::status::FieldError;

const HIGHEST_MODE: i32 = 0o777;
const SHORTEST_TOKEN_SECONDS: i64 = 600;
const LONGEST_TOKEN_SECONDS: i64 = 1 << 32;

/// The names of all volumes.
pub fn check_volumes<'a>(field: &str, spec: &'a PodSpec, errors: &mut Errors) -> HashSet<&'a str> {
    let mut volumes = HashSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("{field}.volumes[{i}]");
        check_sources(&path, volume, errors);
        check_name(&format!("{path}.name"), &volume.name, errors);
        if !volumes.insert(volume.name.as_str()) {
            errors.push(FieldError::duplicate(format!("{path}.name"), volume.name.as_str()));
        }
    }
    volumes
}

/// The sources that a volume names. The order is the one in which a second one is refused.
fn sources(volume: &Volume) -> Vec<&'static str> {
    let given = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn check_sources(path: &str, volume: &Volume, errors: &mut Errors) {
    let given = sources(volume);
    for second in given.iter().skip(1) {
        let detail = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{path}.{second}"), detail));
    }
    if given.len() > 1 {
        return;
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref())
        && !amount_is_valid(limit)
    {
        let detail = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(format!("{path}.emptyDir.sizeLimit"), detail));
    }
    if let Some(source) = &volume.host_path {
        check_host_path(&format!("{path}.hostPath"), source, errors);
    }
    if let Some(source) = &volume.secret {
        check_secret(&format!("{path}.secret"), source, errors);
    }
    if let Some(source) = &volume.config_map {
        check_config_map(&format!("{path}.configMap"), source, errors);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        errors.required(format!("{path}.persistentVolumeClaim.claimName"), claim.claim_name.is_empty());
    }
    if let Some(source) = &volume.downward_api {
        let at = format!("{path}.downwardAPI");
        check_mode(&format!("{at}.defaultMode"), source.default_mode, errors);
        for file in source.items.iter().flatten() {
            check_downward(&at, file, errors);
        }
    }
    if let Some(source) = &volume.projected {
        check_projected(&format!("{path}.projected"), source, errors);
    }
    check_drivers(path, volume, errors);
}

fn check_drivers(path: &str, volume: &Volume, errors: &mut Errors) {
    if let Some(nfs) = &volume.nfs {
        check_nfs(&format!("{path}.nfs"), nfs, errors);
    }
    if let Some(csi) = &volume.csi {
        errors.required(format!("{path}.csi.driver"), csi.driver.is_empty());
    }
    if let Some(image) = &volume.image {
        errors.required(format!("{path}.image.reference"), is_empty(image.reference.as_deref()));
        let at = format!("{path}.image.pullPolicy");
        errors.one_of(at, image.pull_policy.as_deref(), &["Always", "IfNotPresent", "Never"]);
    }
    if let Some(EphemeralVolumeSource { volume_claim_template }) = &volume.ephemeral {
        errors.required(format!("{path}.ephemeral.volumeClaimTemplate"), volume_claim_template.is_none());
    }
}

pub fn check_nfs(field: &str, source: &NFSVolumeSource, errors: &mut Errors) {
    errors.required(format!("{field}.server"), source.server.is_empty());
    errors.required(format!("{field}.path"), source.path.is_empty());
    if !source.path.starts_with('/') {
        let detail = "must be an absolute path";
        errors.push(FieldError::invalid(format!("{field}.path"), source.path.as_str(), detail));
    }
}

pub fn check_host_path(field: &str, source: &HostPathVolumeSource, errors: &mut Errors) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if source.path.is_empty() {
        return errors.required(format!("{field}.path"), true);
    }
    no_backsteps(&format!("{field}.path"), &source.path, errors);
    errors.one_of(format!("{field}.type"), source.type_.as_deref(), TYPES);
}

pub fn no_backsteps(field: &str, path: &str, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(field, path, "must not contain '..'"));
    }
}

/// A path that leads nowhere else.
pub fn check_local_path(field: &str, path: &str, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.push(FieldError::invalid(field, path, "must be a relative path"));
    }
    no_backsteps(field, path, errors);
}

fn check_mode(field: &str, mode: Option<i32>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|m| !(0..=HIGHEST_MODE).contains(m)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(field, mode, detail));
    }
}

fn check_items(field: &str, items: Option<&[KeyToPath]>, errors: &mut Errors) {
    for (i, item) in items.unwrap_or_default().iter().enumerate() {
        let at = format!("{field}.items[{i}]");
        errors.required(format!("{at}.key"), item.key.is_empty());
        errors.required(format!("{at}.path"), item.path.is_empty());
        check_local_path(&format!("{at}.path"), &item.path, errors);
        if item.path.starts_with("..") && item.path.split('/').all(|part| part != "..") {
            let detail = "must not start with '..'";
            errors.push(FieldError::invalid(format!("{at}.path"), item.path.as_str(), detail));
        }
        check_mode(&format!("{at}.mode"), item.mode, errors);
    }
}

fn check_secret(field: &str, source: &SecretVolumeSource, errors: &mut Errors) {
    errors.required(format!("{field}.secretName"), is_empty(source.secret_name.as_deref()));
    check_mode(&format!("{field}.defaultMode"), source.default_mode, errors);
    check_items(field, source.items.as_deref(), errors);
}

fn check_config_map(field: &str, source: &ConfigMapVolumeSource, errors: &mut Errors) {
    errors.required(format!("{field}.name"), source.name.is_empty());
    check_mode(&format!("{field}.defaultMode"), source.default_mode, errors);
    check_items(field, source.items.as_deref(), errors);
}

/// Its faults are laid to the volume's source, not to the file.
fn check_downward(field: &str, file: &DownwardAPIVolumeFile, errors: &mut Errors) {
    errors.required(format!("{field}.path"), file.path.is_empty());
    check_local_path(&format!("{field}.path"), &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(_), Some(_)) => {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(field, "resource", detail));
        }
        (Some(reference), None) => {
            check_field_ref(
                &format!("{field}.fieldRef"),
                reference,
                super::container_validate::FILE_FIELDS,
                errors,
            );
        }
        (None, Some(reference)) => {
            if is_empty(reference.container_name.as_deref()) {
                errors.required(format!("{field}.resourceFieldRef.containerName"), true);
            }
            check_resource_ref(&format!("{field}.resourceFieldRef"), reference, errors);
        }
        (None, None) => {
            errors.push(FieldError::required(field, "one of fieldRef and resourceFieldRef is required"));
        }
    }
    check_mode(&format!("{field}.mode"), file.mode, errors);
}

fn check_projected(field: &str, source: &ProjectedVolumeSource, errors: &mut Errors) {
    check_mode(&format!("{field}.defaultMode"), source.default_mode, errors);
    for (i, projection) in source.sources.iter().flatten().enumerate() {
        let at = format!("{field}.sources[{i}]");
        if let Some(secret) = &projection.secret {
            errors.required(format!("{at}.secret.name"), secret.name.is_empty());
            check_items(&format!("{at}.secret"), secret.items.as_deref(), errors);
        }
        if let Some(map) = &projection.config_map {
            errors.required(format!("{at}.configMap.name"), map.name.is_empty());
            check_items(&format!("{at}.configMap"), map.items.as_deref(), errors);
        }
        for file in projection.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
            check_downward(&format!("{at}.downwardAPI"), file, errors);
        }
        if let Some(token) = &projection.service_account_token {
            let seconds = token.expiration_seconds.unwrap_or(0);
            let expiry = format!("{at}.serviceAccountToken.expirationSeconds");
            if seconds < SHORTEST_TOKEN_SECONDS {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(expiry.as_str(), seconds, detail));
            }
            if seconds > LONGEST_TOKEN_SECONDS {
                let detail = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(expiry, seconds, detail));
            }
            errors.required(format!("{field}.path"), token.path.is_empty());
            check_local_path(&format!("{field}.path"), &token.path, errors);
        }
    }
}
