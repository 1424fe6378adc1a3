//! `flowcontrol.apiserver.k8s.io/v1`: which requests wait for which others.

mod flow_schema;
mod priority_level_configuration;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![flow_schema::kind(), priority_level_configuration::kind()]
}
