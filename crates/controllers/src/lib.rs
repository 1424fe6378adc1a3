//! The controllers of the control plane: one file (or folder) a controller, each a pure planner and a thin executor.
//! They only read shared caches and write through the API; the driver in `client` runs, repeats and delays them.

mod certificates;
mod context;
mod crd;
mod deletions;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod expectations;
mod gc;
mod invitations;
mod job;
mod meta;
mod mirroring;
mod namespace;
mod nodes;
mod percent;
mod pod;
mod quota;
mod replicas;
mod replicaset;
mod replicationcontroller;
mod role_aggregation;
mod service_account;
mod statefulset;
#[cfg(test)]
mod testing;
mod token_cleaner;
mod token_secrets;
mod volumes;

use std::sync::Arc;

use client::{Caches, Controller};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use tokio_util::sync::CancellationToken;

pub use certificates::CertificateSigner;
pub use context::Config;
use context::Context;
pub use token_secrets::TokenSigner;

type Start = fn(&Context) -> Vec<Controller>;

/// All there are. Adding one adds a line here.
const TABLE: &[(&str, Start)] = &[
    ("deployment", deployment::start),
    ("replicaset", replicas::start::<ReplicaSet>),
    ("replicationcontroller", replicas::start::<ReplicationController>),
    ("job", job::start),
    ("statefulset", statefulset::start),
    ("serviceaccount", service_account::start),
    ("endpointslice", endpoints::start),
    ("endpointslicemirroring", mirroring::start),
    ("namespace", namespace::start),
    ("garbagecollector", gc::start),
    ("customresourcedefinition", crd::start),
    ("nodelifecycle", nodes::lifecycle::start),
    ("nodeipam", nodes::ranges::start),
    ("tainteviction", nodes::eviction::start),
    ("podgc", nodes::pod_gc::start),
    ("persistentvolumebinder", volumes::start),
    ("volumeprotection", volumes::protection::start),
    ("poddisruptionbudget", disruption::start),
    ("resourcequota", quota::start),
    ("certificatesigningrequest", certificates::start),
    ("clusterroleaggregation", role_aggregation::start),
    ("bootstraptokens", invitations::start),
    ("serviceaccounttoken", token_secrets::start),
    ("legacyserviceaccounttokencleaner", token_cleaner::start),
];

/// Runs all controllers until stopped.
pub async fn run(caches: Caches, config: Config, stop: CancellationToken) {
    let context =
        Context { caches, config: Arc::new(config), stop: stop.clone(), deletions: Default::default() };
    let mut running = Vec::new();
    for (name, start) in TABLE {
        tracing::debug!(controller = name, "starting");
        running
            .extend(start(&context).into_iter().map(|controller| tokio::spawn(controller.run(stop.clone()))));
    }
    for ended in join_all(running).await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended badly");
        }
    }
}

/// What the API said, in its own words.
fn message_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
