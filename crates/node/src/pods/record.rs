//! What a worker knows of its pod. Plain data: the planner and the status builder read it, only the worker writes.

use std::collections::BTreeSet;
use std::time::Duration;

use base::backoff::Backoff;
use container::runtime::{ContainerState, ContainerStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::resources::is_sidecar;

pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);
pub const GRACE_SECONDS_DEFAULT: i64 = 30;
/// Why a run is over of which nobody saw the end.
pub const UNSEEN_REASON: &str = "ContainerStatusUnknown";
/// A run this long makes earlier crashes forgotten.
pub const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// Labels and annotations of runtime containers, by which they are found again after a restart of the agent.
pub mod keys {
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub const HASH: &str = "io.kubernetes.container.hash";
    pub const MESSAGE_FILE: &str = "kedge.dev/termination-message-file";
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub const IMAGE_NAME: &str = "kedge.dev/image-name";
    pub const POD_IP: &str = "kedge.dev/pod-ip";
    pub const CLUSTER: &str = "kedge.dev/cluster";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Init,
    Sidecar,
    App,
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// One run of a container, as the runtime last told it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    pub id: String,
    pub sandbox_id: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub started_at_ns: i64,
    pub finished_at_ns: i64,
    pub exit_code: i32,
    pub reason: String,
    /// The termination message, once exited.
    pub message: String,
    pub image: String,
    pub image_id: String,
    /// Of the spec it was made from.
    pub hash: String,
}

impl RunRecord {
    pub fn from_status(status: &ContainerStatus, message: String) -> Self {
        let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
        // A runtime that does not know how it ended has its own word for that.
        let unseen = status.reason == container::runtime::reason::UNKNOWN;
        Self {
            id: status.id.clone(),
            sandbox_id: status.sandbox_id.clone(),
            attempt: status.attempt,
            state: status.state,
            started_at_ns: status.started_at_ns,
            finished_at_ns: status.finished_at_ns,
            exit_code: status.exit_code,
            reason: if unseen { UNSEEN_REASON.into() } else { status.reason.clone() },
            message,
            image: annotation(keys::IMAGE_NAME),
            image_id: status.image.id.clone(),
            hash: annotation(keys::HASH),
        }
    }

    /// It ran, and now there is no trace of it. Told in the kubelet's own words, which people search for.
    pub fn vanish(&mut self) {
        self.state = ContainerState::Unknown;
        self.exit_code = 137;
        self.reason = UNSEEN_REASON.into();
        self.message = "The container could not be located when the pod was deleted.  \
                        The container used to be Running"
            .into();
    }

    pub fn is_running(&self) -> bool {
        self.state == ContainerState::Running
    }

    pub fn is_unstarted(&self) -> bool {
        self.state == ContainerState::Created
    }

    /// Unknown counts as exited: the process that knew is gone, and so are its children.
    pub fn is_over(&self) -> bool {
        matches!(self.state, ContainerState::Exited | ContainerState::Unknown)
    }

    pub fn ran_for(&self) -> Duration {
        let nanos = self.finished_at_ns.saturating_sub(self.started_at_ns);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// Why a container waits, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

impl Waiting {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// What is being done to a container at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Starting,
    /// SIGKILL follows at this time.
    Stopping {
        by: Timestamp,
    },
}

#[derive(Clone, Debug)]
pub struct ContainerRecord {
    pub name: String,
    pub kind: Kind,
    /// Of the present spec.
    pub hash: String,
    pub current: Option<RunRecord>,
    pub previous: Option<RunRecord>,
    pub waiting: Option<Waiting>,
    pub operation: Option<Operation>,
    /// Its postStart hook and startup probe are done.
    pub started: bool,
    pub ready: bool,
    /// Why it has to be killed and started again.
    pub unhealthy: Option<String>,
    pub crashes: Backoff,
    pub image_failures: Backoff,
    pub not_before: Option<Timestamp>,
    /// The attempt whose start has failed: that its run is over by now is no second failure.
    pub failed_start: Option<u32>,
    /// The image that will be or is used, when known before a run exists.
    pub image: Option<(String, String)>,
}

impl ContainerRecord {
    pub fn new(name: &str, kind: Kind, hash: String) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            hash,
            current: None,
            previous: None,
            waiting: None,
            operation: None,
            started: false,
            ready: false,
            unhealthy: None,
            crashes: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
            image_failures: Backoff::new(BACKOFF_FIRST, BACKOFF_MAX),
            not_before: None,
            failed_start: None,
            image: None,
        }
    }

