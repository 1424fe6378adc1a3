//! One control group: made, filled, limited, emptied, removed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::layout::{Layout, LimitWrite, V2_CONTROLLERS};
use crate::runtime::Resources;

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup file system is mounted")]
    NotMounted,
    #[error("{operation} {path:?}")]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{count} processes are left in cgroup {path:?}")]
    NotEmpty { path: String, count: usize },
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |source| CgroupError::Io { operation, path: path.to_owned(), source }
}

/// On v1 a thread that moves itself waits for nobody. Whoever moves a process keeps all from forking, and waits some ten
/// milliseconds for those that are: longer than all else that starting a container takes.
fn joining_file(directory: &Path) -> PathBuf {
    let tasks = directory.join("tasks");
    if tasks.exists() { tasks } else { directory.join("cgroup.procs") }
}

/// A group by its path from the root, whether it exists or not.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(super) layout: Layout,
    pub(super) path: String,
}

impl Cgroup {
    pub fn new(layout: &Layout, path: &str) -> Self {
        Self { layout: layout.clone(), path: path.trim_matches('/').to_owned() }
    }

    /// On the machine as it is mounted now.
    pub fn detect(path: &str) -> Result<Self, CgroupError> {
        Ok(Self::new(&detect_layout()?, path))
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether v2 rules here.
    pub fn is_unified(&self) -> bool {
        matches!(self.layout, Layout::V2 { .. })
    }

    pub fn exists(&self) -> bool {
        self.layout.directories(&self.path).iter().any(|directory| directory.exists())
    }

    /// Makes it and its parents in every hierarchy.
    pub fn create(&self) -> Result<(), CgroupError> {
        let depth = Path::new(&self.path).components().count();
        for directory in self.layout.directories(&self.path) {
            let mut chain: Vec<&Path> = directory.ancestors().take(depth + 1).collect();
            chain.reverse();
            for pair in chain.windows(2) {
                self.create_level(pair[0], pair[1])?;
            }
        }
        Ok(())
    }

    fn create_level(&self, parent: &Path, directory: &Path) -> Result<(), CgroupError> {
        if matches!(self.layout, Layout::V2 { .. }) {
            for controller in V2_CONTROLLERS {
                // One at a time: a controller this machine lacks must not take the others with it.
                if let Err(error) = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))
                {
                    tracing::debug!(%error, controller, ?parent, "controller not delegated");
                }
            }
        }
        match fs::create_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(failed("create", directory)(error)),
        }
        // Before 5.11 a group of v1 limits what is below it only if that is said before there is anything.
        let hierarchy = directory.join("memory.use_hierarchy");
        if matches!(self.layout, Layout::V1 { .. }) && hierarchy.exists() {
            drop(fs::write(&hierarchy, "1").inspect_err(|error| tracing::debug!(%error, ?hierarchy)));
        }
        // A fresh v1 cpuset allows nothing at all; no process could join it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if matches!(self.layout, Layout::V1 { .. }) && directory.join(file).exists() {
                let inherited =
                    fs::read_to_string(parent.join(file)).map_err(failed("read", &parent.join(file)))?;
                fs::write(directory.join(file), inherited.trim())
                    .map_err(failed("write", &directory.join(file)))?;
            }
        }
        Ok(())
    }

    pub fn apply(&self, resources: &Resources) -> Result<(), CgroupError> {
        for write in self.layout.limits(&self.path, resources) {
            match fs::OpenOptions::new().write(true).open(&write.file) {
                Ok(mut file) => {
                    file.write_all(write.value.as_bytes()).map_err(failed("limit", &write.file))?
                }
                Err(error) if write.optional && error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("limit", &write.file)(error)),
            }
        }
        Ok(())
    }

    /// Lets the kernel kill all of its processes when one runs out of memory (v2; v1 cannot).
    pub fn kill_together_on_oom(&self) -> Result<(), CgroupError> {
        let Layout::V2 { root } = &self.layout else { return Ok(()) };
        let file = root.join(&self.path).join("memory.oom.group");
        match fs::write(&file, "1") {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("write", &file)(error)),
            _ => Ok(()),
        }
    }

    /// The files that a process of one thread writes `0` to in order to join; opened ahead because the joining process may
    /// no longer see them.
    pub fn open_joins(&self) -> Result<Vec<fs::File>, CgroupError> {
        let directories = self.layout.directories(&self.path);
        let existing = directories.iter().map(|d| joining_file(d)).filter(|file| file.exists());
        existing
            .map(|file| fs::File::options().write(true).open(&file).map_err(failed("open", &file)))
            .collect()
    }

    /// Whether a process is in it, in every hierarchy.
    pub fn holds(&self, pid: i32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        self.layout.is_in(&text, &self.path)
    }

    /// Puts a process in, in every hierarchy.
    pub fn take_in(&self, pid: i32) -> Result<(), CgroupError> {
        for directory in self.layout.directories(&self.path).iter().filter(|d| d.exists()) {
            let file = directory.join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(failed("join", &file))?;
        }
        Ok(())
    }

    /// Puts this process, which has one thread, where it can be found again, without accounting it here.
    pub fn track_self(&self) -> Result<(), CgroupError> {
        let directory = self.layout.tracking_directory(&self.path);
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        let file = joining_file(&directory);
        fs::write(&file, "0").map_err(failed("join", &file))
    }

    /// Every process in it and below, in any hierarchy.
    pub fn pids(&self) -> BTreeSet<i32> {
        let mut pids = BTreeSet::new();
        for directory in self.layout.directories(&self.path) {
            walk(&directory, &mut |level| {
                // A level that vanished holds nothing.
                let text = fs::read_to_string(level.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            });
        }
        pids
    }

    /// Lets what was frozen go on, here, below, and in the groups above that are the cluster's: on v1 a frozen process does
    /// not even die. What cannot be written is not frozen, or is missed by whoever waits for the end.
    pub fn thaw(&self) {
        let above = Path::new(&self.path).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        let mut above: Vec<&Path> = above.collect();
        above.reverse();
        for path in above {
            self.layout.thaw(&path.to_string_lossy()).iter().for_each(thaw_level);
        }
        if let Some(write) = self.layout.thaw(&self.path) {
            let (Some(directory), Some(name)) = (write.file.parent(), write.file.file_name()) else { return };
            walk(directory, &mut |level| {
                thaw_level(&LimitWrite { file: level.join(name), ..write.clone() });
            });
        }
    }

    /// Kills every process in it and below and waits for their end, also of those that are frozen. Zombies do not count.
    pub fn kill_all(&self, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        loop {
            let pidfds: Vec<OwnedFd> = self.pids().into_iter().filter_map(kill_one).collect();
            if pidfds.is_empty() {
                return Ok(());
            }
            // Killed first, so that nothing goes on in between.
            self.thaw();
            if !wait_all(&pidfds, deadline) {
                return Err(CgroupError::NotEmpty { path: self.path.clone(), count: pidfds.len() });
            }
        }
    }

    /// Removes it and what is below it. Not existing is success; a group with processes is an error.
    pub fn remove(&self, patience: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + patience;
        for directory in self.layout.directories(&self.path) {
            let mut levels = Vec::new();
            walk(&directory, &mut |level| levels.push(level.to_owned()));
            for level in levels.into_iter().rev() {
                remove_level(&level, deadline)?;
            }
        }
        Ok(())
    }
}

