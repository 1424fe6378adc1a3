//! The process that holds one sandbox: parent, reaper and stdio of its containers, and the owner of the namespaces they
//! share. The agent may be killed and replaced; this stays. Single-threaded, because libcontainer and fork need it.

mod container;
mod create;
mod exec;
mod outlet;
mod sandbox;
mod server;
mod signals;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(crate) use container::set_size;

use crate::protocol::{SANDBOX_FILE, SOCKET, SandboxRecord};

/// The shim's entry: `shim --dir <sandbox directory>`. To be called before any thread or runtime is started. The calling
/// process ends when the shim, its child, is ready; the shim itself never returns from here.
pub fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    match start(arguments) {
        Ok(code) => code,
        Err(error) => {
            base::tell!("shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl IntoIterator<Item = String>) -> io::Result<ExitCode> {
    let mut arguments = arguments.into_iter();
    let directory = match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--dir"), Some(directory), None) => PathBuf::from(directory),
        _ => return Err(io::Error::other("usage: shim --dir <sandbox directory>")),
    };
    // What the agent has left open, or was itself given, is none of ours, and we outlive it.
    // SAFETY: nothing in this process has opened anything yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let directory = fs::canonicalize(directory)?;
    let record: SandboxRecord = serde_json::from_slice(&fs::read(directory.join(SANDBOX_FILE))?)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // The socket's path may be longer than a socket address: name it from inside.
    std::env::set_current_dir(&directory)?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: nothing has started a thread yet.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            let code = run(&directory, record, File::from(write));
            std::process::exit(i32::from(code.is_err()));
        }
        _ => {
            drop(write);
            let mut answer = String::new();
            File::from(read).read_to_string(&mut answer)?;
            match answer.as_str() {
                "ready" => Ok(ExitCode::SUCCESS),
                "" => Err(io::Error::other("ended before it was ready")),
                error => Err(io::Error::other(error.to_owned())),
            }
        }
    }
}

fn run(directory: &Path, record: SandboxRecord, mut ready: File) -> io::Result<()> {
    match prepare(directory, record) {
        Ok(mut server) => {
            ready.write_all(b"ready")?;
            drop(ready);
            server.run()
        }
        Err(error) => {
            ready.write_all(error.to_string().as_bytes())?;
            Err(error)
        }
    }
}

fn prepare(directory: &Path, record: SandboxRecord) -> io::Result<server::Server> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    redirect_stdio(directory)?;
    let sandbox = sandbox::Sandbox::set_up(directory, record)?;
    let signals = signals::child_signals()?;
    match fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    listener.set_nonblocking(true)?;
    Ok(server::Server::new(sandbox, listener, signals))
}

fn redirect_stdio(directory: &Path) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).open(directory.join("shim.log"))?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}
