//! Executing the commands of `RUN`: what a runner is told, and a simple one made of namespaces and a new root.

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Kept of the output, for the error of a command that fails.
const TAIL_MAX_BYTES: usize = 8 * 1024;
const LINE_MAX_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// The mounted stack, to be the command's root.
    pub rootfs: PathBuf,
    pub argv: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunOutput {
    /// 128 + n for signal n.
    pub exit_code: i32,
    /// The last of what it wrote.
    pub tail: String,
}

pub trait StepRunner {
    /// `output` gets each line as it comes, standard output and error alike.
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(&str)) -> io::Result<RunOutput>;
}

/// Runs commands in mount, PID, IPC and UTS namespaces of their own, with the capabilities a container has by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NamespaceRunner {
    /// Share the network of the caller; otherwise there is only loopback.
    pub network: bool,
}

/// chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod,
/// audit_write, setfcap
const CAPABILITIES: u64 = 0xa804_25fb;
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

impl StepRunner for NamespaceRunner {
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(&str)) -> io::Result<RunOutput> {
        let made = MountPoints::make(&step.rootfs, self.network)?;
        let result = self.execute(step, output);
        made.remove()?;
        result
    }
}

impl NamespaceRunner {
    fn execute(&self, step: &RunStep, output: &mut dyn FnMut(&str)) -> io::Result<RunOutput> {
        let (program, arguments) = step.argv.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let (read, write) = io::pipe()?;
        let entry = Entry::new(step, self.network)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(step.env.iter().filter_map(|entry| entry.split_once('=')));
        command.stdin(Stdio::null()).stdout(write.try_clone()?).stderr(write);
        // SAFETY: what runs between fork and exec only makes system calls on memory that was prepared before.
        unsafe { command.pre_exec(move || entry.enter()) };
        let mut child = command.spawn()?;
        // It holds the writing ends of the pipe.
        drop(command);
        let tail = read_lines(read, output)?;
        let status = child.wait()?;
        let exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(128);
        Ok(RunOutput { exit_code, tail })
    }
}

fn read_lines(read: impl Read, output: &mut dyn FnMut(&str)) -> io::Result<String> {
    let (mut reader, mut line, mut tail) = (BufReader::new(read), Vec::new(), String::new());
    while (&mut reader).take(LINE_MAX_BYTES).read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
        output(&text);
        tail.push_str(&text);
        tail.push('\n');
        if tail.len() > TAIL_MAX_BYTES {
            let cut = (tail.len() - TAIL_MAX_BYTES..tail.len()).find(|at| tail.is_char_boundary(*at));
            tail.drain(..cut.unwrap_or(0));
        }
        line.clear();
    }
    Ok(tail)
}

/// What must exist in the root to be mounted on. What was made for it is taken away again: it is not of the layer.
struct MountPoints {
    made: Vec<PathBuf>,
}

