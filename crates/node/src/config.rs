//! What the wiring tells a node about itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use net::ipam::Range;
use net::namespace::Namespace;

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    /// Names the cluster in what is kept with sandboxes; a short word.
    pub cluster_id: String,
    /// The node's own directory: pods, logs.
    pub data_dir: PathBuf,
    /// Where namespaces are pinned; emptied when the node is purged.
    pub run_dir: PathBuf,
    /// The network namespace the node lives in.
    pub namespace: Namespace,
    pub address: Ipv4Addr,
    /// The range of this node's pods: see [`crate::registration::join`].
    pub pod_range: Range,
    /// The range of all pods of the cluster.
    pub cluster_range: Range,
    pub service_range: Range,
    pub dns_address: Ipv4Addr,
    pub cluster_domain: String,
    /// Where foreign names are asked, from the host's namespace. Empty: foreign names are refused.
    pub dns_upstreams: Vec<SocketAddr>,
    /// The port the API server finds us at.
    pub server_port: u16,
    pub labels: BTreeMap<String, String>,
    /// The host's, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    pub mtu: u32,
}

impl NodeConfig {
    /// A node with the usual ranges.
    pub fn new(
        name: &str,
        cluster_id: &str,
        data_dir: PathBuf,
        run_dir: PathBuf,
        namespace: Namespace,
    ) -> Self {
        use base::constants::{ports, ranges};
        let range = |text: &str| text.parse().expect("our own constants are ranges");
        let cluster_range: Range = range(ranges::POD_CIDR);
        Self {
            name: name.to_owned(),
            cluster_id: cluster_id.to_owned(),
            data_dir,
            run_dir,
            namespace,
            address: range(ranges::NODE_CIDR).nth(1).expect("our own range has addresses"),
            pod_range: Range::new(cluster_range.network(), ranges::NODE_POD_PREFIX),
            cluster_range,
            service_range: range(ranges::SERVICE_CIDR),
            dns_address: ranges::DNS_SERVICE_IP.parse().expect("our own constant is an address"),
            cluster_domain: ranges::CLUSTER_DOMAIN.to_owned(),
            dns_upstreams: Vec::new(),
            server_port: ports::KUBELET,
            labels: BTreeMap::new(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            mtu: net::node_network::DEFAULT_MTU,
        }
    }

    /// The directory of one pod: volumes, `etc-hosts`, termination messages.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// The directory of one pod's logs, named as everybody's log collector expects it.
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// Where the network namespace of a pod is pinned.
    pub fn netns_path(&self, uid: &str) -> PathBuf {
        self.run_dir.join("netns").join(uid)
    }
}
