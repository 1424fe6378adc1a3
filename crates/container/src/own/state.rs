//! What is kept on disk: enough for a new agent to know every container, and the end of each that nobody was there
//! to hear of.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::clock::now_ns;
use crate::rootfs;
use crate::runtime::{ContainerConfig, ContainerState, ContainerStatus, Rootfs, SandboxConfig};

const STATUS_FILE: &str = "status.json";
const CONFIG_FILE: &str = "container.json";

/// Written before anything is made for the container, so that all of it can be found and undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub cgroup_path: String,
    pub config: ContainerConfig,
}

pub fn container_dir(sandbox_dir: &Path, id: &str) -> PathBuf {
    sandbox_dir.join("containers").join(id)
}

/// Those of every container that something was made for.
pub fn container_dirs(sandbox_dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(sandbox_dir.join("containers")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

pub fn write_config(directory: &Path, cgroup_path: &str, config: &ContainerConfig) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let record = ContainerRecord { cgroup_path: cgroup_path.to_owned(), config: config.clone() };
    put_json(&directory.join(CONFIG_FILE), &record)
}

pub fn read_config(directory: &Path) -> io::Result<ContainerRecord> {
    read_json(&directory.join(CONFIG_FILE))
}

/// An end is on the disk, with what it is the end of, before anybody hears of it. What lives does not outlive a loss of
/// power, so its states need not either: a disk's flush takes as long as starting a process.
pub fn write_status(directory: &Path, status: &ContainerStatus) -> io::Result<()> {
    let path = directory.join(STATUS_FILE);
    if status.state != ContainerState::Exited {
        return put_json(&path, status);
    }
    match File::open(directory.join(CONFIG_FILE)).and_then(|config| config.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_json(&path, status)
}

pub fn read_status(directory: &Path) -> io::Result<ContainerStatus> {
    read_json(&directory.join(STATUS_FILE))
}

/// What is known of a container before it runs.
pub fn status_of(sandbox: &SandboxConfig, config: &ContainerConfig) -> ContainerStatus {
    let log = config.log_path.as_os_str();
    ContainerStatus {
        id: config.id.clone(),
        sandbox_id: sandbox.id.clone(),
        name: config.name.clone(),
        attempt: config.attempt,
        image: config.image.clone(),
        log_path: if log.is_empty() { log.into() } else { sandbox.log_directory.join(log) },
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        ..ContainerStatus::default()
    }
}

/// What the files say of a container. Where its making was cut short there is no status, and where the power was lost
/// what is there may be empty: its state is unknown then, and after that so is what it was.
pub fn last_status(sandbox: &SandboxConfig, directory: &Path) -> ContainerStatus {
    let by_config = || Ok::<_, io::Error>(status_of(sandbox, &read_config(directory)?.config));
    read_status(directory).or_else(|_| by_config()).unwrap_or_else(|_| ContainerStatus {
        id: directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        sandbox_id: sandbox.id.clone(),
        ..ContainerStatus::default()
    })
}

/// The status of what has been killed.
pub fn killed(status: ContainerStatus, reason: &str, message: &str) -> ContainerStatus {
    ContainerStatus {
        state: ContainerState::Exited,
        finished_at_ns: now_ns(),
        exit_code: 128 + libc::SIGKILL,
        reason: reason.into(),
        message: message.into(),
        pid: 0,
        ..status
    }
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Whole or not at all, and on the disk when it returns.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    put(path, value, File::sync_all)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Whole or not at all for whoever reads it, until the power is lost: then it may be empty, or not there.
fn put_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    put(path, value, |_| Ok(()))
}

fn put(path: &Path, value: &impl Serialize, settle: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    settle(&file)?;
    fs::rename(&temporary, path)
}

/// Undoes everything that was made for a container, whatever of it exists.
pub fn tear_down(directory: &Path, rootfs: &Rootfs, cgroup_path: &str) -> io::Result<()> {
    let cgroup = Cgroup::detect(cgroup_path).map_err(io::Error::other)?;
    cgroup.kill_all(Duration::from_secs(10)).map_err(io::Error::other)?;
    if !rootfs.merged.as_os_str().is_empty() {
        rootfs::unmount_all(&rootfs.merged).map_err(io::Error::other)?;
    }
    cgroup.remove(Duration::from_secs(5)).map_err(io::Error::other)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
