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

/// `address/bits` in its canonical form: the address, the length of the prefix.
fn parse_cidr(text: &str) -> Option<(std::net::IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (std::net::IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let most = if address.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((address, bits))
}
