//! HTTP: connections and TLS, what a path asks for, how answers are written.

pub mod accept;
pub mod body;
mod framing;
pub mod options;
pub mod pace;
pub mod pieces;
pub mod query;
pub mod request;
pub mod respond;
pub mod serve;
pub mod service;
pub mod timely;
pub mod timeout;
pub mod tls;
mod unread;
pub mod warnings;
pub(crate) mod websocket;
