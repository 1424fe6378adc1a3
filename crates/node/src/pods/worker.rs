//! One task a pod: it hears of changes, plans, begins what the plan says, and tells the API. Everything slow happens in
//! tasks of its own whose outcomes come back as events; so the worker itself never waits for anything but news.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::context::{Context, PodKey, uses_host_network};
use super::kill::kill;
use super::plan::{Action, Plan, plan};
use super::record::{Kind, Operation, PodRecord, SandboxPhase, Teardown, later};
use super::setup::{SetupError, Surroundings, prepare_volumes, sandbox_id, set_up};
use super::start::{StartFailure, StartOrder, Used, start};
use super::superseded::remove_superseded;
use super::teardown::{TeardownError, stop_sandbox, tear_down};
use crate::cluster::{ObjectWatch, StatusError, finish_pod, write_status};
use crate::objects::watched;
use crate::probes::{ProbeKind, ProbeReport, ProbeTarget};
use crate::resources::find_container;
use crate::volumes::{Prepared, TokenCache, any_followed};

/// Probes wait when the worker is behind by this many reports.
const REPORTS_MAX: usize = 64;
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// What the manager tells a worker: the newest object, or that it is gone.
#[derive(Clone, Debug)]
pub struct PodSource {
    pub pod: Arc<Pod>,
    pub gone: bool,
}

pub(super) enum Outcome {
    SetUp(Result<Surroundings, SetupError>),
    Started { name: String, attempt: u32, used: Option<Used>, result: Result<(), StartFailure> },
    Killed { name: String },
    SandboxStopped(Result<(), TeardownError>),
    TornDown(Result<(), TeardownError>),
    Finished(Result<(), StatusError>),
    StatusWritten { status: Box<PodStatus>, result: Result<(), StatusError> },
    VolumesRefreshed(Result<BTreeMap<String, Prepared>, SetupError>),
}

pub struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) key: PodKey,
    pub(super) pod: Arc<Pod>,
    pub(super) gone: bool,
    /// The pod was over before this agent knew it: only its removal is left to do.
    pub(super) settled: bool,
    pub(super) record: PodRecord,
    pub(super) volumes: BTreeMap<String, Prepared>,
    pub(super) tokens: Arc<TokenCache>,
    pub(super) tasks: JoinSet<Outcome>,
    pub(super) probes: BTreeMap<(String, ProbeKind), JoinHandle<()>>,
    pub(super) reports: mpsc::Sender<ProbeReport>,
    reports_in: mpsc::Receiver<ProbeReport>,
    source: watch::Receiver<PodSource>,
    runtime_changes: watch::Receiver<u64>,
    watch: Option<ObjectWatch>,
    pub(super) told: Option<PodStatus>,
    pub(super) telling: bool,
    pub(super) tell_not_before: Option<Timestamp>,
    pub(super) retry_not_before: Option<Timestamp>,
    pub(super) refreshing: bool,
    pub(super) stale_volumes: bool,
    /// Whether `volumes` is what the pod has; not yet after a restart of the agent.
    pub(super) knows_volumes: bool,
    /// The runtime may know more than the record.
    pub(super) stale_runtime: bool,
    /// How often each container has ended since it last held out.
    pub(super) crashes: BTreeMap<String, u32>,
}

impl Worker {
    pub fn new(
        context: Arc<Context>,
        source: watch::Receiver<PodSource>,
        runtime_changes: watch::Receiver<u64>,
        record: PodRecord,
        settled: bool,
    ) -> Self {
        let PodSource { pod, gone } = source.borrow().clone();
        let (reports, reports_in) = mpsc::channel(REPORTS_MAX);
        let told = pod.status.clone().filter(|status| status.start_time.is_some());
        let names = watched(&pod);
        let watch = (!names.is_empty() && !settled)
            .then(|| context.watches.watch(pod.metadata.namespace.as_deref().unwrap_or_default(), names));
        Self {
            key: PodKey::of(&pod),
            context,
            pod,
            gone,
            settled,
            record,
            volumes: BTreeMap::new(),
            tokens: Arc::default(),
            tasks: JoinSet::new(),
            probes: BTreeMap::new(),
            reports,
            reports_in,
            source,
            runtime_changes,
            watch,
            told,
            telling: false,
            tell_not_before: None,
            retry_not_before: None,
            refreshing: false,
            stale_volumes: true,
            knows_volumes: false,
            stale_runtime: true,
            crashes: BTreeMap::new(),
        }
    }

