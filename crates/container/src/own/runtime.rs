//! The trait, carried out by shims.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, spawn_blocking};

use super::connection::Connection;
use super::sandbox::Sandbox;
use super::signal::stop_signal;
use super::state;
use crate::cgroup::Cgroup;
use crate::clock::now_ns;
use crate::protocol::{Request, SANDBOX_FILE, SandboxRecord};
use crate::runtime::{
    ContainerConfig, ContainerEvent, ContainerState, ContainerStats, ContainerStatus, EVENT_BUFFER,
    ExecRequest, ExecResult, ExecSession, Reply, Resources, Result, Runtime, RuntimeError, RuntimeVersion,
    SandboxConfig, SandboxStatus,
};

const SHIM_START_TIMEOUT: Duration = Duration::from_secs(30);
/// After SIGKILL. A process in an uninterruptible wait outlasts it.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs containers through shims of its own. Dropping it leaves all of them running.
pub struct OwnRuntime {
    /// Holds `sandboxes/<id>/`.
    state_dir: PathBuf,
    /// Executed with `shim --dir <directory>`.
    executable: PathBuf,
    cluster_prefix: String,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    followers: Mutex<BTreeMap<String, AbortHandle>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        self.followers.lock().values().for_each(AbortHandle::abort);
    }
}

