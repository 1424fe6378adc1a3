//! Taking away everything of a cluster, knowing nothing but its name: after a crash there may be no state left to read.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::cgroup::{Cgroup, CgroupError};
use crate::rootfs::{self, RootfsError};

#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("cgroup of {prefix:?}")]
    Cgroup { prefix: String, source: CgroupError },
    #[error("list mounts")]
    Mounts(#[source] io::Error),
    #[error("mount below {directory:?}")]
    Unmount { directory: std::path::PathBuf, source: RootfsError },
}

/// Kills every shim and container of the cluster, unmounts everything below `directories` and removes its cgroups. The
/// directories' contents are the caller's. Blocks for at most about twenty seconds.
pub fn purge(cluster_prefix: &str, directories: &[&Path]) -> Result<(), PurgeError> {
    let failed = |source| PurgeError::Cgroup { prefix: cluster_prefix.to_owned(), source };
    let cgroup = Cgroup::detect(cluster_prefix).map_err(failed)?;
    cgroup.kill_all(Duration::from_secs(10)).map_err(failed)?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(PurgeError::Mounts)?;
    for directory in directories {
        let unmounted = |source| PurgeError::Unmount { directory: directory.to_path_buf(), source };
        let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
        // What was mounted last lies on top.
        for point in
            rootfs::mount_points(&mountinfo).iter().rev().filter(|point| point.starts_with(&directory))
        {
            rootfs::unmount_all(point).map_err(unmounted)?;
        }
    }
    cgroup.remove(Duration::from_secs(10)).map_err(failed)
}
