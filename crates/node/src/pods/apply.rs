//! What outcomes, probe reports and the runtime's news do to the record.

use std::collections::BTreeMap;
use std::time::Duration;

use container::runtime::{ContainerState, ContainerStatus, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::context::uses_host_network;
use super::directory::{ContainerEntry, PodEntry};
use super::record::{
    BACKOFF_RESET, ContainerRecord, Operation, RunRecord, SandboxPhase, Teardown, Waiting, after,
};
use super::runs::take_runs;
use super::setup::{SetupError, Surroundings, sandbox_id};
use super::start::{StartFailure, Used};
use super::status::build_status;
use super::worker::{Outcome, Worker};
use crate::cluster::StatusError;
use crate::probes::{ProbeKind, ProbeNews, ProbeReport, Verdict};
use crate::resources::{container_resources, find_container, pod_resources};
use crate::security::pod_title;
use crate::volumes::Prepared;

const CONFIG_RETRY: Duration = Duration::from_secs(20);
const TELL_RETRY: Duration = Duration::from_secs(2);

impl Worker {
    pub(super) fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::SetUp(result) => self.take_set_up(result),
            Outcome::Started { name, attempt, used, result } => {
                self.take_started(&name, attempt, used, result)
            }
            Outcome::Killed { name } => {
                self.stale_runtime = true;
                if let Some(container) = self.record.container_mut(&name)
                    && !container.is_running()
                {
                    container.operation = None;
                }
                self.unstick(&name);
            }
            Outcome::SandboxStopped(Ok(())) => {
                self.stale_runtime = true;
                self.give_address_back();
            }
            Outcome::SandboxStopped(Err(error)) => {
                tracing::warn!(%error, pod = %self.key.name, "stop a pod's sandbox");
                self.record.sandbox = SandboxPhase::Lost;
                self.retry_later();
            }
            Outcome::TornDown(Ok(())) => {
                self.record.teardown = Teardown::Done;
                self.give_address_back();
            }
            Outcome::TornDown(Err(error)) => {
                tracing::warn!(%error, pod = %self.key.name, "take a pod down");
                self.context.events.pod_event(
                    &self.pod,
                    "Warning",
                    "FailedKillPod",
                    &format!("error killing pod: {error}"),
                );
                self.record.teardown = Teardown::No;
                self.retry_later();
            }
            Outcome::Finished(Ok(())) => self.record.teardown = Teardown::Finished,
            Outcome::Finished(Err(error)) => {
                tracing::warn!(%error, pod = %self.key.name, "tell the API that a pod is gone");
                self.record.teardown = Teardown::Done;
                self.retry_later();
            }
            Outcome::StatusWritten { status, result } => self.take_written(*status, result),
            Outcome::VolumesRefreshed(result) => {
                self.refreshing = false;
                match result {
                    Ok(volumes) => self.set_volumes(volumes),
                    Err(error) => {
                        // What is mounted stays as it was; the object may come back, and then we hear of it.
                        self.context.events.pod_event(&self.pod, "Warning", error.reason(), &error.event());
                        if !self.knows_volumes {
                            self.stale_volumes = true;
                            self.retry_later();
                        }
                    }
                }
            }
        }
    }

    fn set_volumes(&mut self, volumes: BTreeMap<String, Prepared>) {
        self.volumes = volumes;
        if !std::mem::replace(&mut self.knows_volumes, true) {
            let held_up = self.record.containers.iter_mut().filter(|c| c.not_before == Some(Timestamp::MAX));
            held_up.for_each(|container| container.not_before = None);
        }
    }

    /// Exactly once: somebody else may have it a moment later.
    fn give_address_back(&mut self) {
        if std::mem::replace(&mut self.record.holds_address, false)
            && let Some(ip) = self.record.pod_ip
        {
            self.context.addresses.lock().free(ip);
        }
    }

    /// A task broke without an outcome: whatever it was, it is planned anew from what the runtime says.
    pub(super) fn forget_operations(&mut self) {
        self.record.containers.iter_mut().for_each(|container| container.operation = None);
        (self.telling, self.refreshing, self.stale_runtime) = (false, false, true);
        match self.record.teardown {
            Teardown::Doing => self.record.teardown = Teardown::No,
            Teardown::Finishing => self.record.teardown = Teardown::Done,
            _ => {}
        }
        if self.record.sandbox == SandboxPhase::Making {
            self.record.sandbox = SandboxPhase::Absent;
        }
        self.retry_later();
    }

    /// Resources may change while a container runs.
    pub(super) fn follow_resources(&mut self, new: &Pod) {
        let (Some(old_spec), Some(new_spec)) = (&self.pod.spec, &new.spec) else { return };
        let mut changed = Vec::new();
        for container in &new_spec.containers {
            let old = old_spec.containers.iter().find(|c| c.name == container.name);
            let record = self.record.containers.iter().find(|c| c.name == container.name);
            let run = record.and_then(|record| record.current.as_ref()).filter(|run| run.is_running());
            if let (Some(run), true) = (run, old.is_some_and(|old| old.resources != container.resources)) {
                let resources = container_resources(new, container, self.context.capacity.memory_bytes);
                changed.push((run.id.clone(), resources));
            }
        }
        let (before, together) = (pod_resources(&self.pod), pod_resources(new));
        if changed.is_empty() && before == together {
            return;
        }
        let sandbox = (self.record.sandbox != SandboxPhase::Absent)
            .then(|| sandbox_id(&self.key.uid, self.record.sandbox_attempt));
        let context = self.context.clone();
        tokio::spawn(async move {
            let of_pod = async |sandbox: &str| {
                context.runtime.update_sandbox_resources(sandbox, together.clone()).await
            };
            // Room for what grows comes first; what shrinks may have to wait for its containers, and is done after them.
            let first = match &sandbox {
                Some(sandbox) => of_pod(sandbox).await,
                None => Ok(()),
            };
            for (id, resources) in changed {
                if let Err(error) = context.runtime.update_resources(&id, resources).await {
                    tracing::warn!(%error, %id, "resize a container");
                }
            }
            if let (Err(_), Some(sandbox)) = (first, &sandbox)
                && let Err(error) = of_pod(sandbox).await
            {
                tracing::warn!(%error, %sandbox, "resize a pod");
            }
        });
    }

    /// A stop that ended without ending the container is tried again.
    fn unstick(&mut self, name: &str) {
        if let Some(container) = self.record.container_mut(name)
            && let Some(Operation::Stopping { .. }) = container.operation
        {
            // The refresh that follows finds it running or not, and the plan goes on from there.
            container.operation = None;
        }
    }

    fn take_set_up(&mut self, result: Result<Surroundings, SetupError>) {
        match result {
            Ok(Surroundings { volumes, pod_ip }) => {
                self.set_volumes(volumes);
                self.stale_volumes = false;
                self.record.pod_ip = Some(pod_ip);
                self.record.holds_address = !uses_host_network(&self.pod);
                self.record.sandbox = SandboxPhase::Ready;
                self.record.set_up_not_before = None;
                self.record.set_up_failures.reset();
                self.stale_runtime = true;
            }
            Err(error) => {
                let what = (error.reason(), error.event());
                tracing::info!(%error, pod = %self.key.name, "set a pod up");
                self.context.events.pod_event(&self.pod, "Warning", what.0, &what.1);
                self.record.sandbox = SandboxPhase::Absent;
                let delay = self.record.set_up_failures.next_delay();
                self.record.set_up_not_before = Some(after(Timestamp::now(), delay));
            }
        }
    }

    fn take_started(
        &mut self,
        name: &str,
        attempt: u32,
        used: Option<Used>,
        result: Result<(), StartFailure>,
    ) {
        self.stale_runtime = true;
        let now = Timestamp::now();
        let spec = self.pod.spec.clone();
        let found = spec.as_ref().and_then(|spec| find_container(spec, name));
        let failed = matches!(result, Err(StartFailure::Run(_) | StartFailure::Hook(_)));
        let backoff = if failed { self.crash_delay(name) } else { Duration::ZERO };
        let Some(container) = self.record.container_mut(name) else { return };
        container.operation = None;
        container.failed_start = failed.then_some(attempt).or(container.failed_start);
        container.image = used.or(container.image.take());
        match result {
            Ok(()) => {
                container.waiting = None;
                container.not_before = None;
                container.image_failures.reset();
                container.unhealthy = None;
                let probed = |probe: fn(&k8s_openapi::api::core::v1::Container) -> bool| {
                    found.as_ref().is_some_and(probe)
                };
                container.started = !probed(|c| c.startup_probe.is_some());
                container.ready = container.started && !probed(|c| c.readiness_probe.is_some());
                // It may have ended while its start was still being settled.
                let over = container.current.clone().filter(|run| run.attempt == attempt && run.is_over());
                if let Some(run) = over {
                    (container.started, container.ready) = (false, false);
                    self.take_exit(name, &run);
                }
            }
            Err(StartFailure::Image(waiting)) => {
                let delay = container.image_failures.next_delay();
                container.not_before = Some(after(now, delay));
                container.waiting = Some(waiting);
                self.back_off_pulling(name);
            }
            Err(StartFailure::Config(waiting)) => {
                container.not_before = Some(after(now, CONFIG_RETRY));
                container.waiting = Some(waiting);
            }
            Err(StartFailure::Run(waiting)) => {
                let ran = waiting.reason == "RunContainerError";
                container.waiting = Some(waiting);
                container.not_before = Some(after(now, backoff.max(Duration::from_secs(1))));
                *self.crashes.entry(name.to_owned()).or_default() += 1;
                if ran && !backoff.is_zero() {
                    self.back_off(name, now, backoff);
                }
            }
            Err(StartFailure::Hook(message)) => {
                container.waiting = Some(Waiting::new("PostStartHookError", message));
                container.not_before = Some(after(now, backoff));
                *self.crashes.entry(name.to_owned()).or_default() += 1;
            }
        }
        tracing::debug!(container = name, attempt, "start of a container settled");
    }

    /// A failed pull shows as `ErrImagePull` once; while it waits it is `ImagePullBackOff`.
    fn back_off_pulling(&mut self, name: &str) {
        let spec = self.pod.spec.as_ref();
        let image =
            spec.and_then(|spec| find_container(spec, name)).and_then(|c| c.image).unwrap_or_default();
        let Some(container) = self.record.container_mut(name) else { return };
        let Some(waiting) = &container.waiting else { return };
        let message = format!("Back-off pulling image \"{image}\"");
        let whole = format!("{message}: ErrImagePull: {}", waiting.message);
        container.waiting = Some(Waiting::new("ImagePullBackOff", whole));
        self.context.events.container_event(&self.pod, name, "Normal", "BackOff", &message);
        self.context.events.container_event(&self.pod, name, "Warning", "Failed", "Error: ImagePullBackOff");
    }

    /// How long a container that ended now has to wait: not at all the first time.
    fn crash_delay(&mut self, name: &str) -> Duration {
        let crashes = self.crashes.get(name).copied().unwrap_or(0);
        let Some(container) = self.record.container_mut(name) else { return Duration::ZERO };
        if crashes == 0 { Duration::ZERO } else { container.crashes.next_delay() }
    }

    /// A watched object changed: what waited for it may be tried now.
    pub(super) fn retry_waiting_for_objects(&mut self) {
        for container in &mut self.record.containers {
            let config = container.waiting.as_ref().is_some_and(|w| w.reason == "CreateContainerConfigError");
            if config {
                container.not_before = None;
            }
        }
        self.record.set_up_not_before = None;
    }

    fn take_written(&mut self, status: PodStatus, result: Result<(), StatusError>) {
        self.telling = false;
        match result {
            Ok(()) => self.told = Some(status),
            Err(StatusError::Gone) => self.told = Some(status),
            Err(error) => {
                tracing::warn!(%error, pod = %self.key.name, "write a pod's status");
                self.tell_not_before = Some(after(Timestamp::now(), TELL_RETRY));
            }
        }
    }

    pub(super) fn take_report(&mut self, report: ProbeReport) {
        let pod = self.pod.clone();
        let found = self.record.containers.iter_mut().find(|container| {
            container.current.as_ref().is_some_and(|run| run.id == report.container_id && run.is_running())
        });
        let Some(container) = found else { return };
        let (name, kind) = (container.name.clone(), report.kind);
        let events = &self.context.events;
        match report.news {
            ProbeNews::Failed(output) => {
                let message = format!("{} probe failed: {output}", kind.name());
                events.container_event(&pod, &name, "Warning", "Unhealthy", &message);
            }
            ProbeNews::Errored(error) => {
                let message = format!("{} probe errored and resulted in unknown state: {error}", kind.name());
                events.container_event(&pod, &name, "Warning", "Unhealthy", &message);
            }
            ProbeNews::Verdict(verdict) => {
                let success = verdict == Verdict::Success;
                match (kind, success) {
                    (ProbeKind::Readiness, ready) => container.ready = ready,
                    (ProbeKind::Startup, true) => {
                        container.started = true;
                        let found = pod.spec.as_ref().and_then(|spec| find_container(spec, &name));
                        container.ready = found.is_none_or(|c| c.readiness_probe.is_none());
                    }
                    (ProbeKind::Liveness, true) => {}
                    (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                        let kind = kind.name().to_lowercase();
                        container.unhealthy =
                            Some(format!("Container {name} failed {kind} probe, will be restarted"));
                    }
                }
            }
        }
    }

    /// Asks the runtime what became of the sandbox and its containers.
    pub(super) async fn refresh(&mut self) {
        if matches!(self.record.sandbox, SandboxPhase::Absent | SandboxPhase::Making) {
            return;
        }
        let id = sandbox_id(&self.key.uid, self.record.sandbox_attempt);
        if self.record.sandbox == SandboxPhase::Ready {
            let lost = match self.context.runtime.pod_sandbox_status(&id).await {
                Ok(status) => status.state != SandboxState::Ready,
                Err(error) => error.is_not_found(),
            };
            if lost {
                self.record.sandbox = SandboxPhase::Lost;
            }
        }
        match self.context.runtime.list_containers(Some(&id)).await {
            Ok(statuses) => self.take_statuses(&statuses),
            Err(error) if error.is_not_found() => self.take_statuses(&[]),
            Err(error) => {
                tracing::warn!(%error, pod = %self.key.name, "list a pod's containers");
                self.retry_later();
            }
        }
    }

    fn take_statuses(&mut self, statuses: &[ContainerStatus]) {
        // Which run of each container was known to be over.
        let over =
            |c: &ContainerRecord| c.current.as_ref().filter(|run| run.is_over()).map(|run| run.id.clone());
        let before: Vec<(String, Option<String>)> =
            self.record.containers.iter().map(|c| (c.name.clone(), over(c))).collect();
        let lost = self.record.sandbox == SandboxPhase::Lost;
        take_runs(&mut self.record, statuses, lost);
        for (name, over) in before {
            let Some(container) = self.record.container_mut(&name) else { continue };
            let Some(run) = container.current.clone() else { continue };
            let ended = run.is_over() && over.as_deref() != Some(run.id.as_str());
            if ended {
                (container.started, container.ready, container.unhealthy) = (false, false, None);
                if container.operation != Some(Operation::Starting) {
                    container.operation = None;
                    if container.failed_start != Some(run.attempt) {
                        self.take_exit(&name, &run);
                    }
                }
            }
        }
    }

    /// A run ended by itself or was killed: when may the next one begin?
    fn take_exit(&mut self, name: &str, run: &RunRecord) {
        if run.ran_for() >= BACKOFF_RESET {
            self.crashes.remove(name);
            if let Some(container) = self.record.container_mut(name) {
                container.crashes.reset();
            }
        }
        let restarts = self.record.ending.is_none()
            && self
                .record
                .containers
                .iter()
                .find(|c| c.name == name)
                .is_some_and(|c| self.record.will_restart(c));
        if !restarts {
            return;
        }
        let delay = self.crash_delay(name);
        *self.crashes.entry(name.to_owned()).or_default() += 1;
        if delay.is_zero() {
            if let Some(container) = self.record.container_mut(name) {
                (container.waiting, container.not_before) = (None, None);
            }
            return;
        }
        let base = super::record::time_of(run.finished_at_ns).unwrap_or_else(Timestamp::now);
        self.back_off(name, base, delay);
    }

    /// It keeps failing: shown and told, and tried again only after the delay.
    fn back_off(&mut self, name: &str, base: Timestamp, delay: Duration) {
        let title = pod_title(&self.pod);
        let Some(container) = self.record.container_mut(name) else { return };
        container.not_before = Some(after(base, delay));
        let shown = go_duration(delay);
        let message = format!("back-off {shown} restarting failed container={name} pod={title}");
        container.waiting = Some(Waiting::new("CrashLoopBackOff", message));
        let message = format!("Back-off restarting failed container {name} in pod {title}");
        self.context.events.container_event(&self.pod, name, "Warning", "BackOff", &message);
    }

    pub(super) fn build_status(&self) -> PodStatus {
        let told = self.told.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        build_status(&self.pod, &self.record, told, self.context.config.address, Timestamp::now())
    }

    /// Shows the pod to the node's server.
    pub(super) fn publish(&self) {
        if self.gone {
            // Another pod may have the name by now.
            return;
        }
        let entry = |c: &ContainerRecord| ContainerEntry {
            name: c.name.clone(),
            id: c
                .current
                .as_ref()
                .filter(|run| run.state != ContainerState::Created)
                .map(|run| run.id.clone()),
            attempt: c.current.as_ref().map_or(0, |run| run.attempt),
            running: c.is_running(),
            previous: c.last_run().map(|run| run.attempt),
            waiting: c.waiting.as_ref().map(|waiting| waiting.reason.clone()),
        };
        let mut pod = (*self.pod).clone();
        if !self.settled {
            pod.status = Some(self.build_status());
        }
        let entry = PodEntry {
            pod: std::sync::Arc::new(pod),
            log_dir: self.context.config.log_dir(&self.key.namespace, &self.key.name, &self.key.uid),
            pod_ip: self.record.pod_ip,
            network: self.network(),
            containers: self.record.containers.iter().map(entry).collect(),
        };
        self.context.directory.put(&self.key.namespace, &self.key.name, entry);
    }
}

/// `10s`, `1m20s`, `5m0s`
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
