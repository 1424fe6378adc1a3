//! Network namespaces pinned by a bind mount, and sockets made inside them.
//!
//! A thread belongs to a namespace, a task does not: so nothing here ever moves a runtime worker. Work that must be
//! inside runs on a short-lived thread of its own; a socket keeps the namespace it was made in and is then used
//! from anywhere.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

use crate::netlink::NetlinkError;
use crate::netlink::route::Route;

const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;
const LOOPBACK_INDEX: u32 = 1;
const LISTEN_BACKLOG: u32 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    #[error("{what} {}: {source}", path.display())]
    Path {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a pinned network namespace", .0.display())]
    NotPinned(PathBuf),
    #[error("set {key}: {source}")]
    Sysctl {
        key: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("start a thread for a namespace: {0}")]
    Thread(#[source] io::Error),
    #[error("the thread inside the namespace panicked")]
    Panicked,
    #[error("socket {address}: {source}")]
    Socket {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NamespaceError {
    let path = path.to_owned();
    move |source| NamespaceError::Path { what, path, source }
}

/// A network namespace: a pinned one, or the process's own.
#[derive(Clone, Debug)]
pub struct Namespace(Option<Arc<Pinned>>);

#[derive(Debug)]
struct Pinned {
    path: PathBuf,
    handle: OwnedFd,
}

impl Namespace {
    /// The namespace this process was started in.
    pub fn host() -> Self {
        Self(None)
    }

    /// Makes a namespace with its loopback up and pins it at `path`. A leftover at that path is replaced.
    pub fn create(path: &Path) -> Result<Self, NamespaceError> {
        let owned = path.to_owned();
        on_thread(move || Self::create_here(&owned, |_| Ok(())))?
    }

    /// `create` on the calling thread, which stays inside; `inside` runs there once the loopback is up.
    pub(crate) fn create_here(
        path: &Path,
        inside: impl FnOnce(&mut Route) -> Result<(), NamespaceError>,
    ) -> Result<Self, NamespaceError> {
        Self::delete(path)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(at("create", parent))?;
        }
        OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(at("create", path))?;
        // SAFETY: only the network namespace of this thread changes; no descriptor or memory is shared by it.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|e| at("unshare the network for", path)(e.into()))?;
        let mut route = Route::open()?;
        route.set_up(LOOPBACK_INDEX)?;
        without_ipv6_chatter()?;
        inside(&mut route)?;
        mount_bind("/proc/thread-self/ns/net", path).map_err(|e| at("pin", path)(e.into()))?;
        Self::open(path)
    }

    /// Opens a pinned namespace.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let file = File::open(path).map_err(at("open", path))?;
        let kind = rustix::fs::fstatfs(&file).map_err(|e| at("inspect", path)(e.into()))?.f_type;
        if kind != NSFS_MAGIC {
            return Err(NamespaceError::NotPinned(path.to_owned()));
        }
        Ok(Self(Some(Arc::new(Pinned { path: path.to_owned(), handle: file.into() }))))
    }

    /// Unpins; the kernel frees the namespace when its last process and socket are gone. Idempotent.
    pub fn delete(path: &Path) -> Result<(), NamespaceError> {
        loop {
            match unmount(path, UnmountFlags::DETACH) {
                Ok(()) => {}
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => break,
                Err(error) => return Err(at("unpin", path)(error.into())),
            }
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Unpins every namespace below `directory` and removes it: what a crash may have left. Returns how many.
    pub fn purge(directory: &Path) -> Result<usize, NamespaceError> {
        let table = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(table).map_err(at("read", table))?;
        let mut purged = 0;
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new) {
            if mount.starts_with(directory) && mount != directory {
                Self::delete(mount)?;
                purged += 1;
            }
        }
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", directory)(error)),
            _ => Ok(purged),
        }
    }

    /// Where it is pinned; `None` for the process's own.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref().map(|pinned| pinned.path.as_path())
    }

    /// Moves the calling thread inside. Never call this on a runtime's worker.
    pub(crate) fn enter(&self) -> Result<(), NamespaceError> {
        let Some(pinned) = &self.0 else { return Ok(()) };
        move_into_link_name_space(pinned.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| at("enter", &pinned.path)(e.into()))
    }

    /// Runs `work` inside, on a thread of its own, and waits for it.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NamespaceError> {
        let this = self.clone();
        on_thread(move || this.enter().map(|()| work()))?
    }

    /// `run` without blocking the caller's task.
    pub async fn run_async<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NamespaceError> {
        let this = self.clone();
        on_thread_async(move || this.enter().map(|()| work())).await?
    }

    /// Opens a TCP connection from inside.
    pub async fn connect_tcp(&self, address: SocketAddr) -> Result<TcpStream, NamespaceError> {
        let failed = |source| NamespaceError::Socket { address, source };
        let socket = self.run_async(move || tcp_socket(address)).await?.map_err(failed)?;
        let stream = socket.connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }

    /// Listens for TCP inside.
    pub async fn listen_tcp(&self, address: SocketAddr) -> Result<TcpListener, NamespaceError> {
        let failed = |source| NamespaceError::Socket { address, source };
        let socket = self.run_async(move || tcp_socket(address)).await?.map_err(failed)?;
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(address).map_err(failed)?;
        socket.listen(LISTEN_BACKLOG).map_err(failed)
    }

    /// Binds a UDP socket inside.
    pub async fn bind_udp(&self, address: SocketAddr) -> Result<UdpSocket, NamespaceError> {
        let failed = |source| NamespaceError::Socket { address, source };
        let socket = self.run_async(move || std::net::UdpSocket::bind(address)).await?.map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        UdpSocket::from_std(socket).map_err(failed)
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
}

/// Links born in this namespace get no generated IPv6 address, so that none sends neighbour discovery.
fn without_ipv6_chatter() -> Result<(), NamespaceError> {
    const KEY: &str = "net/ipv6/conf/default/addr_gen_mode";
    if Path::new("/proc/sys").join(KEY).exists() { set_sysctl(KEY, "1") } else { Ok(()) }
}

/// Sets a kernel parameter of the calling thread's namespace, e.g. `net/ipv4/ip_forward`.
pub(crate) fn set_sysctl(key: &str, value: &str) -> Result<(), NamespaceError> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(path, value).map_err(|source| NamespaceError::Sysctl { key: key.to_owned(), source })
}

pub(crate) fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NamespaceError> {
    let thread =
        std::thread::Builder::new().name("net-inside".into()).spawn(work).map_err(NamespaceError::Thread)?;
    thread.join().map_err(|_| NamespaceError::Panicked)
}

pub(crate) async fn on_thread_async<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NamespaceError> {
    let (done, wait) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("net-inside".into())
        .spawn(move || {
            // A caller that was cancelled no longer wants the answer.
            drop(done.send(work()));
        })
        .map_err(NamespaceError::Thread)?;
    wait.await.map_err(|_| NamespaceError::Panicked)
}
