//! The certificates of a server and its parts, made anew at each start from the cluster's authority and again while it
//! runs, well before they expire; and the administrator's kubeconfig.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use api::csr::Request;
use apiserver::ApiServer;
use apiserver::auth::certificates::{
    Authority, Credential, PkiError, Usage, renewal, validity, write_private,
};
use apiserver::http::tls::Serving;
use base::constants::ranges;
use base::layout::Layout;
use controllers::{CertificateSigner, TokenSigner};
use tokio_util::sync::CancellationToken;

/// At the most so long until it is looked again: a clock may have been set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

pub struct Credentials {
    /// The authority's certificate, as PEM.
    pub authority: String,
    /// What the API server shows its clients.
    pub serving: Arc<Serving>,
    /// What the API server shows the agents at first.
    pub node_client: Credential,
    /// What the agent shows whoever connects to it.
    pub node_serving: Arc<Serving>,
    /// Signs the API server's certificate towards agents and nothing else, so that no other certificate of the cluster
    /// opens an agent's door.
    pub node_client_authority: String,
    maker: Arc<Maker>,
    /// When they are made anew, in seconds since the epoch.
    due: i64,
}

/// Makes them.
struct Maker {
    authority: Authority,
    node_client_authority: Authority,
    layout: Layout,
    api_port: u16,
    node_address: Ipv4Addr,
    node_name: String,
}

/// One of each.
struct Made {
    serving: Credential,
    node_client: Credential,
    node_serving: Credential,
}

impl Made {
    fn due(&self) -> i64 {
        let chain = self.serving.parse().map(|(chain, _)| chain).unwrap_or_default();
        chain.first().and_then(validity).map_or(0, renewal)
    }
}

impl Maker {
    /// A new one of each; the kubeconfig is written.
    fn make(&self) -> Result<Made, PkiError> {
        let domain = ranges::CLUSTER_DOMAIN;
        let names =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned);
        let names =
            names.into_iter().chain([format!("kubernetes.default.svc.{domain}"), self.node_name.clone()]);
        let service: Option<IpAddr> = ranges::KUBERNETES_SERVICE_IP.parse().ok();
        let node = IpAddr::V4(self.node_address);
        let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), node].into_iter().chain(service);
        let masters = || Usage::Client { group: apiserver::auth::MASTERS.into() };
        let serving = Usage::Server { names: names.collect(), addresses: addresses.collect() };
        let of_node = Usage::Server { names: vec![self.node_name.clone()], addresses: vec![node] };
        let made = Made {
            serving: self.authority.issue("kube-apiserver", serving)?,
            node_client: self.node_client_authority.issue("kube-apiserver-kubelet-client", masters())?,
            node_serving: self.authority.issue(&format!("system:node:{}", self.node_name), of_node)?,
        };
        let admin = self.authority.issue("kubernetes-admin", masters())?;
        let config = kubeconfig(&self.authority.certificate, &admin, self.api_port);
        write_private(&self.layout.kubeconfig(), config.as_bytes())?;
        Ok(made)
    }
}

/// The one who signs what controllers have approved.
struct Signer(Arc<Maker>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl CertificateSigner for Signer {
    fn sign(&self, request: &Request, usages: &[String], lifetime_seconds: i64) -> Result<String, String> {
        self.0.authority.sign(request, usages, lifetime_seconds).map_err(|e| e.to_string())
    }
}

/// The one who signs what lies in Secrets: the server that is shown it.
struct Tokens(ApiServer);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl TokenSigner for Tokens {
    fn sign(&self, namespace: &str, account: (&str, &str), secret: &str) -> Result<String, String> {
        self.0.sign_for_secret(namespace, account, secret).map_err(|e| e.to_string())
    }
}

pub fn token_signer(server: &ApiServer) -> Arc<dyn TokenSigner> {
    Arc::new(Tokens(server.clone()))
}

impl Credentials {
    pub fn open(
        layout: &Layout,
        api_port: u16,
        node_address: Ipv4Addr,
        node_name: &str,
    ) -> Result<Self, PkiError> {
        let maker = Maker {
            authority: Authority::open(&layout.pki())?,
            node_client_authority: Authority::open(&layout.pki().join("node-client"))?,
            layout: layout.clone(),
            api_port,
            node_address,
            node_name: node_name.to_owned(),
        };
        let made = maker.make()?;
        Ok(Self {
            due: made.due(),
            authority: maker.authority.certificate.clone(),
            node_client_authority: maker.node_client_authority.certificate.clone(),
            serving: Serving::new(&made.serving)?,
            node_serving: Serving::new(&made.node_serving)?,
            node_client: made.node_client,
            maker: Arc::new(maker),
        })
    }

    /// Holds the authority's key for the controllers.
    pub fn signer(&self) -> Arc<dyn CertificateSigner> {
        Arc::new(Signer(Arc::clone(&self.maker)))
    }

    /// Makes all of them anew before they expire, without a connection being cut, until told to stop.
    pub async fn keep(self: Arc<Self>, server: ApiServer, stop: CancellationToken) {
        let mut due = self.due;
        loop {
            let left = u64::try_from(due - base::time::now().as_second()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(left).min(LOOK_EVERY)) => {}
                () = stop.cancelled() => return,
            }
            if base::time::now().as_second() < due {
                continue;
            }
            match self.renew(&server) {
                Ok(next) => due = next,
                Err(error) => {
                    tracing::error!(%error, "cannot renew the certificates; trying again");
                    due = base::time::now().as_second() + 60;
                }
            }
        }
    }

    fn renew(&self, server: &ApiServer) -> Result<i64, PkiError> {
        let made = self.maker.make()?;
        self.serving.replace(&made.serving)?;
        self.node_serving.replace(&made.node_serving)?;
        server.renew(&made.node_client)?;
        tracing::info!("the certificates were renewed");
        Ok(made.due())
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
