//! Taking away everything of a cluster, knowing nothing but its name: after a crash there may be no state left to read.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::state;
use crate::cgroup::{Cgroup, CgroupError};
use crate::protocol::{SANDBOX_FILE, SandboxRecord};
use crate::rootfs::{self, RootfsError};
use crate::runtime::{ContainerState, reason};

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

/// Writes down, after [`purge`], that what had not ended was killed: whoever comes next would find that it has vanished,
/// and could not know why. What cannot be read is left to them.
pub fn record_killed(state_dir: &Path) -> io::Result<()> {
    let sandboxes = match fs::read_dir(state_dir.join("sandboxes")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for sandbox in sandboxes {
        let sandbox = sandbox?.path();
        let Ok(record) = state::read_json::<SandboxRecord>(&sandbox.join(SANDBOX_FILE)) else { continue };
        for directory in state::container_dirs(&sandbox)? {
            let status = state::last_status(&record.config, &directory);
            if status.state != ContainerState::Exited {
                state::write_status(&directory, &state::killed(status, reason::ERROR, ""))?;
            }
        }
    }
    Ok(())
}