impl MountPoints {
    fn make(root: &Path, network: bool) -> io::Result<Self> {
        let mut points = Self { made: Vec::new() };
        for name in ["proc", "sys", "dev"] {
            let path = root.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => points.made.push(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        if network {
            points.make_file(root, "etc/resolv.conf")?;
        }
        Ok(points)
    }

    fn make_file(&mut self, root: &Path, name: &str) -> io::Result<()> {
        let path = root.join(name);
        let parent = path.parent().unwrap_or(root);
        if !parent.exists() {
            std::fs::create_dir(parent)?;
            self.made.push(parent.to_owned());
        }
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::write(&path, "")?;
                self.made.push(path);
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        for path in self.made.iter().rev() {
            let is_empty_file = path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() == 0);
            let result = if is_empty_file { std::fs::remove_file(path) } else { std::fs::remove_dir(path) };
            match result {
                // The command has put something there: then it is of the layer.
                Err(error)
                    if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound]
                        .contains(&error.kind()) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Source, target, type, flags, data.
type PreparedMount = (CString, CString, Option<CString>, libc::c_ulong, Option<CString>);

/// Everything the new process needs, made before the fork.
struct Entry {
    root: CString,
    cwd: CString,
    mounts: Vec<PreparedMount>,
    files: Vec<CString>,
    links: [(CString, CString); 4],
    uid: u32,
    gid: u32,
    network: bool,
}

impl Entry {
    fn new(step: &RunStep, network: bool) -> io::Result<Self> {
        let c = |text: &str| CString::new(text).map_err(io::Error::other);
        let at = |name: &str| {
            CString::new(step.rootfs.join(name).as_os_str().as_bytes()).map_err(io::Error::other)
        };
        let quiet = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
        let mut mounts = vec![
            (c("proc")?, at("proc")?, Some(c("proc")?), quiet, None),
            (c("tmpfs")?, at("dev")?, Some(c("tmpfs")?), libc::MS_NOSUID, Some(c("mode=755,size=64m")?)),
        ];
        if !network {
            mounts.push((c("sysfs")?, at("sys")?, Some(c("sysfs")?), quiet | libc::MS_RDONLY, None));
        }
        let mut files = Vec::new();
        for node in NODES {
            mounts.push((
                c(&format!("/dev/{node}"))?,
                at(&format!("dev/{node}"))?,
                None,
                libc::MS_BIND,
                None,
            ));
            files.push(at(&format!("dev/{node}"))?);
        }
        if network {
            mounts.push((c("/etc/resolv.conf")?, at("etc/resolv.conf")?, None, libc::MS_BIND, None));
        }
        let link = |target: &str, name: &str| Ok::<_, io::Error>((c(target)?, at(name)?));
        let links = [
            link("/proc/self/fd", "dev/fd")?,
            link("/proc/self/fd/0", "dev/stdin")?,
            link("/proc/self/fd/1", "dev/stdout")?,
            link("/proc/self/fd/2", "dev/stderr")?,
        ];
        let root = CString::new(step.rootfs.as_os_str().as_bytes()).map_err(io::Error::other)?;
        Ok(Self { root, cwd: c(&step.cwd)?, mounts, files, links, uid: step.uid, gid: step.gid, network })
    }

    /// Returns in the process that is to execute the command.
    fn enter(&self) -> io::Result<()> {
        let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if !self.network {
            flags |= libc::CLONE_NEWNET;
        }
        // SAFETY: system calls on plain numbers and on strings that live as long as `self`.
        unsafe {
            check(libc::unshare(flags))?;
            // Only a child is in the new PID namespace.
            match libc::fork() {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                child => wait_and_end(child),
            }
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            let none = std::ptr::null();
            check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
            let (root, bind) = (self.root.as_ptr(), libc::MS_BIND | libc::MS_REC);
            check(libc::mount(root, root, none, bind, none.cast()))?;
            self.mount_all()?;
            check(libc::chdir(root))?;
            check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as libc::c_int)?;
            check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
            check(libc::chdir(self.cwd.as_ptr()))?;
            self.drop_privileges()
        }
    }

    /// # Safety
    /// Only between fork and exec.
    unsafe fn mount_all(&self) -> io::Result<()> {
        let text = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        for (source, target, kind, flags, data) in &self.mounts {
            // SAFETY: the strings live as long as `self`.
            unsafe {
                // The device files are made as soon as their tmpfs is there.
                if self.files.contains(target) {
                    let fd =
                        libc::open(target.as_ptr(), libc::O_CREAT | libc::O_CLOEXEC | libc::O_WRONLY, 0o600);
                    check(fd)?;
                    libc::close(fd);
                }
                let data = text(data).cast();
                check(libc::mount(source.as_ptr(), target.as_ptr(), text(kind), *flags, data))?;
            }
        }
        for (target, name) in &self.links {
            // SAFETY: as above.
            check(unsafe { libc::symlink(target.as_ptr(), name.as_ptr()) })?;
        }
        Ok(())
    }

    /// # Safety
    /// Only between fork and exec.
    unsafe fn drop_privileges(&self) -> io::Result<()> {
        // SAFETY: plain numbers.
        unsafe {
            for capability in (0..64u64).filter(|number| CAPABILITIES & 1 << number == 0) {
                // Numbers the kernel does not know are not there to be dropped.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(self.gid, self.gid, self.gid))?;
            check(libc::setresuid(self.uid, self.uid, self.uid))
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The process between: ends as its child does. It must not hold the pipe by which `spawn` learns of the exec.
///
/// # Safety
/// Only between fork and exec.
unsafe fn wait_and_end(child: libc::pid_t) -> ! {
    // SAFETY: plain numbers and one int of ours; the process never returns to other code.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut status = 0;
        while libc::waitpid(child, &raw mut status, 0) < 0 {}
        let code =
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
        libc::_exit(code)
    }
}
