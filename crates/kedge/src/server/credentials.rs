//! The certificates of a server and its parts, made anew at each start from the cluster's authority, and the
//! administrator's kubeconfig.

use std::net::{IpAddr, Ipv4Addr};

use apiserver::auth::certificates::{Authority, Credential, PkiError, Usage, write_private};
use base::constants::ranges;
use base::layout::Layout;

pub struct Credentials {
    /// The authority's certificate, as PEM.
    pub authority: String,
    /// What the API server shows its clients.
    pub serving: Credential,
    /// What the API server shows the agents.
    pub node_client: Credential,
    /// What the agent shows whoever connects to it.
    pub node_serving: Credential,
    /// Signs the API server's certificate towards agents and nothing else, so that no other certificate of the cluster
    /// opens an agent's door.
    pub node_client_authority: String,
}

impl Credentials {
    pub fn open(
        layout: &Layout,
        api_port: u16,
        node_address: Ipv4Addr,
        node_name: &str,
    ) -> Result<Self, PkiError> {
        let authority = Authority::open(&layout.pki())?;
        let node_client_authority = Authority::open(&layout.pki().join("node-client"))?;
        let domain = ranges::CLUSTER_DOMAIN;
        let names =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned);
        let names =
            names.into_iter().chain([format!("kubernetes.default.svc.{domain}"), node_name.to_owned()]);
        let service: Option<IpAddr> = ranges::KUBERNETES_SERVICE_IP.parse().ok();
        let addresses =
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(node_address)].into_iter().chain(service);
        let masters = || Usage::Client { group: apiserver::auth::MASTERS.into() };
        let this = Self {
            serving: authority.issue(
                "kube-apiserver",
                Usage::Server { names: names.collect(), addresses: addresses.collect() },
            )?,
            node_client: node_client_authority.issue("kube-apiserver-kubelet-client", masters())?,
            node_serving: authority.issue(
                &format!("system:node:{node_name}"),
                Usage::Server {
                    names: vec![node_name.to_owned()],
                    addresses: vec![IpAddr::V4(node_address)],
                },
            )?,
            node_client_authority: node_client_authority.certificate.clone(),
            authority: authority.certificate.clone(),
        };
        let admin = authority.issue("kubernetes-admin", masters())?;
        let config = kubeconfig(&this.authority, &admin, api_port);
        write_private(&layout.kubeconfig(), config.as_bytes())?;
        Ok(this)
    }
}

fn kubeconfig(authority: &str, admin: &Credential, api_port: u16) -> String {
    let encode = |pem: &str| base::id::base64(pem.as_bytes());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: kedge\n\
         clusters:\n- name: kedge\n  cluster:\n    server: https://127.0.0.1:{api_port}\n    certificate-authority-data: {}\n\
         users:\n- name: kedge-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n\
         contexts:\n- name: kedge\n  context:\n    cluster: kedge\n    user: kedge-admin\n    namespace: default\n",
        encode(authority),
        encode(&admin.certificate),
        encode(&admin.key),
    )
}
