//! The core group (`v1`), one kind a file.

mod config_map;
mod endpoints;
mod event;
mod namespace;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_spec;
mod pod_validate;
mod secret;
mod service;
mod service_account;

pub(super) use persistent_volume_claim::default as claim_default;
pub(super) use pod_spec::default_template as pod_default_template;
pub(super) use pod_validate::check_template as pod_validate_template;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        namespace::kind(),
        node::kind(),
        persistent_volume::kind(),
        persistent_volume_claim::kind(),
        pod::kind(),
        secret::kind(),
        service::kind(),
        service_account::kind(),
    ]
}
