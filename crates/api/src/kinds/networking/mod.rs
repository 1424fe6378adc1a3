//! `networking.k8s.io/v1`: what reaches services from without, what may reach pods, and which addresses services have.

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

use super::Kind;

pub fn kinds() -> Vec<Kind> {
    vec![
        ingress_class::kind(),
        ingress::kind(),
        ip_address::kind(),
        network_policy::kind(),
        service_cidr::kind(),
    ]
}
