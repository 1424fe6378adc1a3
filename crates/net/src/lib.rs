//! Links, addresses, translation rules and names of one node, over netlink and sockets alone.
//!
//! Nothing here knows the cluster's objects: the node translates them into attachments, frontends and
//! DNS records. No external binary is run, and nothing is touched outside the namespace one was given.
//!
//! Netlink messages are written by hand on a blocking socket: an operation is a handful of attributes on
//! the thread that entered the namespace, so neither an async connection task nor a packet model is needed,
//! and the kernel sees a whole attachment in about a millisecond.

pub mod attachment;
pub mod dns;
pub mod forward;
pub mod ipam;
pub mod namespace;
mod netlink;
pub mod node_network;
pub mod rules;

pub use netlink::NetlinkError;
