//! One sandbox as the agent sees it: the last word of its shim on every container, and the subscription that keeps it so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::connection::Connection;
use super::state;
use crate::cgroup::Cgroup;
use crate::clock::now_ns;
use crate::protocol::{Reply, Request, SandboxRecord};
use crate::runtime::{
    ContainerEvent, ContainerEventKind, ContainerState, ContainerStatus, Result, RuntimeError, SandboxState,
    SandboxStatus, reason,
};

/// What a shim may take to answer anything but the start of a container.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Sandbox {
    pub directory: PathBuf,
    pub record: SandboxRecord,
    alive: AtomicBool,
    statuses: Mutex<BTreeMap<String, ContainerStatus>>,
    changed: watch::Sender<()>,
    /// The shim is gone and all that follows from it is recorded.
    over: watch::Sender<bool>,
    events: broadcast::Sender<ContainerEvent>,
    /// Creating, removing and stopping go one at a time.
    pub operations: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub fn new(directory: PathBuf, record: SandboxRecord, events: broadcast::Sender<ContainerEvent>) -> Self {
        Self {
            directory,
            record,
            alive: AtomicBool::new(false),
            statuses: Mutex::default(),
            changed: watch::Sender::new(()),
            over: watch::Sender::new(false),
            events,
            operations: tokio::sync::Mutex::new(()),
        }
    }

    pub fn id(&self) -> &str {
        &self.record.config.id
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    pub fn status(&self) -> SandboxStatus {
        let state = if self.is_alive() { SandboxState::Ready } else { SandboxState::NotReady };
        SandboxStatus { state, created_at_ns: self.record.created_at_ns, config: self.record.config.clone() }
    }

    pub fn container_dir(&self, id: &str) -> PathBuf {
        state::container_dir(&self.directory, id)
    }

    pub fn cgroup(&self, id: &str) -> Result<Cgroup> {
        Cgroup::detect(&self.record.container_cgroup(id))
            .map_err(|error| RuntimeError::io("cgroup", id, error))
    }

    pub fn statuses(&self) -> Vec<ContainerStatus> {
        self.statuses.lock().values().cloned().collect()
    }

    pub fn container(&self, id: &str) -> Option<ContainerStatus> {
        self.statuses.lock().get(id).cloned()
    }

    /// What the files say, before any shim is asked.
    pub fn load_files(&self) -> io::Result<()> {
        for directory in state::container_dirs(&self.directory)? {
            let status = state::last_status(&self.record.config, &directory);
            self.statuses.lock().insert(status.id.clone(), status);
        }
        Ok(())
    }

    /// How many containers have not ended, as far as is known.
    pub fn unended(&self) -> usize {
        self.statuses.lock().values().filter(|status| status.state != ContainerState::Exited).count()
    }

    /// Connects to the shim and takes its word for every container. Returns the connection to [`Sandbox::follow`].
    pub async fn subscribe(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(&self.directory).await?;
        connection.send(&Request::Subscribe).await?;
        let Some(Reply::Statuses { statuses }) = connection.receive().await? else {
            return Err(io::Error::other("the shim did not answer the subscription"));
        };
        self.alive.store(true, Ordering::Release);
        statuses.into_iter().for_each(|status| self.update(status));
        Ok(connection)
    }

    /// Takes in what the shim says until it is gone, and then what that means.
    pub async fn follow(&self, mut connection: Connection) {
        loop {
            match connection.receive().await {
                Ok(Some(Reply::Status { status })) => self.update(*status),
                Ok(Some(Reply::Removed { id })) => self.forget(&id),
                Ok(Some(other)) => tracing::warn!(sandbox = self.id(), ?other, "unexpected word of a shim"),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(sandbox = self.id(), %error, "connection to shim lost");
                    break;
                }
            }
        }
        self.bury().await;
    }

    /// The shim is gone. Whatever it held cannot be supervised any more, so none of it may live on.
    pub async fn bury(&self) {
        self.alive.store(false, Ordering::Release);
        for last in self.statuses().into_iter().filter(|status| status.state != ContainerState::Exited) {
            let directory = self.container_dir(&last.id);
            let status = match state::read_status(&directory) {
                Ok(status) if status.state == ContainerState::Exited => status,
                _ => self.end_orphan(last, &directory).await,
            };
            self.update(status);
        }
        self.changed.send_replace(());
        self.over.send_replace(true);
    }

    /// Waits until the follower has taken in the last word of the shim. `false`: `patience` ran out.
    pub async fn wait_until_over(&self, patience: Duration) -> bool {
        let mut over = self.over.subscribe();
        tokio::time::timeout(patience, over.wait_for(|over| *over)).await.is_ok()
    }

    async fn end_orphan(&self, status: ContainerStatus, directory: &Path) -> ContainerStatus {
        if let Ok(cgroup) = self.cgroup(&status.id) {
            let killed = tokio::task::spawn_blocking(move || cgroup.kill_all(Duration::from_secs(10))).await;
            match killed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(container = status.id, %error, "orphaned processes are left")
                }
                Err(error) => tracing::error!(container = status.id, %error, "orphaned processes are left"),
            }
        }
        let status = state::killed(status, reason::UNKNOWN, "the process that held the container is gone");
        if let Err(error) = state::write_status(directory, &status) {
            tracing::warn!(container = status.id, %error, "cannot keep the end of a container");
        }
        status
    }

    fn update(&self, status: ContainerStatus) {
        let before =
            self.statuses.lock().insert(status.id.clone(), status.clone()).map(|before| before.state);
        for (kind, at_ns) in transitions(before, &status) {
            self.emit(&status.id, kind, at_ns);
        }
        self.changed.send_replace(());
    }

    pub fn forget(&self, id: &str) {
        if self.statuses.lock().remove(id).is_some() {
            self.emit(id, ContainerEventKind::Removed, now_ns());
            self.changed.send_replace(());
        }
    }

    fn emit(&self, id: &str, kind: ContainerEventKind, at_ns: i64) {
        let event =
            ContainerEvent { sandbox_id: self.id().to_owned(), container_id: id.to_owned(), at_ns, kind };
        // Nobody listening is no failure.
        self.events.send(event).ok();
    }

    /// Waits until the container has ended (or is not known any more). `None`: `patience` ran out.
    pub async fn wait_for_exit(&self, id: &str, patience: Duration) -> Option<ContainerStatus> {
        let ended = self.wait_until(id, |status| status.state == ContainerState::Exited, patience).await;
        let gone = || ContainerStatus { id: id.to_owned(), ..ContainerStatus::default() };
        ended.then(|| self.container(id).unwrap_or_else(gone))
    }

    /// Waits until the container is as expected. A container that is not known is awaited only if none has been seen yet.
    pub async fn wait_until(
        &self,
        id: &str,
        expected: impl Fn(&ContainerStatus) -> bool,
        patience: Duration,
    ) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            let mut known = false;
            loop {
                match self.container(id) {
                    Some(status) if expected(&status) => return,
                    Some(_) => known = true,
                    None if known => return,
                    None => {}
                }
                if changed.changed().await.is_err() {
                    // We hold the sender ourselves.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    fn unreachable(&self, message: impl ToString) -> RuntimeError {
        RuntimeError::Unreachable { sandbox_id: self.id().to_owned(), message: message.to_string() }
    }

    /// Asks the shim and returns its answer with the connection it came on.
    pub async fn ask(&self, request: Request) -> Result<(Connection, Reply)> {
        if !self.is_alive() {
            return Err(self.unreachable("it has ended"));
        }
        let exchange = async {
            let mut connection = Connection::open(&self.directory).await?;
            connection.send(&request).await?;
            let reply =
                connection.receive().await?.ok_or_else(|| io::Error::other("it closed the connection"))?;
            Ok::<_, io::Error>((connection, reply))
        };
        let result = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        match result.map_err(|_| self.unreachable("no answer"))?.map_err(|error| self.unreachable(error))? {
            (_, Reply::Failed { error }) => Err(error),
            answer => Ok(answer),
        }
    }
}

