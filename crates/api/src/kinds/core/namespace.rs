//! `Namespace`: born Active, and gone when its finalizer has been removed.

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::validate::qualified;
use crate::kinds::{Build, Errors, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Namespace>::new("namespaces", false)
        .metadata_on_update(&[Whole, Change])
        .short(&["ns"])
        .names(names::Rule::Label)
        .rules(|r| r.no_namespace_field = true)
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .rules(|r| {
            r.spec_finalizers = true;
            r.plain_preconditions = true;
        })
        .status()
        .subresource("finalize", ("", "v1", "Namespace"), &["update"])
        .finalizes(|new, _, errors| {
            let finalizers = new.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
            for (i, finalizer) in finalizers.iter().enumerate() {
                check_finalizer(&format!("spec.finalizers[{i}]"), finalizer, errors);
            }
        })
        .default(|namespace| {
            let phase = &mut namespace.status.get_or_insert_default().phase;
            if phase.as_ref().is_none_or(String::is_empty) {
                *phase = Some("Active".into());
            }

            let name = namespace.metadata.name.clone().unwrap_or_default();
            let labels = namespace.metadata.labels.get_or_insert_default();
            labels.insert(base::constants::labels::METADATA_NAME.into(), name);
        })
        .validate(|namespace, errors| {
            for finalizer in namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
                check_finalizer("spec.finalizers", finalizer, errors);
            }
        })
        .prepare_create(|namespace| {
            let spec = namespace.spec.get_or_insert_default();
            let finalizers = spec.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == "kubernetes") {
                finalizers.push("kubernetes".into());
            }
            namespace.status = Some(NamespaceStatus { phase: Some("Active".into()), ..Default::default() });
        })
        // Only the finalize subresource may change them.
        .prepare_update(|new, old| new.spec = old.spec.clone())
        .validate_status(|new, _, errors| {
            let phase = new.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
            let (wanted, detail) = match new.metadata.deletion_timestamp {
                None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
                Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
            };
            if phase != wanted {
                errors.push(FieldError::invalid("status.Phase", phase, detail));
            }
        })
        .row(|n| {
            let phase = n.status.as_ref().and_then(|s| s.phase.as_deref());
            vec![name_cell(&n.metadata), or_none(phase), age_cell(&n.metadata)]
        })
        .fields(&["status.phase"], |n| {
            vec![("status.phase", n.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default())]
        })
        .done()
}

/// A standard finalizer, or one with a domain.
fn check_finalizer(field: &str, finalizer: &str, errors: &mut Errors) {
    qualified(field, finalizer, errors);
    const STANDARD: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];
    if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(field, finalizer, detail));
    }
}
