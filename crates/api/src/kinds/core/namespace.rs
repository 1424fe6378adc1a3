//! `Namespace`: born Active, and gone when its finalizer has been removed.

use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::{Build, Kind, names};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<Namespace>::new("namespaces", false)
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
        .default(|namespace| {
            let name = namespace.metadata.name.clone().unwrap_or_default();
            let labels = namespace.metadata.labels.get_or_insert_default();
            labels.insert(base::constants::labels::METADATA_NAME.into(), name);
        })
        .validate(|namespace, errors| {
            for finalizer in namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
                if finalizer != "kubernetes" && !finalizer.contains('/') {
                    let detail = "name is neither a standard finalizer name nor is it fully qualified";
                    errors.push(FieldError::invalid("spec.finalizers", finalizer.as_str(), detail));
                }
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
        .row(|n| {
            let phase = n.status.as_ref().and_then(|s| s.phase.as_deref());
            vec![name_cell(&n.metadata), or_none(phase), age_cell(&n.metadata)]
        })
        .fields(&["status.phase"], |n| {
            vec![("status.phase", n.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default())]
        })
        .done()
}
