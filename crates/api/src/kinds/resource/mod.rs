//! `resource.k8s.io/v1`: devices, what they are asked for by, and who has them.

mod claim_status;
mod claims;
mod device_class;
mod resource_claim;
mod resource_claim_template;
mod resource_slice;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![
        device_class::kind(),
        resource_claim::kind(),
        resource_claim_template::kind(),
        resource_slice::kind(),
    ]
}
