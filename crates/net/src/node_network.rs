//! The node's own part of the network: its address, forwarding, and routes that keep every packet for a cluster
//! range here.
//!
//! The attached range is `unreachable` but for the /32 of each attachment. The virtual range is routed to a dummy
//! link with the node's address as source: the node's own connections need a route before the translation
//! rules see them, and what no rule takes is refused there by `rules` and swallowed by the dummy at worst. A route
//! per neighbour node (VXLAN) will join these two.

use std::net::Ipv4Addr;

use crate::ipam::Range;
use crate::namespace::{Namespace, NamespaceError, set_sysctl};
use crate::netlink::route::{Route, Via};

/// The dummy link that bears the node's addresses and swallows the virtual range.
pub const NODE_LINK: &str = "kedge0";
pub const DEFAULT_MTU: u32 = 1500;

#[derive(Clone, Debug)]
pub struct NodeNetwork {
    /// The node's address, given to the dummy link as a /32.
    pub address: Ipv4Addr,
    /// Further addresses served on the node itself, such as that of DNS.
    pub local_addresses: Vec<Ipv4Addr>,
    /// Where attachments get their addresses.
    pub attached_range: Range,
    /// Addresses that exist only as translation rules.
    pub virtual_range: Range,
    pub mtu: u32,
}

impl NodeNetwork {
    /// Brings the namespace into this state. Idempotent.
    pub async fn apply(&self, namespace: &Namespace) -> Result<(), NamespaceError> {
        let this = self.clone();
        namespace.run_async(move || this.apply_here()).await?
    }

    fn apply_here(&self) -> Result<(), NamespaceError> {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        // Loose: an answer may leave by another link than its question came in, as translated ones do.
        set_sysctl("net/ipv4/conf/all/rp_filter", "2")?;
        let mut route = Route::open()?;
        let link = route.ensure_dummy(NODE_LINK, self.mtu)?;
        route.add_address(link, self.address, 32)?;
        for address in &self.local_addresses {
            route.add_address(link, *address, 32)?;
        }
        route.replace_route(self.attached_range.network(), self.attached_range.prefix(), Via::Unreachable)?;
        let inward = Via::Link { index: link, source: Some(self.address) };
        route.replace_route(self.virtual_range.network(), self.virtual_range.prefix(), inward)?;
        Ok(())
    }

    /// Takes the link and routes away again, for a node that lives in the host's namespace.
    pub async fn remove(namespace: &Namespace) -> Result<(), NamespaceError> {
        namespace.run_async(|| Ok(Route::open()?.delete_link(NODE_LINK)?)).await?
    }
}
