//! Ends of children, as a descriptor to poll.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Blocks SIGCHLD and returns a descriptor that is readable when one has come.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the new descriptor is owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Empties the descriptor, then reaps every child that has ended: pid and exit code (128 + n for signal n).
pub fn reap(signals: &OwnedFd) -> Vec<(i32, i32)> {
    let mut buffer = [0u8; 1024];
    while rustix::io::read(signals, &mut buffer).is_ok_and(|count| count > 0) {}
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: writes one int of ours.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return ended;
        }
        let code =
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
        ended.push((pid, code));
    }
}
