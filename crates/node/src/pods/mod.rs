//! A pod on its node: what is known of it (`record`), what should happen next (`plan`, pure), what the API is told
//! (`status`, pure), and the worker that performs it all, one bounded task a pod.

mod adopt;
mod apply;
mod container_config;
mod context;
mod directory;
mod files;
mod hooks;
mod kill;
mod manager;
mod plan;
mod record;
mod runs;
mod setup;
mod start;
mod status;
mod superseded;
mod teardown;
mod worker;

pub use container_config::log_path;
pub use context::{Context, PodKey};
pub use directory::{ContainerEntry, Directory, PodEntry};
pub use manager::PodManager;
pub use record::later;
