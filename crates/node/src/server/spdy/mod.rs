//! SPDY/3.1, as much as `kubectl` speaks: streams the client opens, data both ways, no push and no flow control (neither
//! side of that conversation has ever had it).
//!
//! It comes in two ways: as the upgraded connection itself (`kubectl` before 1.30), or tunnelled through the binary
//! messages of a WebSocket (`port-forward` since 1.31).

pub mod exec;
pub(crate) mod frame;
pub(crate) mod headers;
pub mod port_forward;
mod session;
mod tunnel;

pub use session::{Session, Stream};
pub use tunnel::through_websocket;

/// The stream protocol of exec and attach.
pub const EXEC_PROTOCOL: &str = "v4.channel.k8s.io";
pub const PORT_FORWARD_PROTOCOL: &str = "portforward.k8s.io";
/// The WebSocket subprotocol that carries SPDY.
pub const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// The header that says what a stream is for.
const STREAM_TYPE: &str = "streamtype";

#[cfg(test)]
mod tests;
