//! What should happen next. Pure: the same record and time always give the same plan.

use jiff::Timestamp;

use super::record::{ContainerRecord, Kind, Operation, PodRecord, SandboxPhase, Teardown, later};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Volumes, network, sandbox.
    SetUp,
    Start {
        name: String,
    },
    /// Why is for the event; `None` for an ordinary stop.
    Kill {
        name: String,
        by: Timestamp,
        why: Option<String>,
    },
    /// The pod is over but stays known: its sandbox and network go.
    StopSandbox,
    /// The pod has been active for longer than it may.
    Expire,
    /// Everything of the pod on this node goes.
    TearDown,
    /// The API may forget it.
    Finish,
}

/// Actions to begin now, and when to plan again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn kill(&mut self, container: &ContainerRecord, by: Timestamp, why: Option<String>) {
        let sooner = match container.operation {
            Some(Operation::Stopping { by: promised }) => by < promised,
            // It cannot be stopped before it is there.
            Some(Operation::Starting) => false,
            None => container.is_running(),
        };
        if sooner {
            self.actions.push(Action::Kill { name: container.name.clone(), by, why });
        }
    }
}

pub fn plan(pod: &PodRecord, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(ending) = &pod.ending {
        end(pod, ending.by, &mut plan);
        if !pod.anything_running() {
            conclude(pod, ending.removal, &mut plan);
        }
        return plan;
    }
    if pod.is_done() {
        end(pod, later(now, pod.grace_seconds), &mut plan);
        if !pod.anything_running() {
            conclude(pod, false, &mut plan);
        }
        return plan;
    }
    if let Some(deadline) = pod.deadline {
        if deadline <= now {
            plan.actions.push(Action::Expire);
            return plan;
        }
        plan.wake(deadline);
    }
    match pod.sandbox {
        SandboxPhase::Ready => run(pod, now, &mut plan),
        SandboxPhase::Making | SandboxPhase::Stopped => {}
        SandboxPhase::Absent | SandboxPhase::Lost => match pod.set_up_not_before {
            Some(time) if time > now => plan.wake(time),
            // What a lost sandbox held is dead; the runtime may need a moment to say so.
            _ if !pod.anything_running() => plan.actions.push(Action::SetUp),
            _ => {}
        },
    }
    plan
}

/// App and ephemeral containers together, then the sidecars one by one in the opposite order of their start.
fn end(pod: &PodRecord, by: Timestamp, plan: &mut Plan) {
    let (sidecars, others): (Vec<_>, Vec<_>) = pod.containers.iter().partition(|c| c.kind == Kind::Sidecar);
    let busy = |c: &&&ContainerRecord| c.is_running() || c.operation.is_some();
    let running: Vec<_> = others.iter().filter(busy).collect();
    for container in &running {
        plan.kill(container, by, None);
    }
    if running.is_empty()
        && let Some(last) = sidecars.iter().rev().find(|c| busy(c))
    {
        plan.kill(last, by, None);
    }
}

fn conclude(pod: &PodRecord, removal: bool, plan: &mut Plan) {
    match (removal, pod.teardown, pod.sandbox) {
        (_, _, SandboxPhase::Making) => {}
        (true, Teardown::No, _) => plan.actions.push(Action::TearDown),
        (true, Teardown::Done, _) => plan.actions.push(Action::Finish),
        (false, _, SandboxPhase::Ready | SandboxPhase::Lost) => plan.actions.push(Action::StopSandbox),
        _ => {}
    }
}

fn run(pod: &PodRecord, now: Timestamp, plan: &mut Plan) {
    for container in &pod.containers {
        let outdated = || format!("Container {} definition changed, will be restarted", container.name);
        let why = container.unhealthy.clone().or_else(|| container.is_outdated().then(outdated));
        if why.is_some() && container.is_running() {
            plan.kill(container, later(now, pod.grace_seconds), why);
        }
    }
    let initialized = pod.is_initialized();
    for container in pod.containers.iter().filter(|c| matches!(c.kind, Kind::Init | Kind::Sidecar)) {
        let over = container.kind == Kind::Init && (initialized || pod.is_completed(container));
        if over {
            continue;
        }
        start(pod, container, now, plan);
        // The next one waits for this one, until all have been up once.
        let passes = container.kind == Kind::Sidecar && container.started;
        if !initialized && !passes {
            return;
        }
    }
    for container in pod.containers.iter().filter(|c| matches!(c.kind, Kind::App | Kind::Ephemeral)) {
        start(pod, container, now, plan);
    }
}

fn start(pod: &PodRecord, container: &ContainerRecord, now: Timestamp, plan: &mut Plan) {
    let startable = match &container.current {
        None => true,
        // An agent that was cut short may have made it and not started it.
        Some(run) if run.is_unstarted() => true,
        Some(run) => run.is_over() && (pod.will_restart(container) || container.is_outdated()),
    };
    if !startable || container.operation.is_some() {
        return;
    }
    match container.not_before {
        Some(time) if time > now => plan.wake(time),
        _ => plan.actions.push(Action::Start { name: container.name.clone() }),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
