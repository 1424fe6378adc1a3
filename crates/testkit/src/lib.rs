//! Real clusters for tests and measurements: the real binary on a data directory of its own, in network namespaces of
//! its own, taken down to the last trace when the test ends, however it ends.

pub mod api;
pub mod cluster;
pub mod differential;
pub mod http;
pub mod repository;
pub mod wait;

pub use cluster::Cluster;
pub use repository::Repository;
pub use wait::until;
