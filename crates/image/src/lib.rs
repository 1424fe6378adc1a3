//! Images: their names, where they come from, how they are kept, unpacked and built. Nothing here runs a container or
//! knows who wants one.
//!
//! [`store::ImageStore`] is the door: references resolve to records, a pull or a build adds them, and a record is
//! prepared into a root a container can be mounted on.

mod accounts;
pub mod builder;
mod content;
mod error;
pub mod fuzzed;
mod import;
mod manifest;
mod overlay;
mod pack;
mod pull;
mod reference;
mod shared;
mod snapshot;
mod store;
mod tree;
mod unpack;

pub use error::{ImageError, Result};
pub use manifest::{Configuration, Healthcheck, Settings, architecture};
pub use pull::{PullPhase, PullProgress, RegistryAuth};
pub use reference::Reference;
pub use snapshot::ContainerRoot;
pub use store::{Collected, ImageRecord, ImageStore};