pub fn detect_layout() -> Result<Layout, CgroupError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    Layout::parse(&text).ok_or(CgroupError::NotMounted)
}

fn thaw_level(write: &LimitWrite) {
    let Ok(text) = fs::read_to_string(&write.file) else { return };
    // Most never were: they are not written to.
    if !["THAWED", "0"].contains(&text.trim())
        && let Err(error) = fs::write(&write.file, &write.value)
    {
        tracing::warn!(%error, file = %write.file.display(), "cannot thaw");
    }
}

/// Parents before children.
fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    visit(directory);
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

/// `None` when it is gone already or only a zombie is left.
fn kill_one(pid: i32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let gone =
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()? > 0;
    if gone {
        return None;
    }
    pidfd_send_signal(&pidfd, Signal::KILL).ok()?;
    Some(pidfd)
}

fn wait_all(pidfds: &[OwnedFd], deadline: Instant) -> bool {
    for pidfd in pidfds {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn remove_level(level: &Path, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        match fs::remove_dir(level) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // A process that has just died leaves its group a moment after it can be waited for, and v1 tells nobody
            // when: look again shortly.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                let pause = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                // Being interrupted only makes the pause shorter.
                poll(&mut [], Some(&pause)).ok();
            }
            Err(error) => return Err(failed("remove", level)(error)),
        }
    }
}
