//! The little of netlink we need: a message writer, a blocking socket that waits for the acknowledgement,
//! and the route operations. nf_tables messages are built in `rules` on the same writer.

mod message;
pub mod route;
mod socket;

pub use message::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, attributes_of};
pub use socket::{NetlinkError, NetlinkSocket};