/// What an observer has to be told when a status takes the place of an earlier one.
fn transitions(before: Option<ContainerState>, now: &ContainerStatus) -> Vec<(ContainerEventKind, i64)> {
    let rank = |state: ContainerState| match state {
        ContainerState::Unknown => 0,
        ContainerState::Created => 1,
        ContainerState::Running => 2,
        ContainerState::Exited => 3,
    };
    let (from, to) = (before.map_or(0, rank), rank(now.state));
    let exited = ContainerEventKind::Exited { exit_code: now.exit_code, reason: now.reason.clone() };
    let all = [
        (1, ContainerEventKind::Created, now.created_at_ns),
        (2, ContainerEventKind::Started, now.started_at_ns),
        (3, exited, now.finished_at_ns),
    ];
    // A container that ended without ever having run was not started.
    let happened = |at: &i64| *at != 0;
    all.into_iter()
        .filter(|(r, _, at)| (from + 1..=to).contains(r) && happened(at))
        .map(|(_, k, at)| (k, at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_follow_from_what_changed() {
        let check = |before, state, started_at_ns, expect: &[&str]| {
            let now = ContainerStatus {
                state,
                created_at_ns: 1,
                started_at_ns,
                finished_at_ns: 3,
                ..ContainerStatus::default()
            };
            let names: Vec<String> =
                transitions(before, &now).iter().map(|(kind, _)| format!("{kind:?}")).collect();
            let names: Vec<&str> = names.iter().map(|name| name.split(' ').next().unwrap()).collect();
            assert_eq!(names, expect);
        };
        check(None, ContainerState::Created, 0, &["Created"]);
        check(Some(ContainerState::Created), ContainerState::Running, 2, &["Started"]);
        check(Some(ContainerState::Created), ContainerState::Exited, 2, &["Started", "Exited"]);
        check(Some(ContainerState::Created), ContainerState::Exited, 0, &["Exited"]);
        check(Some(ContainerState::Exited), ContainerState::Exited, 2, &[]);
    }
}
