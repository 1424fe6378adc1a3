//! From root with all capabilities to the program: user, groups, capabilities, seccomp, exec.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::seccomp::{self, Programs};
use crate::spec::capabilities::{COUNT, CapabilitySet};
use crate::spec::user::ResolvedUser;

/// What the program is to be and to hold.
#[derive(Debug, Clone)]
pub struct Launch {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub user: ResolvedUser,
    pub capabilities: CapabilitySet,
    pub no_new_privileges: bool,
    pub seccomp: Rc<Programs>,
}

/// Why the program could not be executed, and what a shell would have exited with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    pub exit_code: i32,
    pub message: String,
}

impl LaunchFailure {
    pub fn at(step: &str, error: impl std::fmt::Display) -> Self {
        Self { exit_code: 128, message: format!("{step}: {error}") }
    }

    /// Tells the shim through a descriptor that closes by itself when the exec succeeds, then ends the process.
    pub fn report_and_exit(&self, fd: RawFd) -> ! {
        if let Ok(text) = serde_json::to_vec(self) {
            // SAFETY: the descriptor belongs to this process until it exits, below.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            // Without a reader the exit code alone has to tell.
            rustix::io::write(fd, &text).ok();
        }
        // SAFETY: ends this forked process at once, without running the shim's destructors in it.
        unsafe { libc::_exit(self.exit_code) }
    }
}

fn check(step: &str, result: libc::c_int) -> Result<(), LaunchFailure> {
    if result == 0 { Ok(()) } else { Err(LaunchFailure::at(step, io::Error::last_os_error())) }
}

impl Launch {
    /// Returns only on failure.
    pub fn run(&self) -> LaunchFailure {
        match self.prepare() {
            Ok(()) => execute(&self.args, &self.env),
            Err(failure) => failure,
        }
    }

    fn prepare(&self) -> Result<(), LaunchFailure> {
        reset_signals()?;
        // SAFETY: plain numbers. Our own descriptors close by themselves; this is for those of the libraries we call.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        self.own_stdio()?;
        self.drop_bounding_set()?;
        // A filter needs CAP_SYS_ADMIN unless the process has renounced new privileges: then it can come last.
        if !self.no_new_privileges {
            self.install_seccomp()?;
        }
        self.become_user()?;
        self.set_capabilities()?;
        if self.no_new_privileges {
            // SAFETY: plain flags, no memory involved.
            check("set no_new_privs", unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
            self.install_seccomp()?;
        }
        Ok(())
    }

    /// A program that is not root must be able to open `/dev/stdout` again.
    fn own_stdio(&self) -> Result<(), LaunchFailure> {
        for fd in 0..3 {
            // SAFETY: the structure is filled before it is read; both calls only take a descriptor of ours.
            unsafe {
                let mut stat = std::mem::zeroed::<libc::stat>();
                let known = libc::fstat(fd, &raw mut stat) == 0;
                if known && (stat.st_mode & libc::S_IFMT == libc::S_IFIFO || libc::isatty(fd) == 1) {
                    check("give stdio to the user", libc::fchown(fd, self.user.uid, libc::gid_t::MAX))?;
                }
            }
        }
        Ok(())
    }

    fn install_seccomp(&self) -> Result<(), LaunchFailure> {
        seccomp::install(&self.seccomp)
            .map_err(|errno| LaunchFailure::at("install seccomp filter", io::Error::from_raw_os_error(errno)))
    }

    fn drop_bounding_set(&self) -> Result<(), LaunchFailure> {
        for number in (0..COUNT).filter(|number| !self.capabilities.contains(*number)) {
            // SAFETY: plain numbers, no memory involved.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
            let error = io::Error::last_os_error();
            // An older kernel does not know the newest capabilities: nothing to drop.
            if result != 0 && error.raw_os_error() != Some(libc::EINVAL) {
                return Err(LaunchFailure::at("drop capability from the bounding set", error));
            }
        }
        Ok(())
    }

    fn become_user(&self) -> Result<(), LaunchFailure> {
        let user = &self.user;
        // SAFETY: the group list outlives the call; everything else is plain numbers.
        unsafe {
            check("setgroups", libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
            check("setgid", libc::setresgid(user.gid, user.gid, user.gid))?;
            check("keep capabilities", libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            check("setuid", libc::setresuid(user.uid, user.uid, user.uid))
        }
    }

    fn set_capabilities(&self) -> Result<(), LaunchFailure> {
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        #[repr(C)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        const VERSION_3: u32 = 0x2008_0522;
        let header = Header { version: VERSION_3, pid: 0 };
        let half = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
        let data = [half(self.capabilities.0), half(self.capabilities.0 >> 32)];
        // SAFETY: the structures are those of capset(2) version 3, which reads two data elements.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
        check("capset", result as libc::c_int)?;
        // SAFETY: plain flags, no memory involved.
        unsafe {
            check("clear ambient capabilities", libc::prctl(libc::PR_CAP_AMBIENT, 4, 0, 0, 0))?;
            check("forget kept capabilities", libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))
        }
    }
}

/// The shim blocks SIGCHLD, Rust ignores SIGPIPE, and who started the agent may have ignored more: a program expects the
/// defaults.
fn reset_signals() -> Result<(), LaunchFailure> {
    /// The kernel's own sigaction, all zero: default handler, no flags, empty mask.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_BYTES: usize = 8;
    // SAFETY: the set is initialised by sigemptyset before it is used; the kernel reads one structure of ours for each
    // signal. The system call is made directly because the C library refuses its two own signals.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        check(
            "unblock signals",
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()),
        )?;
        for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
            let old = std::ptr::null_mut::<u64>();
            let result = libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, MASK_BYTES);
            check("reset signal handler", result as libc::c_int)?;
        }
    }
    Ok(())
}