    pub fn is_running(&self) -> bool {
        self.current.as_ref().is_some_and(RunRecord::is_running)
    }

    pub fn exit_code(&self) -> Option<i32> {
        self.current.as_ref().filter(|run| run.is_over()).map(|run| run.exit_code)
    }

    /// The run whose end is shown as the last one: the newest, while another is waited for.
    pub fn last_run(&self) -> Option<&RunRecord> {
        let newest = self.current.as_ref().filter(|run| run.is_over() && self.waiting.is_some());
        newest.or(self.previous.as_ref()).filter(|run| run.is_over())
    }

    /// The run before, out of the record, when the next start makes it one too many.
    pub fn take_obsolete(&mut self) -> Option<RunRecord> {
        let is_taken_up = self.current.as_ref().is_some_and(RunRecord::is_unstarted);
        if is_taken_up { None } else { self.previous.take() }
    }

    /// A run that was made but never started is taken up again.
    pub fn next_attempt(&self) -> u32 {
        self.current.as_ref().map_or(0, |run| if run.is_unstarted() { run.attempt } else { run.attempt + 1 })
    }

    /// Whether a container of another spec than now is in use.
    pub fn is_outdated(&self) -> bool {
        self.kind != Kind::Ephemeral && self.current.as_ref().is_some_and(|run| run.hash != self.hash)
    }
}

/// The containers a spec lists, in the order they are started.
pub fn containers_of(pod: &Pod) -> Vec<(String, Kind, String)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| (c.name.clone(), if is_sidecar(c) { Kind::Sidecar } else { Kind::Init }, hash_of(c)));
    let apps = spec.containers.iter().map(|c| (c.name.clone(), Kind::App, hash_of(c)));
    let ephemeral =
        spec.ephemeral_containers.iter().flatten().map(|c| (c.name.clone(), Kind::Ephemeral, String::new()));
    init.chain(apps).chain(ephemeral).collect()
}

/// What makes a container another container. Of all its fields only the image can change in place and means a new
/// container; resources can change too but are applied to the living one.
pub fn hash_of(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:08x}", base::id::fnv1a_32(format!("{}\0{image}", container.name).as_bytes()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxPhase {
    Absent,
    /// Being made.
    Making,
    Ready,
    /// Stopped on purpose, because the pod has come to its end.
    Stopped,
    /// It was ready and is no longer.
    Lost,
}

/// Why everything in the pod has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// SIGKILL follows at this time.
    pub by: Timestamp,
    /// The API object is (being) deleted: the pod is removed altogether. Otherwise it stays, failed.
    pub removal: bool,
    pub reason: Option<String>,
    pub message: Option<String>,
}

#[derive(Clone, Debug)]
pub struct PodRecord {
    pub restart: Restart,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: i64,
    pub sandbox: SandboxPhase,
    pub sandbox_attempt: u32,
    /// As shown; it stays when the pod is over.
    pub pod_ip: Option<std::net::Ipv4Addr>,
    /// Whether `pod_ip` is still taken from the node's range for this pod.
    pub holds_address: bool,
    pub set_up_not_before: Option<Timestamp>,
    pub set_up_failures: Backoff,
    pub started_at: Timestamp,
    /// `activeDeadlineSeconds` after the start.
    pub deadline: Option<Timestamp>,
    pub ending: Option<Ending>,
    /// Being torn down, or torn down already.
    pub teardown: Teardown,
    pub containers: Vec<ContainerRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Teardown {
    No,
    Doing,
    /// Nothing is left on the node.
    Done,
    /// The API has been told to forget the pod.
    Finishing,
    Finished,
}

impl PodRecord {
    pub fn new(pod: &Pod, now: Timestamp) -> Self {
        let started_at = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |time| time.0);
        let mut record = Self {
            restart: Restart::of(pod),
            grace_seconds: GRACE_SECONDS_DEFAULT,
            sandbox: SandboxPhase::Absent,
            sandbox_attempt: 0,
            pod_ip: None,
            holds_address: false,
            set_up_not_before: None,
            set_up_failures: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            started_at,
            deadline: None,
            ending: None,
            teardown: Teardown::No,
            containers: Vec::new(),
        };
        record.follow_spec(pod);
        record
    }

