//! Where the storage of a volume comes from: each kind of source, with what it must say. Most are served by no driver any more and
//! are kept for whoever still has such volumes.

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, FCVolumeSource, ISCSIPersistentVolumeSource, PersistentVolumeSpec,
    SecretReference,
};

use super::volume_validate::{check_host_path, check_nfs};
use crate::kinds::Errors;
use crate::kinds::names::{self, Rule};
use crate::kinds::validate::{is_empty, range};
use crate::status::FieldError;

/// Logical units of a target.
const UNITS: (i64, i64) = (0, 255);

pub fn check(field: &str, spec: &PersistentVolumeSpec, errors: &mut Errors) {
    if let Some(source) = &spec.host_path {
        check_host_path(&format!("{field}.hostPath"), source, errors);
    }
    check_clouds(field, spec, errors);
    if let Some(source) = &spec.nfs {
        check_nfs(&format!("{field}.nfs"), source, errors);
    }
    let mut required = |part: &str, missing: bool| errors.required(format!("{field}.{part}"), missing);
    if let Some(source) = &spec.rbd {
        required("rbd.monitors", source.monitors.is_empty());
        required("rbd.image", source.image.is_empty());
    }
    if let Some(source) = &spec.cephfs {
        required("cephfs.monitors", source.monitors.is_empty());
    }
    if let Some(source) = &spec.cinder {
        required("cinder.volumeID", source.volume_id.is_empty());
    }
    if let Some(source) = &spec.flex_volume {
        required("flexVolume.driver", source.driver.is_empty());
    }
    if let Some(source) = &spec.iscsi {
        check_iscsi(&format!("{field}.iscsi"), source, errors);
    }
    if let Some(source) = &spec.fc {
        check_fibre_channel(&format!("{field}.fc"), source, errors);
    }
    if let Some(source) = &spec.local {
        let at = format!("{field}.local.path");
        errors.required(at.as_str(), source.path.is_empty());
        super::volume_validate::no_backsteps(&at, &source.path, errors);
        if spec.node_affinity.as_ref().is_none_or(|a| a.required.is_none()) {
            let detail = "Local volume requires node affinity";
            errors.push(FieldError::required(format!("{field}.nodeAffinity"), detail));
        }
    }
    if let Some(source) = &spec.csi {
        check_csi(&format!("{field}.csi"), source, errors);
    }
}

/// Disks of clouds.
fn check_clouds(field: &str, spec: &PersistentVolumeSpec, errors: &mut Errors) {
    let mut required = |part: &str, missing: bool| errors.required(format!("{field}.{part}"), missing);
    if let Some(source) = &spec.gce_persistent_disk {
        required("persistentDisk.pdName", source.pd_name.is_empty());
    }
    if let Some(source) = &spec.aws_elastic_block_store {
        required("awsElasticBlockStore.volumeID", source.volume_id.is_empty());
    }
    if let Some(source) = &spec.azure_file {
        required("azureFile.secretName", source.secret_name.is_empty());
        required("azureFile.shareName", source.share_name.is_empty());
    }
    if let Some(source) = &spec.vsphere_volume {
        required("vsphereVolume.volumePath", source.volume_path.is_empty());
    }
    let Some(disk) = &spec.azure_disk else { return };
    required("azureDisk.diskName", disk.disk_name.is_empty());
    required("azureDisk.diskURI", disk.disk_uri.is_empty());
    let at = |part: &str| format!("{field}.azureDisk.{part}");
    errors.one_of(at("cachingMode"), disk.caching_mode.as_deref(), &["None", "ReadOnly", "ReadWrite"]);
    let kind = disk.kind.as_deref().unwrap_or("Shared");
    errors.one_of(at("kind"), Some(kind), &["Dedicated", "Managed", "Shared"]);
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    let (prefix, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !disk.disk_uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(at("diskURI"), disk.disk_uri.as_str(), &[form]));
    }
}

fn check_iscsi(field: &str, source: &ISCSIPersistentVolumeSource, errors: &mut Errors) {
    errors.required(format!("{field}.targetPortal"), source.target_portal.is_empty());
    match source.iqn.as_str() {
        "" => errors.required(format!("{field}.iqn"), true),
        name if !is_iscsi_name(name) => {
            errors.push(FieldError::invalid(format!("{field}.iqn"), name, "must be valid format"));
        }
        _ => {}
    }
    range(format!("{field}.lun"), i64::from(source.lun), UNITS.0, UNITS.1, errors);
    let asks = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    errors.required(format!("{field}.secretRef"), asks && source.secret_ref.is_none());
    if let Some(secret) = &source.secret_ref {
        errors.required(format!("{field}.secretRef.name"), is_empty(secret.name.as_deref()));
    }
    if let Some(name) = source.initiator_name.as_deref().filter(|name| !is_iscsi_name(name)) {
        errors.push(FieldError::invalid(format!("{field}.initiatorname"), name, "must be valid format"));
    }
}

/// `iqn.2026-01.com.example:name`, or a number in hexadecimal digits.
fn is_iscsi_name(name: &str) -> bool {
    let hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if let Some(digits) = name.strip_prefix("eui.") {
        return digits.len() == 16 && hex(digits);
    }
    if let Some(digits) = name.strip_prefix("naa.") {
        return digits.len() == 32 && hex(digits);
    }
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_date = date.len() == 7
        && date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
    let domain = rest.split(':').next().unwrap_or_default();
    is_date
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

fn check_fibre_channel(field: &str, source: &FCVolumeSource, errors: &mut Errors) {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let at = format!("{field}.targetWWNs");
    match (given(&source.target_wwns), given(&source.wwids)) {
        (false, false) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            errors.push(FieldError::required(at, detail));
        }
        (true, true) => {
            let shown = source.target_wwns.clone().unwrap_or_default();
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(at, shown, detail));
        }
        _ => {}
    }
    if given(&source.target_wwns) {
        match source.lun {
            None => {
                let detail = "lun is required if targetWWNs is specified";
                errors.push(FieldError::required(format!("{field}.lun"), detail));
            }
            Some(unit) => range(format!("{field}.lun"), i64::from(unit), UNITS.0, UNITS.1, errors),
        }
    }
}

fn check_csi(field: &str, source: &CSIPersistentVolumeSource, errors: &mut Errors) {
    let at = format!("{field}.driver");
    match source.driver.to_lowercase().as_str() {
        "" => errors.required(at, true),
        lower => {
            if let Some(fault) = names::fault(Rule::Subdomain, lower) {
                errors.push(FieldError::invalid(at, source.driver.as_str(), fault));
            }
        }
    }
    errors.required(format!("{field}.volumeHandle"), source.volume_handle.is_empty());
    for (part, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        if let Some(SecretReference { name, namespace }) = secret {
            errors.required(format!("{field}.{part}.name"), is_empty(name.as_deref()));
            errors.required(format!("{field}.{part}.namespace"), is_empty(namespace.as_deref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names_of_three_forms() {
        for good in ["iqn.2026-01.com.example:a", "iqn.2026-01.com.example", "eui.0123456789ABCDEF"] {
            assert!(is_iscsi_name(good), "{good}");
        }
        for bad in ["", "bogus", "iqn.2026.com", "eui.123", "naa.x", "iqn.2026-01."] {
            assert!(!is_iscsi_name(bad), "{bad}");
        }
    }
}
