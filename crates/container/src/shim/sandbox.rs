//! What the containers of one sandbox share: IPC and UTS namespaces (the shim's own), `/dev/shm`, kernel parameters, and,
//! if asked for, a PID namespace with a first process that only reaps.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::cgroup::Cgroup;
use crate::own::state;
use crate::process::launch::LaunchFailure;
use crate::protocol::SandboxRecord;
use crate::rootfs;

const SHM_OPTIONS: &std::ffi::CStr = c"mode=1777,size=65536k";

pub struct Sandbox {
    pub directory: PathBuf,
    pub record: SandboxRecord,
    /// The first process of the shared PID namespace.
    pub pause: Option<i32>,
}

impl Sandbox {
    pub fn set_up(directory: &Path, record: SandboxRecord) -> io::Result<Self> {
        let config = &record.config;
        Cgroup::detect(&format!("{}/shims", record.cgroup_prefix))
            .and_then(|group| group.track_self())
            .map_err(io::Error::other)?;
        // The last to go when memory runs out. Not allowed to everybody, and then not essential.
        fs::write("/proc/self/oom_score_adj", "-998").ok();
        let mut flags = 0;
        if !config.host_ipc {
            flags |= libc::CLONE_NEWIPC;
        }
        if !config.hostname.is_empty() {
            flags |= libc::CLONE_NEWUTS;
        }
        // SAFETY: plain flags; the process is single-threaded.
        if flags != 0 && unsafe { libc::unshare(flags) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if !config.hostname.is_empty() {
            rustix::system::sethostname(config.hostname.as_bytes())?;
            fs::write(directory.join("hostname"), format!("{}\n", config.hostname))?;
        }
        if !config.host_ipc {
            let shm = directory.join("shm");
            fs::create_dir_all(&shm)?;
            if !rootfs::is_mount_point(&shm) {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount("shm", &shm, "tmpfs", flags, Some(SHM_OPTIONS))?;
            }
        }
        set_kernel_parameters(&record)?;
        let pause = if config.share_pid { Some(start_pause()?) } else { None };
        Ok(Self { directory: directory.to_owned(), record, pause })
    }

    pub fn release(&self) -> io::Result<()> {
        rootfs::unmount_all(&self.directory.join("shm")).map_err(io::Error::other)
    }

    pub fn container_dir(&self, id: &str) -> PathBuf {
        state::container_dir(&self.directory, id)
    }
}

/// In a child of its own, because those of the network belong to whoever is in that namespace.
fn set_kernel_parameters(record: &SandboxRecord) -> io::Result<()> {
    if record.config.sysctls.is_empty() {
        return Ok(());
    }
    // SAFETY: single-threaded, so the child may go on as any program.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let result = write_kernel_parameters(record);
            let code = i32::from(result.is_err());
            if let Err(error) = result {
                // The log is all this child can leave.
                base::tell!("{error}");
            }
            // SAFETY: ends the child without the shim's destructors.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status: c_int = 0;
            // SAFETY: waits for our own child and writes one int of ours.
            if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
            match status {
                0 => Ok(()),
                _ => {
                    Err(io::Error::other(format!("cannot set kernel parameters {:?}", record.config.sysctls)))
                }
            }
        }
    }
}

fn write_kernel_parameters(record: &SandboxRecord) -> io::Result<()> {
    if let Some(path) = &record.config.network_namespace {
        let namespace = fs::File::open(path)?;
        rustix::thread::move_into_link_name_space(
            namespace.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
    }
    for (name, value) in &record.config.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

/// The first process of a PID namespace of its own: it adopts and reaps, and ends when killed.
fn start_pause() -> io::Result<i32> {
    // SAFETY: without a stack of its own the call behaves as fork, and we are single-threaded.
    match unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWPID | libc::SIGCHLD, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => pause(),
        pid => Ok(pid as i32),
    }
}

fn pause() -> ! {
    // SAFETY: no memory but the two local values is touched; the process never returns to Rust's own code.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            LaunchFailure::at("block signals", io::Error::last_os_error()).report_and_exit(2);
        }
        loop {
            let mut signal = 0;
            if libc::sigwait(&raw const set, &raw mut signal) == 0 && signal == libc::SIGTERM {
                libc::_exit(0);
            }
            while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        }
    }
}