    /// Takes over what can change in a spec: images, ephemeral containers, the deadline.
    pub fn follow_spec(&mut self, pod: &Pod) {
        let spec = pod.spec.as_ref();
        self.grace_seconds =
            spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(GRACE_SECONDS_DEFAULT);
        let seconds = spec.and_then(|spec| spec.active_deadline_seconds);
        self.deadline = seconds.map(|seconds| later(self.started_at, seconds));
        for (name, kind, hash) in containers_of(pod) {
            match self.containers.iter_mut().find(|c| c.name == name) {
                Some(container) => container.hash = hash,
                None => self.containers.push(ContainerRecord::new(&name, kind, hash)),
            }
        }
    }

    pub fn container_mut(&mut self, name: &str) -> Option<&mut ContainerRecord> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    pub fn of_kind(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &ContainerRecord> {
        self.containers.iter().filter(move |c| c.kind == kind)
    }

    /// All init containers are over and all sidecars up; once an app container exists this stays true. In a new sandbox all of
    /// it begins again: what was made ready in the one before may have gone with it.
    pub fn is_initialized(&self) -> bool {
        self.of_kind(Kind::App).any(|c| c.current.as_ref().is_some_and(|run| self.is_of_sandbox(run)))
            || (self.of_kind(Kind::Init).all(|c| self.is_completed(c))
                && self.of_kind(Kind::Sidecar).all(|c| c.started))
    }

    /// Whether an init container has done its work in the sandbox that there is.
    pub fn is_completed(&self, container: &ContainerRecord) -> bool {
        let run = container.current.as_ref().filter(|run| self.is_of_sandbox(run));
        run.is_some() && container.exit_code() == Some(0)
    }

    fn is_of_sandbox(&self, run: &RunRecord) -> bool {
        let attempt = run.sandbox_id.rsplit_once('-').map(|(_, attempt)| attempt.parse());
        attempt.is_none_or(|attempt| attempt == Ok(self.sandbox_attempt))
    }

    /// Whether an ended container will be started again (while the pod goes on).
    pub fn will_restart(&self, container: &ContainerRecord) -> bool {
        let Some(code) = container.exit_code() else { return false };
        match container.kind {
            Kind::Sidecar => true,
            Kind::Ephemeral => false,
            // What it did may have gone with the sandbox it did it in.
            Kind::Init if code == 0 => !self.is_completed(container),
            Kind::Init => self.restart != Restart::Never,
            Kind::App => match self.restart {
                Restart::Always => true,
                Restart::OnFailure => code != 0,
                Restart::Never => false,
            },
        }
    }

    /// Nothing will run any more, by the restart policy alone.
    pub fn is_done(&self) -> bool {
        let failed_init = self
            .of_kind(Kind::Init)
            .any(|c| c.exit_code().is_some_and(|code| code != 0) && !self.will_restart(c));
        let apps_over = self.of_kind(Kind::App).all(|c| c.exit_code().is_some() && !self.will_restart(c));
        failed_init || (self.is_initialized() && apps_over)
    }

    /// The ids of all runs that are remembered.
    pub fn runs(&self) -> BTreeSet<String> {
        let runs = self.containers.iter().flat_map(|c| [&c.current, &c.previous]);
        runs.flatten().map(|run| run.id.clone()).collect()
    }

    pub fn anything_running(&self) -> bool {
        self.containers.iter().any(|c| c.is_running() || c.operation.is_some())
    }
}

pub fn later(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

pub fn after(time: Timestamp, delay: Duration) -> Timestamp {
    let delay = jiff::SignedDuration::try_from(delay).unwrap_or(jiff::SignedDuration::MAX);
    time.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Nanoseconds since the epoch as a time; zero (not yet) is `None`.
pub fn time_of(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}
