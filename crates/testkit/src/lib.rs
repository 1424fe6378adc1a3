//! Real clusters for tests and measurements: the real binary on a data directory of its own, in network namespaces of
//! its own, taken down to the last trace when the test ends, however it ends.

pub mod api;
pub mod certificate;
pub mod cluster;
pub mod differential;
pub mod etcd;
pub mod extension;
pub mod flux;
pub mod git_server;
pub mod http;
pub mod overload;
pub mod repository;
pub mod wait;

pub use certificate::Certificate;
pub use cluster::Cluster;
pub use etcd::Etcd;
pub use extension::Extension;
pub use git_server::GitServer;
pub use repository::Repository;
pub use wait::until;
