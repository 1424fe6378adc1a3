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

/// How long certificates last, and how long it takes until it is tried again what could not be done.
#[derive(Clone, Copy)]
struct Pace {
    lifetime_seconds: i64,
    retry_seconds: i64,
}

const PACE: Pace = Pace { lifetime_seconds: 365 * 24 * 3600, retry_seconds: 60 };

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
    pace: Pace,
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
        let by = |authority: &Authority, name: &str, usage: Usage| {
            authority.issue_for(name, usage, self.pace.lifetime_seconds)
        };
        let made = Made {
            serving: by(&self.authority, "kube-apiserver", serving)?,
            node_client: by(&self.node_client_authority, "kube-apiserver-kubelet-client", masters())?,
            node_serving: by(&self.authority, &format!("system:node:{}", self.node_name), of_node)?,
        };
        let admin = by(&self.authority, "kubernetes-admin", masters())?;
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
        Self::open_at(layout, api_port, (node_address, node_name), PACE)
    }

    fn open_at(
        layout: &Layout,
        api_port: u16,
        (node_address, node_name): (Ipv4Addr, &str),
        pace: Pace,
    ) -> Result<Self, PkiError> {
        let maker = Maker {
            authority: Authority::open(&layout.pki())?,
            node_client_authority: Authority::open(&layout.pki().join("node-client"))?,
            layout: layout.clone(),
            api_port,
            node_address,
            node_name: node_name.to_owned(),
            pace,
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

    /// Makes all of them anew before they expire, without a connection being cut, until told to stop; and sees to the key that
    /// signs tokens, which is older than this server mostly.
    pub async fn keep(self: Arc<Self>, server: ApiServer, stop: CancellationToken) {
        let mut due = self.due;
        loop {
            if let Err(error) = server.replace_old_key() {
                tracing::error!(%error, "cannot replace the key that signs tokens; trying again later");
            }
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
                    due = base::time::now().as_second() + self.maker.pace.retry_seconds;
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Instant;

    use apiserver::http::serve::serve;
    use apiserver::{Config, Dial};
    use futures::future::BoxFuture;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use store::{Embedded, EmbeddedOptions};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    /// Certificates begin five minutes early, for clocks that lag: of such a life four fifths are over in four seconds.
    const SHORT: Pace = Pace { lifetime_seconds: 80, retry_seconds: 1 };

    struct Nowhere;

    impl Dial for Nowhere {
        fn dial(&self, _address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
            Box::pin(async { Err(std::io::Error::other("there are no nodes here")) })
        }
    }

    async fn server(layout: &Layout, credentials: &Credentials) -> ApiServer {
        let store = Embedded::open(&layout.state(), EmbeddedOptions::default()).expect("opens");
        let config = Config {
            folder: layout.pki(),
            advertise: SocketAddr::from((Ipv4Addr::new(10, 44, 0, 1), 6443)),
            service_cidr: ranges::SERVICE_CIDR.into(),
            dns_address: ranges::DNS_SERVICE_IP.parse().expect("an address"),
            node_client: credentials.node_client.clone(),
            authority: credentials.authority.clone(),
            dial: Arc::new(Nowhere),
            authentication: Default::default(),
            requests: Default::default(),
            audit: Default::default(),
            encryption: Default::default(),
        };
        ApiServer::open(config, Arc::new(store)).await.expect("starts")
    }

    /// What a server shows to whoever connects, if they trust it.
    async fn shown(address: SocketAddr, authority: &str) -> Vec<u8> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("added");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connect = move || {
            let name = ServerName::try_from("localhost").expect("a name");
            let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("begins");
            let mut stream = std::net::TcpStream::connect(address).expect("connects");
            while session.is_handshaking() {
                session.complete_io(&mut stream).expect("it is trusted");
            }
            session.peer_certificates().expect("a chain")[0].to_vec()
        };
        tokio::task::spawn_blocking(connect).await.expect("connects")
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_expires_is_made_anew_while_the_server_runs_also_after_it_could_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        layout.prepare().expect("prepares");
        let node = (Ipv4Addr::LOCALHOST, "n");
        let credentials = Arc::new(Credentials::open_at(&layout, 6443, node, SHORT).expect("opens"));
        let server = server(&layout, &credentials).await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let tls = server.tls(&credentials.serving).expect("a door");
        tokio::spawn(serve(server.clone(), listener, tls, stop.clone()));
        let first = shown(address, &credentials.authority).await;
        let first_config = text(&layout.kubeconfig());
        assert!(first_config.contains("client-key-data"), "{first_config}");

        // The first attempt fails: where the kubeconfig belongs is a folder.
        std::fs::remove_file(layout.kubeconfig()).expect("removed");
        std::fs::create_dir(layout.kubeconfig()).expect("made");
        let keeping = tokio::spawn(Arc::clone(&credentials).keep(server, stop.clone()));
        let due = credentials.due;
        let begun = Instant::now();
        while base::time::now().as_second() <= due {
            assert!(begun.elapsed() < LIMIT, "it should be due");
            assert_eq!(shown(address, &credentials.authority).await, first, "before its time, or half of it");
        }
        std::fs::remove_dir(layout.kubeconfig()).expect("removed");
        while shown(address, &credentials.authority).await == first {
            assert!(begun.elapsed() < LIMIT, "it is not made anew");
        }
        let second_config = text(&layout.kubeconfig());
        assert!(second_config.contains("client-key-data") && second_config != first_config);
        stop.cancel();
        keeping.await.expect("it ends when it is told to");
    }
}
