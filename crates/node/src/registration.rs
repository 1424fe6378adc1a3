//! The node's own object: registered at the start, which is when it gets its pods' addresses, its status told when it changes, its lease renewed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use net::ipam::Range;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::cluster;
use crate::config::NodeConfig;
use crate::images::ImageRecord;
use crate::machine;
use crate::pods::Context;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const LEASE_RENEWAL: Duration = Duration::from_secs(10);
/// An unchanged status is told this often all the same.
const STATUS_AT_LEAST_EVERY: Duration = Duration::from_secs(300);
/// How many images a status lists.
const IMAGES_MAX: usize = 50;
const RETRY: Duration = Duration::from_millis(200);

/// Makes the node known, and waits until the cluster has given it a range for its pods.
pub async fn join(client: &Client, config: &NodeConfig) -> Range {
    let api: Api<Node> = Api::all(client.clone());
    let mut retry = base::backoff::Backoff::new(RETRY, Duration::from_secs(7));
    loop {
        match api.create(&PostParams::default(), &node_object(config, None)).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                tracing::warn!(%error, "register the node");
                tokio::time::sleep(retry.next_delay()).await;
                continue;
            }
            Ok(_) => {}
        }
        let given = |node: &Node| given(node.spec.as_ref()?.pod_cidr.as_deref()?, config.cluster_range);
        if let Some(range) = cluster::found(api.clone(), &config.name, given).await {
            return range;
        }
        tokio::time::sleep(retry.next_delay()).await;
    }
}

/// The range that a node was given, if pods can have addresses from it.
fn given(text: &str, cluster: Range) -> Option<Range> {
    if text.is_empty() {
        return None;
    }
    let range = text.parse::<Range>().ok();
    let range = range.filter(|range| range.prefix() >= cluster.prefix() && cluster.contains(range.network()));
    if range.is_none() {
        tracing::error!(
            podCIDR = text,
            "the node's spec.podCIDR is no range within {cluster}; delete the Node, and it gets another"
        );
    }
    range
}

/// Registers, then keeps status and lease alive for as long as it is polled.
pub async fn run(context: Arc<Context>) {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut retry = base::backoff::Backoff::new(RETRY, Duration::from_secs(7));
    let uid = loop {
        match register(&context, &api).await {
            Ok(uid) => break uid,
            Err(error) => {
                tracing::warn!(%error, "register the node");
                tokio::time::sleep(retry.next_delay()).await;
            }
        }
    };
    context.events.node_event(&context.config.name, "Normal", "Starting", "Starting kubelet.");
    let mut ticks = tokio::time::interval(LEASE_RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_status = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        if let Err(error) = renew_lease(&context, uid.clone()).await {
            tracing::warn!(%error, "renew the node's lease");
        }
        if last_status.elapsed() >= STATUS_AT_LEAST_EVERY {
            match write_status(&context, &api).await {
                Ok(_) => last_status = tokio::time::Instant::now(),
                Err(error) => tracing::warn!(%error, "write the node's status"),
            }
        }
    }
}

async fn register(context: &Context, api: &Api<Node>) -> Result<Option<String>, kube::Error> {
    let node = node_object(&context.config, Some(context.config.pod_range));
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let labels = json!({"metadata": {"labels": node.metadata.labels}});
            api.patch(&context.config.name, &PatchParams::default(), &Patch::Strategic(labels)).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(write_status(context, api).await?.metadata.uid)
}

