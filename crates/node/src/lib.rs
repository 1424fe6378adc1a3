//! The agent of one node: it runs the pods the API binds to it, makes their volumes and network, watches over them,
//! tells the API how they are, serves their logs and streams, and translates services for the node's network.
//!
//! It decides nothing about the cluster. It talks to the API only through `kube::Client`, to containers only through
//! the runtime trait, to images only through [`images::Images`] (which the image store is adapted to), and to the
//! kernel's network only through `net`.

pub mod agent;
mod cluster;
pub mod config;
mod env;
mod events;
pub mod fuzzed;
mod image_store;
pub mod images;
pub mod logs;
mod machine;
mod objects;
pub mod pods;
mod probes;
pub mod registration;
mod resources;
mod security;
pub mod server;
pub mod services;
mod stats;
mod volumes;

pub use agent::{Node, NodeError};
pub use config::NodeConfig;