    /// Runs until nothing of the pod is left, here and in the API.
    pub async fn run(mut self) {
        self.follow_source();
        loop {
            if std::mem::take(&mut self.stale_runtime) {
                self.refresh().await;
            }
            let plan = self.advance();
            if self.record.teardown == Teardown::Finished {
                break;
            }
            self.sync_probes();
            self.publish();
            self.tell();
            self.refresh_volumes();
            self.wait(&plan).await;
        }
        self.stop_probes();
        self.context.directory.remove(&self.key.namespace, &self.key.name, &self.key.uid);
    }

    /// Plans and begins until the plan has nothing more to begin.
    fn advance(&mut self) -> Plan {
        loop {
            let now = Timestamp::now();
            let plan = if self.retry_not_before.is_some_and(|time| time > now) {
                Plan { actions: Vec::new(), wake_at: self.retry_not_before }
            } else {
                plan(&self.record, now)
            };
            if self.settled && self.record.ending.is_none() {
                return Plan::default();
            }
            if plan.actions.is_empty() {
                return plan;
            }
            for action in plan.actions {
                self.begin(action);
            }
        }
    }

    async fn wait(&mut self, plan: &Plan) {
        let now = Timestamp::now();
        let refresh = self.tokens.next_refresh().filter(|_| !self.volumes.is_empty());
        let wakes = [plan.wake_at, self.tell_not_before, refresh];
        let wake = wakes.into_iter().flatten().min();
        let delay = wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
        let timer = async {
            match delay {
                // A hair later than planned, so that the time has come when it is looked at again.
                Some(delay) => tokio::time::sleep(delay + Duration::from_millis(5)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.source.changed() => {
                if changed.is_ok() {
                    self.follow_source();
                } else {
                    // The manager is gone: the agent is going down and leaves the pod as it is.
                    std::future::pending::<()>().await;
                }
            }
            Ok(()) = self.runtime_changes.changed() => self.stale_runtime = true,
            Some(report) = self.reports_in.recv() => self.take_report(report),
            Some(outcome) = self.tasks.join_next(), if !self.tasks.is_empty() => match outcome {
                Ok(outcome) => self.take_outcome(outcome),
                Err(error) => {
                    tracing::error!(%error, pod = %self.key.name, "a pod's task broke");
                    self.forget_operations();
                }
            },
            () = async { match &mut self.watch { Some(watch) => watch.changed().await, None => std::future::pending().await } } => {
                self.stale_volumes = true;
                self.retry_waiting_for_objects();
            }
            () = timer => {
                let now = Timestamp::now();
                self.tell_not_before = self.tell_not_before.filter(|time| *time > now);
                self.retry_not_before = self.retry_not_before.filter(|time| *time > now);
                self.stale_volumes |= self.tokens.next_refresh().is_some_and(|time| time <= now);
            }
        }
    }

    /// Takes over a new version of the object.
    fn follow_source(&mut self) {
        let PodSource { pod, gone } = self.source.borrow_and_update().clone();
        self.follow_resources(&pod);
        let metadata_changed = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        self.stale_volumes |= metadata_changed && any_followed(&pod);
        self.pod = pod;
        self.gone |= gone;
        self.record.follow_spec(&self.pod);
        let meta = &self.pod.metadata;
        if meta.deletion_timestamp.is_none() && !self.gone {
            return;
        }
        let now = Timestamp::now();
        let grace = meta.deletion_grace_period_seconds.unwrap_or(self.record.grace_seconds).max(1);
        let by = match &meta.deletion_timestamp {
            Some(time) if !self.gone => time.0.max(later(now, 1)),
            _ => later(now, grace),
        };
        let ending = self.record.ending.get_or_insert(super::record::Ending {
            by,
            removal: true,
            reason: None,
            message: None,
        });
        ending.removal = true;
        ending.by = ending.by.min(by);
    }

    fn begin(&mut self, action: Action) {
        let context = self.context.clone();
        let (pod, key) = (self.pod.clone(), self.key.clone());
        match action {
            Action::SetUp => self.begin_set_up(),
            Action::Start { name } => self.begin_start(&name),
            Action::Kill { name, by, why } => self.begin_kill(&name, by, why),
            Action::Expire => {
                let message = "Pod was active on the node longer than the specified deadline";
                self.record.ending = Some(super::record::Ending {
                    by: later(Timestamp::now(), self.record.grace_seconds),
                    removal: false,
                    reason: Some("DeadlineExceeded".into()),
                    message: Some(message.into()),
                });
                self.context.events.pod_event(&self.pod, "Normal", "DeadlineExceeded", message);
            }
            Action::StopSandbox => {
                self.record.sandbox = SandboxPhase::Stopped;
                let id = sandbox_id(&key.uid, self.record.sandbox_attempt);
                self.tasks
                    .spawn(async move { Outcome::SandboxStopped(stop_sandbox(&context, &key, &id).await) });
            }
            Action::TearDown => {
                self.record.teardown = Teardown::Doing;
                self.tasks.spawn(async move { Outcome::TornDown(tear_down(&context, &key).await) });
            }
            Action::Finish => {
                self.record.teardown = Teardown::Finishing;
                let last = (!self.settled).then(|| self.build_status());
                let gone = self.gone;
                self.tasks.spawn(async move {
                    if gone {
                        return Outcome::Finished(Ok(()));
                    }
                    Outcome::Finished(finish_pod(&context.client, &pod, last.as_ref()).await)
                });
            }
        }
    }

    fn begin_set_up(&mut self) {
        if self.record.sandbox == SandboxPhase::Lost {
            self.record.sandbox_attempt += 1;
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events.pod_event(&self.pod, "Normal", "SandboxChanged", message);
        }
        self.record.sandbox = SandboxPhase::Making;
        let (context, pod, tokens) = (self.context.clone(), self.pod.clone(), self.tokens.clone());
        let (attempt, ip) =
            (self.record.sandbox_attempt, self.record.pod_ip.filter(|_| self.record.holds_address));
        let (key, keep) = (self.key.clone(), self.record.runs());
        self.tasks.spawn(async move {
            let made = set_up(&context, &pod, &tokens, attempt, ip).await;
            if made.is_ok() && attempt > 0 {
                remove_superseded(&context, &key, &sandbox_id(&key.uid, attempt), &keep).await;
            }
            Outcome::SetUp(made)
        });
    }

    fn begin_start(&mut self, name: &str) {
        let found = self.pod.spec.as_ref().and_then(|spec| find_container(spec, name));
        let (Some(container), Some(pod_ip)) = (found, self.record.pod_ip) else { return };
        let target = self.target_of(name);
        let knows_volumes = self.knows_volumes;
        let Some(record) = self.record.container_mut(name) else { return };
        if !knows_volumes {
            // They are being looked at; the outcome clears this.
            record.not_before = Some(Timestamp::MAX);
            return;
        }
        record.operation = Some(Operation::Starting);
        let attempt = record.next_attempt();
        let obsolete = record.take_obsolete();
        let order = StartOrder {
            pod: self.pod.clone(),
            container,
            attempt,
            sandbox_id: sandbox_id(&self.key.uid, self.record.sandbox_attempt),
            volumes: self.volumes.clone(),
            pod_ip,
            target,
            obsolete,
            keep: self.record.runs(),
        };
        let (context, name) = (self.context.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let (used, result) = start(&context, &order).await;
            Outcome::Started { name, attempt, used, result }
        });
    }

    /// The running container an ephemeral one aims at.
    fn target_of(&self, name: &str) -> Option<String> {
        let spec = self.pod.spec.as_ref()?;
        let ephemeral = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
        let target = ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())?;
        let record = self.record.containers.iter().find(|c| c.name == target)?;
        record.current.as_ref().map(|run| run.id.clone())
    }

