//! Names: an authoritative answerer for one domain from a snapshot of neutral records, forwarding everything else.
//!
//! The codec is hickory's; the two socket loops are our own, because they run on sockets made inside a namespace
//! and an answer from the snapshot needs neither a task nor a lock.

mod answer;
mod records;
mod server;
mod upstream;

pub use records::{Records, Srv};
pub use server::{DnsConfig, DnsError, DnsServer, Publisher};
pub use upstream::Upstream;
