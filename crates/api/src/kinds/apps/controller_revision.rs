//! `ControllerRevision`: an immutable snapshot of a template, kept for rolling back.

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::columns::{age_cell, name_cell, or_none};
use crate::kinds::metadata::Pass::{Change, Whole};
use crate::kinds::{Build, Kind};
use crate::status::FieldError;

pub fn kind() -> Kind {
    Build::<ControllerRevision>::new("controllerrevisions", true)
        .metadata_on_update(&[Change, Whole])
        .validate_create(|revision, errors| {
            if revision.data.as_ref().is_none_or(|d| d.0.is_null()) {
                errors.push(FieldError::required("data", "data is mandatory"));
            }
        })
        .validate(|revision, errors| errors.not_negative("revision", Some(revision.revision)))
        .validate_update(|new, old, errors| errors.immutable("data", &new.data, &old.data))
        .row(|r| {
            let owner = r.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
            let owner = owner.map(|o| {
                let group = o.api_version.split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
                format!("{}{group}/{}", o.kind.to_lowercase(), o.name)
            });
            vec![name_cell(&r.metadata), or_none(owner.as_deref()), r.revision.into(), age_cell(&r.metadata)]
        })
        .done()
}
