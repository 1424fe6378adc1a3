//! The core group (`v1`), one kind a file.

mod binding;
mod component_status;
mod config_map;
mod container_validate;
mod endpoints;
mod event;
mod limit_range;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod persistent_volume_sources;
mod pod;
mod pod_resize;
mod pod_spec;
mod pod_status;
mod pod_template;
mod pod_update;
mod pod_validate;
mod pod_warnings;
mod probe_validate;
mod replication_controller;
mod resource_quota;
mod resources_validate;
mod scheduling_validate;
mod secret;
mod service;
mod service_account;
mod service_validate;
mod volume_overlaps;
mod volume_validate;

pub(super) use event::{TTL_SECONDS as EVENT_TTL_SECONDS, kind as event};
pub(super) use persistent_volume_claim::default as claim_default;
pub(super) use pod_spec::default_template as pod_default_template;
pub(super) use pod_validate::check_template as pod_validate_template;
pub(super) use pod_warnings::{of_name as pod_name_warning, of_template as pod_template_warnings};

pub(super) use resources_validate::{check_resources, is_counted};
pub(super) use scheduling_validate::{check_node_selector, check_tolerations};
pub(super) use service_validate::check_port_name;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![
        binding::kind(),
        component_status::kind(),
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        limit_range::kind(),
        namespace::kind(),
        node::kind(),
        persistent_volume::kind(),
        persistent_volume_claim::kind(),
        pod::kind(),
        pod_template::kind(),
        replication_controller::kind(),
        resource_quota::kind(),
        secret::kind(),
        service::kind(),
        service_account::kind(),
    ]
}
