//! An attachment: a namespace of its own, joined to the node's by a veth pair.
//!
//! There is no bridge. Each attachment has a /32, its gateway is a link-local address that only exists as a permanent
//! neighbour entry, and the node holds one host route. Both hardware addresses follow from the name, so neither
//! side ever asks for the other.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::namespace::{Namespace, NamespaceError, on_thread_async, set_sysctl};
use crate::netlink::route::{Mac, Route, VethEnd, Via};

/// What every attachment sees as its gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The link's name inside.
pub const INNER_LINK: &str = "eth0";
/// The front of every name of a host-side link.
pub const LINK_PREFIX: &str = "kv";

#[derive(Clone, Debug)]
pub struct Attachment {
    /// Anything stable and unique on the node; the link's name is made of it.
    pub id: String,
    /// Where the attachment's namespace is pinned.
    pub namespace_path: PathBuf,
    pub address: Ipv4Addr,
    /// Source of what the node itself sends to the attachment.
    pub node_address: Ipv4Addr,
    pub mtu: u32,
    /// Kernel parameters of the new namespace: (`net.ipv4.ip_local_port_range`, value).
    pub sysctls: Vec<(String, String)>,
}

impl Attachment {
    /// Makes the namespace and joins it to `node`. A leftover of the same id is replaced.
    pub async fn attach(&self, node: &Namespace) -> Result<Namespace, NamespaceError> {
        let (this, node) = (self.clone(), node.clone());
        on_thread_async(move || this.attach_here(&node)).await?
    }

    fn attach_here(&self, node: &Namespace) -> Result<Namespace, NamespaceError> {
        let (link, macs) = (host_link(&self.id), macs_of(&self.id));
        // Sockets keep the namespace they were opened in: with one of each side a single thread does it all.
        let outer_thread = node.clone();
        let mut outer = crate::namespace::on_thread(move || {
            outer_thread.enter()?;
            Ok::<_, NamespaceError>(Route::open()?)
        })??;
        outer.delete_link(&link)?;
        let made = Namespace::create_here(&self.namespace_path, |_| self.set_sysctls())
            .and_then(|inner| self.join(&mut outer, &link, macs).map(|()| inner));
        if made.is_err() {
            // What failed is told; what was made must not outlive it.
            outer.delete_link(&link)?;
            Namespace::delete(&self.namespace_path)?;
        }
        made
    }

    fn set_sysctls(&self) -> Result<(), NamespaceError> {
        // A namespace of its own has no privileged ports to guard, and ping needs no raw socket in it.
        set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
        set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        for (key, value) in self.sysctls.iter().filter(|(key, _)| key.starts_with("net.")) {
            set_sysctl(&key.replace('.', "/"), value)?;
        }
        Ok(())
    }

    /// Runs on the thread that is inside the new namespace.
    fn join(&self, outer: &mut Route, link: &str, (host, peer): (Mac, Mac)) -> Result<(), NamespaceError> {
        let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(|source| NamespaceError::Path {
            what: "open",
            path: "/proc/thread-self/ns/net".into(),
            source,
        })?;
        let (outer_end, inner_end) =
            (VethEnd { name: link, mac: host }, VethEnd { name: INNER_LINK, mac: peer });
        outer.create_veth(outer_end, inner_end, own.as_raw_fd(), self.mtu)?;
        let mut inner = Route::open()?;
        let index = inner.required_index(INNER_LINK)?;
        inner.set_up(index)?;
        inner.add_address(index, self.address, 32)?;
        inner.replace_route(GATEWAY, 32, Via::Link { index, source: None })?;
        inner.replace_route(
            Ipv4Addr::UNSPECIFIED,
            0,
            Via::Gateway { index, gateway: GATEWAY, source: Some(self.address) },
        )?;
        inner.permanent_neighbour(index, GATEWAY, host)?;
        let index = outer.required_index(link)?;
        outer.set_up(index)?;
        outer.permanent_neighbour(index, self.address, peer)?;
        outer.replace_route(self.address, 32, Via::Link { index, source: Some(self.node_address) })?;
        Ok(())
    }
}

/// Takes an attachment away; idempotent. The host route goes with the link.
pub async fn detach(node: &Namespace, id: &str, namespace_path: &Path) -> Result<(), NamespaceError> {
    let (link, path, node) = (host_link(id), namespace_path.to_owned(), node.clone());
    on_thread_async(move || {
        node.enter()?;
        Route::open()?.delete_link(&link)?;
        Namespace::delete(&path)
    })
    .await?
}

/// Removes every attachment link of `node` whose id is not in `keep`: what a crash may have left.
pub async fn remove_strays(node: &Namespace, keep: Vec<String>) -> Result<usize, NamespaceError> {
    node.run_async(move || {
        let mut route = Route::open()?;
        let keep: Vec<String> = keep.iter().map(|id| host_link(id)).collect();
        let mut removed = 0;
        for name in route.link_names()? {
            if name.starts_with(LINK_PREFIX) && name.len() == LINK_NAME_LEN && !keep.contains(&name) {
                route.delete_link(&name)?;
                removed += 1;
            }
        }
        Ok(removed)
    })
    .await?
}

/// The kernel allows 15.
const LINK_NAME_LEN: usize = 14;

/// The name of the host-side link of `id`.
pub fn host_link(id: &str) -> String {
    let hash = base::id::sha256_hex(id.as_bytes());
    format!("{LINK_PREFIX}{}", &hash[..LINK_NAME_LEN - LINK_PREFIX.len()])
}

/// Locally administered hardware addresses of the two ends.
fn macs_of(id: &str) -> (Mac, Mac) {
    let hash = base::id::sha256_hex(id.as_bytes());
    let byte = |at: usize| u8::from_str_radix(&hash[at * 2..at * 2 + 2], 16).unwrap_or(0);
    let end = |kind: u8| [0x02, kind, byte(20), byte(21), byte(22), byte(23)];
    (end(0x6b), end(0x6c))
}
