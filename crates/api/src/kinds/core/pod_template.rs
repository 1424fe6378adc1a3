//! `PodTemplate`: a template on its own, for those who make pods from it.

use k8s_openapi::api::core::v1::PodTemplate;

use super::pod_spec::default_template;
use super::pod_validate::check_template;
use super::pod_warnings::of_template;
use crate::columns::{labels_cell, list_or_none, name_cell};
use crate::kinds::{Build, Kind};

pub fn kind() -> Kind {
    Build::<PodTemplate>::new("podtemplates", true)
        .rules(|r| r.answers_deleted = true)
        .generation()
        .default(|t| t.template.iter_mut().for_each(default_template))
        .warnings(|t| t.template.as_ref().map(|t| of_template("template", t)).unwrap_or_default())
        .validate(|t, errors| {
            let template = t.template.clone().unwrap_or_default();
            check_template("template", &template, errors);
        })
        .row(|t| {
            let containers = || {
                let spec = t.template.as_ref().and_then(|t| t.spec.as_ref());
                spec.into_iter().flat_map(|s| s.containers.iter())
            };
            let labels = t.template.as_ref().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
            vec![
                name_cell(&t.metadata),
                list_or_none(containers().map(|c| c.name.clone())),
                list_or_none(containers().map(|c| c.image.clone().unwrap_or_default())),
                labels_cell(labels),
            ]
        })
        .done()
}
