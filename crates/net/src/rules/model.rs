//! The neutral model the node translates into.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::ipam::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Who takes a frontend's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: Ipv4Addr,
    pub port: u16,
    /// On this node: all that a `local` policy admits.
    pub local: bool,
}

/// One port that is served at virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The virtual address, if it has one.
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    pub protocol: Protocol,
    /// Also served at this port of every node address.
    pub node_port: Option<u16>,
    /// Also served at `port` of these.
    pub external_addresses: Vec<Ipv4Addr>,
    /// A client keeps its backend for this long after its last connection.
    pub affinity: Option<Duration>,
    /// Connections to `address` only go to local backends.
    pub internal_local: bool,
    /// Connections to the node port and external addresses only go to local backends, and keep their source.
    pub external_local: bool,
    pub backends: Vec<Backend>,
}

impl Frontend {
    /// A plain frontend without backends.
    pub fn new(address: Ipv4Addr, port: u16, protocol: Protocol) -> Self {
        Self {
            address: Some(address),
            port,
            protocol,
            node_port: None,
            external_addresses: Vec::new(),
            affinity: None,
            internal_local: false,
            external_local: false,
            backends: Vec::new(),
        }
    }
}

/// What is fixed for a node.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Addresses at which node ports are served.
    pub node_addresses: Vec<Ipv4Addr>,
    /// Attachments of this range leave it under the node's address.
    pub masquerade_from: Option<Range>,
    /// What is routed to this link matched no frontend and is refused.
    pub stray_link: Option<String>,
}