fn execute(args: &[String], env: &[String]) -> LaunchFailure {
    let Some(name) = args.first() else { return LaunchFailure::at("exec", "no command") };
    let strings =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(arguments), Ok(variables)) = (strings(args), strings(env)) else {
        return LaunchFailure::at("exec", "an argument or variable holds a zero byte");
    };
    if name.contains('/') {
        let error = execve(name, &arguments, &variables);
        return failure(name, &error, true);
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let mut refused = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let error = execve(&format!("{directory}/{name}"), &arguments, &variables);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            _ => refused = Some(error),
        }
    }
    failure(name, &refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)), false)
}

fn execve(path: &str, arguments: &[CString], variables: &[CString]) -> io::Error {
    let Ok(path) = CString::new(path) else { return io::Error::from_raw_os_error(libc::ENOENT) };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(variables));
    // SAFETY: both arrays end with a null pointer, and all they point to outlives the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

fn failure(name: &str, error: &io::Error, is_path: bool) -> LaunchFailure {
    let (exit_code, message) = match (error.raw_os_error(), is_path) {
        (Some(libc::ENOENT), false) => (127, format!("exec: {name:?}: executable file not found in $PATH")),
        (Some(libc::ENOENT | libc::ENOTDIR), _) => {
            (127, format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        (Some(libc::EACCES | libc::EPERM), _) => (126, format!("exec: {name:?}: permission denied")),
        (Some(libc::ENOEXEC), _) => (126, format!("exec {name:?}: exec format error")),
        _ => (126, format!("exec: {name:?}: {error}")),
    };
    LaunchFailure { exit_code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_as_users_know_them() {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let check = |args: &[&str], code, text: &str| {
            let failure = execute(&own(args), &own(&["PATH=/nowhere:/etc"]));
            assert_eq!((failure.exit_code, failure.message.as_str()), (code, text));
        };
        check(&["nope"], 127, "exec: \"nope\": executable file not found in $PATH");
        check(&["/nope"], 127, "exec: \"/nope\": stat /nope: no such file or directory");
        check(&["/etc/passwd"], 126, "exec: \"/etc/passwd\": permission denied");
        check(&["passwd"], 126, "exec: \"passwd\": permission denied");
    }
}
