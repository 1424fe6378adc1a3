//! `Secret`: like a ConfigMap, but typed, encoded, and encrypted where it is stored.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::check_key;
use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

const DOCKER_CONFIG: &str = ".dockerconfigjson";
const DOCKER_CFG: &str = ".dockercfg";

pub fn kind() -> Kind {
    Build::<Secret>::new("secrets", true)
        .metadata_on_update(&[Change, Whole])
        .default(default)
        .validate(validate)
        .changes_first()
        .validate_update(validate_update)
        .row(|s| {
            let count = s.data.as_ref().map_or(0, |d| d.len());
            vec![name_cell(&s.metadata), s.type_.clone().into(), count.into(), age_cell(&s.metadata)]
        })
        .fields(&["type"], |s| vec![("type", s.type_.clone().unwrap_or_default())])
        .done()
}

fn default(secret: &mut Secret) {
    secret.type_.get_or_insert_with(|| "Opaque".into());
    // `stringData` is write-only: it is folded into `data`.
    for (key, value) in secret.string_data.take().into_iter().flatten() {
        secret.data.get_or_insert_default().insert(key, ByteString(value.into_bytes()));
    }
}

fn validate(secret: &Secret, errors: &mut Errors) {
    for key in secret.data.iter().flatten().map(|(k, _)| k) {
        check_key("data", key, errors);
    }
    let held = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
    let required: &[&str] = match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[DOCKER_CONFIG],
        "kubernetes.io/dockercfg" => &[DOCKER_CFG],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        // One of the two is enough.
        "kubernetes.io/basic-auth" if held("username").is_none() && held("password").is_none() => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in required {
        errors.required(format!("data[{key}]"), held(key).is_none());
    }
    for key in [DOCKER_CONFIG, DOCKER_CFG].into_iter().filter(|k| required.contains(k)) {
        if let Some(fault) = held(key).and_then(|bytes| json_fault(&bytes.0)) {
            errors.push(FieldError::invalid(format!("data[{key}]"), "<secret contents redacted>", fault));
        }
    }
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    if secret.type_.as_deref() == Some("kubernetes.io/service-account-token") {
        let named = secret.metadata.annotations.as_ref().and_then(|a| a.get(ACCOUNT));
        errors.required(format!("metadata.annotations[{ACCOUNT}]"), named.is_none_or(String::is_empty));
    }
}

/// What is wrong with bytes that should be JSON.
fn json_fault(bytes: &[u8]) -> Option<String> {
    let error = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).err()?;
    Some(match bytes.first() {
        None => "unexpected end of JSON input".into(),
        Some(_) if error.is_eof() => "unexpected end of JSON input".into(),
        Some(first) if !b"{[\"0123456789-tfn".contains(first) => {
            format!("invalid character '{}' looking for beginning of value", char::from(*first))
        }
        Some(_) => error.to_string(),
    })
}

fn validate_update(new: &Secret, old: &Secret, errors: &mut Errors) {
    errors.immutable("type", &new.type_, &old.type_);
    if old.immutable == Some(true) {
        let frozen = "field is immutable when `immutable` is set";
        for (field, changed) in [("immutable", new.immutable != Some(true)), ("data", new.data != old.data)] {
            if changed {
                errors.push(FieldError::forbidden(field, frozen));
            }
        }
    }
}
