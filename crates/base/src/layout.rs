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

    /// The port that the API had last.
    pub fn api_port(&self) -> PathBuf {
        self.data_dir.join("api-port")
    }

    /// Makes the data directory, which only its owner may look into. A folder that holds what no cluster has made is
    /// refused: what a cluster makes it also deletes.
    pub fn prepare(&self) -> Result<(), PrepareError> {
        let failed = |source| PrepareError::Io { path: self.data_dir.clone(), source };
        std::fs::create_dir_all(&self.data_dir).map_err(failed)?;
        if !self.lock().exists()
            && let Some(stranger) = self.entries().map_err(failed)?.1.into_iter().next()
        {
            return Err(PrepareError::Foreign { path: self.data_dir.clone(), stranger });
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&self.data_dir, private).map_err(failed)
    }

    /// Whether a cluster makes an entry of this name in its data directory.
    fn makes(&self, path: &Path) -> bool {
        let own = [
            self.pki(),
            self.kubeconfig(),
            self.images(),
            self.containers(),
            self.node(),
            self.volumes(),
            self.git(),
            self.log(),
            self.run_file(),
            self.run_file().with_extension("new"),
            self.api_port(),
            self.lock(),
        ];
        // The state comes with copies and what was set aside.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        own.iter().any(|own| own == path) || name.starts_with("state.")
    }

    /// What lies in the data directory: what a cluster has made, the lock last, since without it the directory is a
    /// cluster's no more; and what else there is.
    pub fn entries(&self) -> std::io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.data_dir)? {
            let path = entry?.path();
            // A file system of its own comes with this.
            if !path.ends_with("lost+found") {
                all.push(path);
            }
        }
        all.sort_by_key(|path| (*path == self.lock(), path.clone()));
        Ok(all.into_iter().partition(|path| self.makes(path)))
    }

    /// Pinned network namespaces.
    pub fn namespaces(&self) -> PathBuf {
        PathBuf::from("/run/kedge").join(&self.cluster_id).join("netns")
    }

    pub fn runtime_dir(&self) -> PathBuf {
        PathBuf::from("/run/kedge").join(&self.cluster_id)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("cannot make {path}; run as root, or choose another place with --data-dir")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is no cluster's directory: it holds {stranger}; choose an empty folder, or a new one, with --data-dir"
    )]
    Foreign { path: PathBuf, stranger: PathBuf },
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

    #[test]
    fn a_folder_of_others_is_not_taken() {
        let folder = std::env::temp_dir().join(format!("kedge-t-{}", id::name_suffix(8)));
        let layout = Layout::new(&folder);
        layout.prepare().expect("a new folder");
        std::fs::write(layout.log(), "").expect("a file of ours");
        std::fs::create_dir(folder.join("lost+found")).expect("a folder");
        layout.prepare().expect("begun by us");
        std::fs::write(folder.join("thesis.txt"), "").expect("a file");
        let refused = layout.prepare().expect_err("somebody else's");
        assert!(refused.to_string().contains("thesis.txt"), "{refused}");
        std::fs::write(layout.lock(), "").expect("a file");
        layout.prepare().expect("a cluster's, with something beside it");
        std::fs::remove_dir_all(folder).expect("removes");
    }
}
