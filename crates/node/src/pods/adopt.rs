//! After a restart of the agent: what runs is taken over as it is, what belongs to no pod any more is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use container::runtime::{ContainerStatus, Runtime, RuntimeError, SandboxState, SandboxStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::context::{Context, PodKey, uses_host_network};
use super::record::{PodRecord, SandboxPhase, keys};
use super::runs::{assume_up, recall, take_runs};
use super::setup::uid_of_sandbox;
use super::teardown::{TeardownError, tear_down};

/// What the runtime still has of one pod: its newest sandbox, and its containers, those of earlier sandboxes among them.
#[derive(Clone, Debug)]
pub struct Leftover {
    pub key: PodKey,
    pub sandbox: SandboxStatus,
    pub containers: Vec<ContainerStatus>,
}

impl Leftover {
    pub fn pod_ip(&self) -> Option<Ipv4Addr> {
        self.sandbox.config.annotations.get(keys::POD_IP)?.parse().ok()
    }

    /// The address, while its sandbox lives. One that was stopped has given it back long ago.
    pub fn held_ip(&self) -> Option<Ipv4Addr> {
        self.pod_ip().filter(|_| self.sandbox.state == SandboxState::Ready)
    }
}

/// Everything the runtime has, by pod uid.
pub async fn leftovers(runtime: &dyn Runtime) -> Result<BTreeMap<String, Leftover>, RuntimeError> {
    let mut found: BTreeMap<String, Leftover> = BTreeMap::new();
    for sandbox in runtime.list_pod_sandboxes().await? {
        let config = &sandbox.config;
        match found.get_mut(&config.uid) {
            Some(leftover) if leftover.sandbox.config.attempt >= config.attempt => {}
            Some(leftover) => leftover.sandbox = sandbox,
            None => {
                let key = PodKey {
                    namespace: config.namespace.clone(),
                    name: config.name.clone(),
                    uid: config.uid.clone(),
                };
                found.insert(config.uid.clone(), Leftover { key, sandbox, containers: Vec::new() });
            }
        }
    }
    for container in runtime.list_containers(None).await? {
        let uid = uid_of_sandbox(&container.sandbox_id);
        if let Some(leftover) = uid.and_then(|uid| found.get_mut(uid)) {
            leftover.containers.push(container);
        }
    }
    Ok(found)
}

/// The record of a pod whose containers are there already.
pub fn adopt(pod: &Pod, leftover: Option<&Leftover>, now: Timestamp) -> PodRecord {
    let mut record = PodRecord::new(pod, now);
    let Some(leftover) = leftover else {
        recall(&mut record, pod);
        return record;
    };
    record.sandbox_attempt = leftover.sandbox.config.attempt;
    record.pod_ip = leftover.pod_ip();
    record.holds_address = leftover.held_ip().is_some() && !uses_host_network(pod);
    let ready = leftover.sandbox.state == SandboxState::Ready;
    record.sandbox = if ready { SandboxPhase::Ready } else { SandboxPhase::Lost };
    take_runs(&mut record, &leftover.containers, !ready);
    recall(&mut record, pod);
    if !ready && record.is_done() {
        record.sandbox = SandboxPhase::Stopped;
    }
    assume_up(&mut record, pod);
    record
}

/// Removes links and directories of pods not in `keep`. Nobody may set up a pod outside `keep` meanwhile.
pub async fn sweep(context: &Context, keep: &BTreeSet<String>) -> Result<usize, TeardownError> {
    let links: Vec<String> = keep.iter().cloned().collect();
    let removed = net::attachment::remove_strays(&context.config.namespace, links).await?;
    let root = context.config.data_dir.join("pods");
    let Ok(entries) = std::fs::read_dir(root) else { return Ok(removed) };
    let strays: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| !keep.contains(entry.file_name().to_string_lossy().as_ref()))
        .map(|entry| entry.path())
        .collect();
    for path in &strays {
        crate::volumes::release_all(path)?;
    }
    Ok(removed + strays.len())
}

/// Takes down the pods that are no longer in the API.
pub async fn remove_orphans(
    context: &Context,
    orphans: &BTreeMap<String, Leftover>,
) -> Result<(), TeardownError> {
    for (uid, leftover) in orphans {
        tracing::info!(%uid, pod = %leftover.key.name, "removing a pod that is no longer ours");
        tear_down(context, &leftover.key).await?;
        if let Some(ip) = leftover.held_ip() {
            context.addresses.lock().free(ip);
        }
    }
    Ok(())
}
