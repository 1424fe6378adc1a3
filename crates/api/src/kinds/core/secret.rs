//! `Secret`: like a ConfigMap, but typed, encoded, and encrypted where it is stored.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::check_key;
use crate::columns::{age_cell, name_cell};
use crate::kinds::{Build, Errors, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Secret>::new("secrets", true)
        .default(default)
        .validate(validate)
        .validate_update(validate_update)
        .row(|s| {
            let count = s.data.as_ref().map_or(0, |d| d.len()).to_string();
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
    let required: &[&str] = match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        let missing = !secret.data.as_ref().is_some_and(|d| d.contains_key(*key));
        errors.required(format!("data[{key}]"), missing);
    }
}

fn validate_update(new: &Secret, old: &Secret, errors: &mut Errors) {
    errors.immutable("type", &new.type_, &old.type_);
    if old.immutable == Some(true) && (new.data != old.data || new.immutable != Some(true)) {
        errors.push(FieldError::forbidden("data", "field is immutable when `immutable` is set"));
    }
}