    fn begin_kill(&mut self, name: &str, by: Timestamp, why: Option<String>) {
        let found = self.pod.spec.as_ref().and_then(|spec| find_container(spec, name));
        let ip = self.record.pod_ip.map(std::net::IpAddr::V4);
        let Some(record) = self.record.container_mut(name) else { return };
        let Some(id) = record.current.as_ref().map(|run| run.id.clone()) else { return };
        // A repeated order only shortens the time; the event and the hook belong to the first.
        let first = record.operation.is_none();
        record.operation = Some(Operation::Stopping { by });
        let message = why.unwrap_or_else(|| format!("Stopping container {name}"));
        if first {
            self.context.events.container_event(&self.pod, name, "Normal", "Killing", &message);
        }
        let (context, pod, name) = (self.context.clone(), self.pod.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let container = found.filter(|_| first);
            if let Err(error) = kill(&context, &pod, container.as_ref(), &id, ip, by).await {
                tracing::warn!(%error, container = %name, "stop a container");
            }
            Outcome::Killed { name }
        });
    }

    /// Starts the probes that should run and stops those that should not.
    fn sync_probes(&mut self) {
        let mut wanted: BTreeSet<(String, ProbeKind)> = BTreeSet::new();
        let Some(spec) = self.pod.spec.clone() else { return };
        let ending = self.record.ending.is_some();
        for record in &self.record.containers {
            let Some(run) = record.current.as_ref().filter(|run| run.is_running()) else { continue };
            if record.operation == Some(Operation::Starting) || record.kind == Kind::Init {
                continue;
            }
            let Some(container) = find_container(&spec, &record.name) else { continue };
            let kinds = [
                (ProbeKind::Startup, &container.startup_probe, !record.started && !ending),
                (ProbeKind::Liveness, &container.liveness_probe, record.started && !ending),
                (ProbeKind::Readiness, &container.readiness_probe, record.started),
            ];
            for (kind, probe, due) in kinds {
                let stopping = record.operation.is_some() && kind != ProbeKind::Readiness;
                let (Some(probe), true, false) = (probe, due, stopping) else { continue };
                let key = (run.id.clone(), kind);
                if !self.probes.contains_key(&key)
                    && let Some(ip) = self.record.pod_ip
                {
                    let target = ProbeTarget {
                        runtime: self.context.runtime.clone(),
                        node: self.context.config.namespace.clone(),
                        container_id: run.id.clone(),
                        container: container.clone(),
                        pod_ip: ip.into(),
                    };
                    let task = crate::probes::spawn(target, kind, probe.clone(), self.reports.clone());
                    self.probes.insert(key.clone(), task);
                }
                wanted.insert(key);
            }
        }
        self.probes.retain(|key, task| {
            let keep = wanted.contains(key);
            if !keep {
                task.abort();
            }
            keep
        });
    }

    fn stop_probes(&mut self) {
        self.probes.values().for_each(JoinHandle::abort);
        self.probes.clear();
    }

    /// Tells the API what has changed, one write at a time.
    fn tell(&mut self) {
        let now = Timestamp::now();
        let waiting = self.tell_not_before.is_some_and(|time| time > now);
        if self.telling || waiting || self.settled || self.gone || self.record.teardown >= Teardown::Finishing
        {
            return;
        }
        let status = self.build_status();
        if self.told.as_ref() == Some(&status) {
            return;
        }
        self.telling = true;
        let (client, pod) = (self.context.client.clone(), self.pod.clone());
        self.tasks.spawn(async move {
            let result = write_status(&client, &pod, &status).await;
            Outcome::StatusWritten { status: Box::new(status), result }
        });
    }

    /// Brings volumes up to date whose source changed.
    fn refresh_volumes(&mut self) {
        let pausing = self.retry_not_before.is_some();
        let due =
            self.stale_volumes && !self.refreshing && !pausing && self.record.sandbox == SandboxPhase::Ready;
        let Some(ip) = self.record.pod_ip.filter(|_| due && self.record.ending.is_none()) else { return };
        (self.stale_volumes, self.refreshing) = (false, true);
        let (context, pod, tokens) = (self.context.clone(), self.pod.clone(), self.tokens.clone());
        self.tasks.spawn(async move {
            Outcome::VolumesRefreshed(prepare_volumes(&context, &pod, &tokens, ip).await)
        });
    }

    pub(super) fn network(&self) -> Option<net::namespace::Namespace> {
        if self.record.sandbox != SandboxPhase::Ready {
            return None;
        }
        if uses_host_network(&self.pod) {
            return Some(self.context.config.namespace.clone());
        }
        net::namespace::Namespace::open(&self.context.config.netns_path(&self.key.uid)).ok()
    }

    /// The first pause after something that should not fail did.
    pub(super) fn retry_later(&mut self) {
        self.retry_not_before = Some(super::record::after(Timestamp::now(), RETRY_FIRST));
    }
}
