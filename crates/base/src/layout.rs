//! Where a cluster keeps what: everything below one data directory, but for the pinned namespaces, which must lie on
//! a tmpfs that a reboot clears as it clears the namespaces themselves.

use std::path::{Path, PathBuf};

use crate::id;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    data_dir: PathBuf,
    /// Six hexadecimal digits that follow from the data directory: names of links, cgroups and namespaces carry it.
    cluster_id: String,
}

impl Layout {
    /// `data_dir` should be absolute: the cluster's id follows from how it is spelled.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        let cluster_id = id::sha256_hex(data_dir.as_os_str().as_encoded_bytes())[..6].to_owned();
        Self { data_dir, cluster_id }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Begins the name of every cgroup of the cluster.
    pub fn cgroup_prefix(&self) -> String {
        format!("kedge-{}", self.cluster_id)
    }

    pub fn pki(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    pub fn state(&self) -> PathBuf {
        self.data_dir.join("state.redb")
    }

    /// Where a running server gives out its state to whoever may read the data directory.
    pub fn state_socket(&self) -> PathBuf {
        self.data_dir.join("state.sock")
    }

    /// The administrator's way in.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// State of sandboxes and containers.
    pub fn containers(&self) -> PathBuf {
        self.data_dir.join("containers")
    }

    /// Pods: their volumes, logs and hosts files.
    pub fn node(&self) -> PathBuf {
        self.data_dir.join("node")
    }

    /// What the local provisioner makes.
    pub fn volumes(&self) -> PathBuf {
        self.data_dir.join("volumes")
    }

    pub fn git(&self) -> PathBuf {
        self.data_dir.join("git")
    }

    pub fn log(&self) -> PathBuf {
        self.data_dir.join("server.log")
    }

    /// Held locked while a server runs on the directory.
    pub fn lock(&self) -> PathBuf {
        self.data_dir.join("lock")
    }

    /// What a running server says of itself.
    pub fn run_file(&self) -> PathBuf {
        self.data_dir.join("run.json")
    }

    /// Pinned network namespaces.
    pub fn namespaces(&self) -> PathBuf {
        PathBuf::from("/run/kedge").join(&self.cluster_id).join("netns")
    }

    pub fn runtime_dir(&self) -> PathBuf {
        PathBuf::from("/run/kedge").join(&self.cluster_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_differ_by_their_directory() {
        let (a, b) = (Layout::new("/var/lib/a"), Layout::new("/var/lib/b"));
        assert_ne!(a.cluster_id(), b.cluster_id());
        assert_eq!(a, Layout::new("/var/lib/a"));
        assert!(a.state().starts_with("/var/lib/a"));
    }
}