fn node_object(config: &NodeConfig, pod_range: Option<Range>) -> Node {
    use base::constants::labels;
    let mut all: BTreeMap<String, String> = BTreeMap::from([
        (labels::HOSTNAME.to_owned(), config.name.clone()),
        (labels::OS.to_owned(), "linux".to_owned()),
        (labels::ARCH.to_owned(), machine::architecture().to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), machine::architecture().to_owned()),
    ]);
    all.extend(config.labels.clone());
    Node {
        metadata: ObjectMeta { name: Some(config.name.clone()), labels: Some(all), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            pod_cidr: pod_range.map(|range| range.to_string()),
            pod_cidrs: pod_range.map(|range| vec![range.to_string()]),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

async fn write_status(context: &Context, api: &Api<Node>) -> Result<Node, kube::Error> {
    let images = match context.images.list().await {
        Ok(images) => images,
        Err(error) => {
            tracing::warn!(%error, "list images");
            Vec::new()
        }
    };
    let old = api.get_opt(&context.config.name).await?;
    let old = old.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
    let status = node_status(context, images, &old, Timestamp::now());
    let patch = Patch::Strategic(json!({"status": status}));
    api.patch_status(&context.config.name, &PatchParams::default(), &patch).await
}

fn node_status(
    context: &Context,
    images: Vec<ImageRecord>,
    old: &[NodeCondition],
    now: Timestamp,
) -> NodeStatus {
    let config = &context.config;
    let quantity = |text: String| Quantity(text);
    let capacity = &context.capacity;
    let amounts = BTreeMap::from([
        ("cpu".to_owned(), quantity((capacity.cpu_milli / 1000).to_string())),
        ("memory".to_owned(), quantity(format!("{}Ki", capacity.memory_bytes / 1024))),
        ("ephemeral-storage".to_owned(), quantity(format!("{}Ki", capacity.storage_bytes / 1024))),
        ("pods".to_owned(), quantity(config.max_pods.to_string())),
        ("hugepages-2Mi".to_owned(), quantity("0".to_owned())),
        ("hugepages-1Gi".to_owned(), quantity("0".to_owned())),
    ]);
    let address = |kind: &str, value: String| NodeAddress { type_: kind.to_owned(), address: value };
    let version = context.runtime.version();
    let port = DaemonEndpoint { port: i32::from(config.server_port) };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.address.to_string()),
            address("Hostname", config.name.clone()),
        ]),
        capacity: Some(amounts.clone()),
        allocatable: Some(amounts),
        conditions: Some(conditions(old, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints { kubelet_endpoint: Some(port) }),
        node_info: Some(NodeSystemInfo {
            machine_id: machine::machine_id(),
            system_uuid: machine::machine_id(),
            boot_id: machine::boot_id(),
            kernel_version: machine::kernel_version(),
            os_image: machine::os_image(),
            container_runtime_version: format!("{}://{}", version.name, version.version),
            kubelet_version: base::constants::KUBERNETES_VERSION.to_owned(),
            kube_proxy_version: String::new(),
            operating_system: "linux".to_owned(),
            architecture: machine::architecture().to_owned(),
            ..NodeSystemInfo::default()
        }),
        images: Some(
            images
                .into_iter()
                .take(IMAGES_MAX)
                .map(|image| ContainerImage {
                    names: Some(image.names),
                    size_bytes: i64::try_from(image.size_bytes).ok(),
                })
                .collect(),
        ),
        ..NodeStatus::default()
    }
}

fn conditions(old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let all = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    all.into_iter()
        .map(|(kind, status, reason, message)| {
            let same = old.iter().find(|c| c.type_ == kind && c.status == status);
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: same.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now))),
            }
        })
        .collect()
}

async fn renew_lease(context: &Context, node_uid: Option<String>) -> Result<(), kube::Error> {
    let name = &context.config.name;
    let api: Api<Lease> = lease_api(&context.client);
    let now = MicroTime(Timestamp::now());
    let patch =
        json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

fn lease_api(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), LEASE_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_taken_where_pods_can_have_addresses_from_it() {
        let cluster: Range = "10.42.0.0/16".parse().expect("a range");
        for (text, expected) in [
            ("", None),
            ("10.42.1.0/24", Some("10.42.1.0/24")),
            ("10.42.0.0/16", Some("10.42.0.0/16")),
            ("10.0.0.0/8", None),
            ("10.43.1.0/24", None),
            ("fd00::/64", None),
        ] {
            let range = given(text, cluster).map(|range| range.to_string());
            assert_eq!(range.as_deref(), expected, "{text}");
        }
    }
}