impl OwnRuntime {
    /// Finds every sandbox of an earlier runtime on the same state directory and goes on with it: with its shim if that
    /// lives, with what it has left behind if not.
    pub async fn new(
        state_dir: impl Into<PathBuf>,
        executable: impl Into<PathBuf>,
        cluster_prefix: impl Into<String>,
    ) -> io::Result<Self> {
        let runtime = Self {
            state_dir: state_dir.into(),
            executable: executable.into(),
            cluster_prefix: cluster_prefix.into().trim_matches('/').to_owned(),
            sandboxes: Mutex::default(),
            followers: Mutex::default(),
            events: broadcast::Sender::new(EVENT_BUFFER),
        };
        let sandboxes = runtime.state_dir.join("sandboxes");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&sandboxes)?;
        for entry in std::fs::read_dir(&sandboxes)? {
            runtime.recover(entry?.path()).await?;
        }
        Ok(runtime)
    }

    async fn recover(&self, directory: PathBuf) -> io::Result<()> {
        let record: SandboxRecord = match state::read_json(&directory.join(SANDBOX_FILE)) {
            Ok(record) => record,
            Err(error) => {
                // Cut short before anything was made for it.
                tracing::warn!(?directory, %error, "removing a sandbox that was never made");
                return std::fs::remove_dir_all(&directory);
            }
        };
        let sandbox = Arc::new(Sandbox::new(directory, record, self.events.clone()));
        sandbox.load_files()?;
        match sandbox.subscribe().await {
            Ok(connection) => self.follow(sandbox.clone(), connection),
            Err(error) => {
                match sandbox.unended() {
                    // It was stopped, or had nothing left to do.
                    0 => tracing::debug!(sandbox = sandbox.id(), %error, "its shim has ended"),
                    lost => tracing::warn!(sandbox = sandbox.id(), lost, %error, "its shim is gone"),
                }
                sandbox.bury().await;
            }
        }
        self.sandboxes.lock().insert(sandbox.id().to_owned(), sandbox);
        Ok(())
    }

    fn follow(&self, sandbox: Arc<Sandbox>, connection: Connection) {
        let id = sandbox.id().to_owned();
        let task = tokio::spawn(async move { sandbox.follow(connection).await });
        self.followers.lock().insert(id, task.abort_handle());
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        self.sandboxes.lock().get(id).cloned().ok_or_else(|| RuntimeError::sandbox_not_found(id))
    }

    fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.lock().values().cloned().collect()
    }

    pub(super) fn locate(&self, container_id: &str) -> Result<(Arc<Sandbox>, ContainerStatus)> {
        let found =
            self.sandboxes().into_iter().find_map(|s| s.container(container_id).map(|status| (s, status)));
        found.ok_or_else(|| RuntimeError::container_not_found(container_id))
    }

    async fn run(&self, config: SandboxConfig) -> Result<String> {
        let id = config.id.clone();
        check_id(&id)?;
        let failed = |message: String| RuntimeError::Sandbox { id: id.clone(), message };
        if let Ok(sandbox) = self.sandbox(&id) {
            return match sandbox.is_alive() {
                true => Ok(id),
                false => Err(failed("it exists already and is not ready: remove it first".into())),
            };
        }
        let directory = self.state_dir.join("sandboxes").join(&id);
        let record =
            SandboxRecord { config, created_at_ns: now_ns(), cgroup_prefix: self.cluster_prefix.clone() };
        let sandbox = Arc::new(Sandbox::new(directory, record, self.events.clone()));
        match self.start_shim(&sandbox).await {
            Ok(connection) => {
                self.follow(sandbox.clone(), connection);
                self.sandboxes.lock().insert(id.clone(), sandbox);
                Ok(id)
            }
            Err(error) => {
                if let Err(error) = discard(&sandbox.directory) {
                    tracing::warn!(sandbox = id, %error, "a sandbox that could not be made is left behind");
                }
                Err(failed(error.to_string()))
            }
        }
    }

    async fn start_shim(&self, sandbox: &Sandbox) -> io::Result<Connection> {
        let resources = sandbox.record.config.resources.clone();
        if let Some(parent) = sandbox.record.parent_cgroup().filter(|_| resources != Resources::default()) {
            let limit = move || limit(&parent, &resources, true);
            tokio::task::spawn_blocking(limit).await.map_err(io::Error::other)??;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&sandbox.directory)?;
        state::write_json(&sandbox.directory.join(SANDBOX_FILE), &sandbox.record)?;
        let mut command = tokio::process::Command::new(&self.executable);
        command.arg("shim").arg("--dir").arg(&sandbox.directory).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = tokio::time::timeout(SHIM_START_TIMEOUT, command.output()).await;
        let output = output.map_err(|_| io::Error::other("the shim did not get ready"))??;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        sandbox.subscribe().await
    }

    async fn stop(&self, sandbox: &Sandbox) -> Result<()> {
        let _one_at_a_time = sandbox.operations.lock().await;
        if !sandbox.is_alive() {
            return Ok(());
        }
        match sandbox.ask(Request::Shutdown).await {
            Ok(_) | Err(RuntimeError::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
        // The follower may still have news to take in, and takes note of the end itself.
        match sandbox.wait_until_over(KILL_TIMEOUT).await {
            true => Ok(()),
            false => Err(RuntimeError::Timeout {
                operation: "stop".into(),
                id: sandbox.id().into(),
                timeout_ms: KILL_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop(&sandbox).await?;
        for status in sandbox.statuses() {
            self.remove_from(&sandbox, &status.id).await?;
        }
        let directory = sandbox.directory.clone();
        let parent = sandbox.record.parent_cgroup().filter(|parent| {
            // A later sandbox of the same owner has moved in, perhaps with nothing in it yet.
            !self
                .sandboxes()
                .iter()
                .any(|s| s.id() != id && s.record.parent_cgroup().as_ref() == Some(parent))
        });
        blocking("remove sandbox", id, move || {
            if let Some(parent) = parent {
                forget_group(&parent);
            }
            discard(&directory)
        })
        .await?;
        self.sandboxes.lock().remove(id);
        if let Some(follower) = self.followers.lock().remove(id) {
            follower.abort();
        }
        Ok(())
    }

    async fn create(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        let id = config.id.clone();
        check_id(&id)?;
        match self.locate(&id) {
            // Left over from one that nobody knows any more: nothing can start it.
            Ok((other, _)) if other.id() != sandbox_id && !other.is_alive() => {
                self.remove_from(&other, &id).await?;
            }
            Ok(_) => return Err(RuntimeError::AlreadyExists { object: "container".into(), id }),
            Err(_) => {}
        }
        let _one_at_a_time = sandbox.operations.lock().await;
        sandbox.ask(Request::Create { config: Box::new(config) }).await?;
        // The subscription may tell later than the answer; who asks next must find it.
        self.seen(&sandbox, &id, |_| true).await;
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let (sandbox, _) = self.locate(id)?;
        sandbox.ask(Request::Start { id: id.into() }).await?;
        self.seen(&sandbox, id, |status| status.state != ContainerState::Created).await;
        Ok(())
    }

    /// Waits, briefly, until the subscription has told what an answer has told already.
    async fn seen(&self, sandbox: &Sandbox, id: &str, expected: impl Fn(&ContainerStatus) -> bool) {
        if !sandbox.wait_until(id, expected, Duration::from_secs(5)).await {
            tracing::warn!(container = id, "the shim's news are late");
        }
    }

    async fn stop_one(&self, sandbox: &Sandbox, status: &ContainerStatus, timeout: Duration) -> Result<()> {
        let id = status.id.as_str();
        if status.state == ContainerState::Exited || !sandbox.is_alive() {
            return Ok(());
        }
        if status.state == ContainerState::Running && !timeout.is_zero() {
            let signal = stop_signal(&sandbox.container_dir(id));
            self.signal(sandbox, id, signal).await?;
            if sandbox.wait_for_exit(id, timeout).await.is_some() {
                return Ok(());
            }
        }
        match self.signal(sandbox, id, libc::SIGKILL).await {
            // Its making was cut short: the shim has never had it.
            Err(error) if error.is_not_found() => return Ok(()),
            result => result?,
        }
        match sandbox.wait_for_exit(id, KILL_TIMEOUT).await {
            Some(_) => Ok(()),
            None => Err(RuntimeError::Timeout {
                operation: "stop".into(),
                id: id.into(),
                timeout_ms: KILL_TIMEOUT.as_millis() as u64,
            }),
        }
    }

    async fn signal(&self, sandbox: &Sandbox, id: &str, signal: i32) -> Result<()> {
        sandbox.ask(Request::Signal { id: id.into(), signal }).await.map(|_| ())
    }

    async fn remove_from(&self, sandbox: &Sandbox, id: &str) -> Result<()> {
        let _one_at_a_time = sandbox.operations.lock().await;
        let Some(status) = sandbox.container(id) else { return Ok(()) };
        self.stop_one(sandbox, &status, Duration::ZERO).await?;
        if sandbox.is_alive() {
            sandbox.ask(Request::Forget { id: id.into() }).await?;
        }
        let directory = sandbox.container_dir(id);
        let cgroup = sandbox.record.container_cgroup(id);
        let undo = move || match state::read_config(&directory) {
            Ok(record) => state::tear_down(&directory, &record.config.rootfs, &record.cgroup_path),
            // Without a configuration nothing was mounted for it.
            Err(_) => state::tear_down(&directory, &Default::default(), &cgroup),
        };
        blocking("remove", id, undo).await?;
        sandbox.forget(id);
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    operation: &str,
    id: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = spawn_blocking(work).await.map_err(|error| RuntimeError::io(operation, id, error))?;
    done.map_err(|error| RuntimeError::io(operation, id, error))
}

/// Gives a group limits; makes it first where that is said.
fn limit(path: &str, resources: &Resources, create: bool) -> io::Result<()> {
    let cgroup = Cgroup::detect(path).map_err(io::Error::other)?;
    if create {
        cgroup.create().map_err(io::Error::other)?;
    }
    cgroup.apply(resources).map_err(io::Error::other)
}

/// Removes the group that held a sandbox's containers, if nothing is in it.
fn forget_group(path: &str) {
    let Ok(layout) = crate::cgroup::detect_layout() else { return };
    for directory in layout.directories(path) {
        if let Err(error) = std::fs::remove_dir(&directory) {
            tracing::trace!(%error, path = %directory.display(), "a control group stays");
        }
    }
}

/// Everything of a sandbox without containers.
fn discard(directory: &Path) -> io::Result<()> {
    crate::rootfs::unmount_all(&directory.join("shm")).map_err(io::Error::other)?;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Ids become file names, cgroups and arguments.
fn check_id(id: &str) -> Result<()> {
    let fits = (1..=64).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && !id.starts_with('.');
    let message = || "an id is 1 to 64 letters, digits, '_', '.' or '-', and does not begin with '.'".into();
    if fits { Ok(()) } else { Err(RuntimeError::InvalidConfig { id: id.into(), message: message() }) }
}

impl Runtime for OwnRuntime {
    fn version(&self) -> RuntimeVersion {
        RuntimeVersion { name: "kedge".into(), version: env!("CARGO_PKG_VERSION").into() }
    }

    fn run_pod_sandbox(&self, config: SandboxConfig) -> Reply<'_, String> {
        Box::pin(self.run(config))
    }

    fn stop_pod_sandbox<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            match self.sandbox(sandbox_id) {
                Ok(sandbox) => self.stop(&sandbox).await,
                Err(_) => Ok(()),
            }
        })
    }

    fn remove_pod_sandbox<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, ()> {
        Box::pin(self.remove(sandbox_id))
    }

    fn pod_sandbox_status<'a>(&'a self, sandbox_id: &'a str) -> Reply<'a, SandboxStatus> {
        Box::pin(async move { Ok(self.sandbox(sandbox_id)?.status()) })
    }

    fn list_pod_sandboxes(&self) -> Reply<'_, Vec<SandboxStatus>> {
        Box::pin(async { Ok(self.sandboxes().iter().map(|sandbox| sandbox.status()).collect()) })
    }

    fn create_container<'a>(&'a self, sandbox_id: &'a str, config: ContainerConfig) -> Reply<'a, String> {
        Box::pin(self.create(sandbox_id, config))
    }

    fn start_container<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()> {
        Box::pin(self.start(container_id))
    }

    fn stop_container<'a>(&'a self, container_id: &'a str, timeout: Duration) -> Reply<'a, ()> {
        Box::pin(async move {
            match self.locate(container_id) {
                Ok((sandbox, status)) => self.stop_one(&sandbox, &status, timeout).await,
                Err(_) => Ok(()),
            }
        })
    }

    fn remove_container<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            match self.locate(container_id) {
                Ok((sandbox, _)) => self.remove_from(&sandbox, container_id).await,
                Err(_) => Ok(()),
            }
        })
    }

    fn container_status<'a>(&'a self, container_id: &'a str) -> Reply<'a, ContainerStatus> {
        Box::pin(async move { self.locate(container_id).map(|(_, status)| status) })
    }

    fn list_containers<'a>(&'a self, sandbox_id: Option<&'a str>) -> Reply<'a, Vec<ContainerStatus>> {
        Box::pin(async move {
            let wanted = self.sandboxes().into_iter().filter(|s| sandbox_id.is_none_or(|id| s.id() == id));
            Ok(wanted.flat_map(|sandbox| sandbox.statuses()).collect())
        })
    }

    fn update_sandbox_resources<'a>(&'a self, sandbox_id: &'a str, resources: Resources) -> Reply<'a, ()> {
        Box::pin(async move {
            let Some(parent) = self.sandbox(sandbox_id)?.record.parent_cgroup() else { return Ok(()) };
            blocking("update resources", sandbox_id, move || limit(&parent, &resources, false)).await
        })
    }

    fn update_resources<'a>(&'a self, container_id: &'a str, resources: Resources) -> Reply<'a, ()> {
        Box::pin(async move {
            let (sandbox, _) = self.locate(container_id)?;
            let cgroup = sandbox.cgroup(container_id)?;
            let apply = move || cgroup.apply(&resources).map_err(io::Error::other);
            blocking("update resources", container_id, apply).await
        })
    }

    fn container_stats<'a>(&'a self, container_id: &'a str) -> Reply<'a, ContainerStats> {
        Box::pin(async move {
            let (sandbox, _) = self.locate(container_id)?;
            let cgroup = sandbox.cgroup(container_id)?;
            blocking("measure", container_id, move || cgroup.stats().map_err(io::Error::other)).await
        })
    }

    fn reopen_log<'a>(&'a self, container_id: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            let (sandbox, _) = self.locate(container_id)?;
            sandbox.ask(Request::ReopenLog { id: container_id.into() }).await.map(|_| ())
        })
    }

    fn exec_sync<'a>(
        &'a self,
        container_id: &'a str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Reply<'a, ExecResult> {
        Box::pin(self.execute_to_end(container_id, command, timeout))
    }

    fn exec<'a>(&'a self, container_id: &'a str, request: ExecRequest) -> Reply<'a, ExecSession> {
        Box::pin(self.execute(container_id, request))
    }

    fn attach<'a>(&'a self, container_id: &'a str) -> Reply<'a, ExecSession> {
        Box::pin(self.attach_to(container_id))
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}
