//! `kedge server`: all roles in one process, from an empty directory to a ready node.

mod audit;
mod credentials;
pub mod end;
mod footprint;
mod publish;
pub mod purge;
pub mod run_file;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use apiserver::auth::Identity;
use apiserver::auth::authentication::Authentication;
use apiserver::auth::request_header::RequestHeader;
use apiserver::http::serve::serve;
use apiserver::http::tls::node_tls;
use apiserver::{ApiServer, Dial, RequestLimits};
use base::constants::{ports, ranges};
use base::layout::Layout;
use client::election::{Candidate, lead};
use client::{Caches, kube};
use container::own::OwnRuntime;
use front::{AuthenticationOptions, RequestOptions, ServerOptions};
use futures::future::BoxFuture;
use image::ImageStore;
use net::namespace::Namespace;
use node::{Node, NodeConfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use credentials::Credentials;

/// The node's own address: the first of its range.
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);

struct InNamespace(Namespace);

impl Dial for InNamespace {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        let namespace = self.0.clone();
        Box::pin(async move { namespace.connect_tcp(address).await.map_err(std::io::Error::other) })
    }
}

/// Runs until the process is told to end.
pub async fn main(options: ServerOptions) -> ExitCode {
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = told_to_end().await {
            tracing::warn!(%error, "cannot listen for signals");
            return;
        }
        on_signal.cancel();
    });
    let layout = options.layout.clone();
    match run(options, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            base::tell!("kedge: {error:#}");
            if base::disk::is_full(error.as_ref()) {
                base::tell!("kedge: {}", base::disk::remedy(layout.data_dir()));
            }
            ExitCode::FAILURE
        }
    }
}

async fn told_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Runs until `stop`.
async fn run(options: ServerOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let layout = &options.layout;
    layout.prepare()?;
    if !api::kinds::names::is_subdomain(&options.node_name) {
        let name = &options.node_name;
        bail!(
            "--node-name {name:?}: a node's name is of lower case letters, digits, '-' and '.', and begins and ends with a letter or digit"
        );
    }
    let _lock = run_file::lock(layout).await?;
    let listener = run_file::listen(layout, options.api_port).await?;
    let api_port = listener.local_addr()?.port();
    let credentials = Arc::new(Credentials::open(layout, api_port, NODE_ADDRESS, &options.node_name)?);
    let opened = crate::store::open(layout, &options.store, true).await?;
    let held = crate::store::socket::Held::default();
    if let Some(embedded) = &opened.embedded {
        crate::store::socket::serve(layout, Arc::clone(embedded), Arc::clone(&held), stop.clone())?;
    }
    let store = opened.store;
    let shared = store.is_shared();

    let namespace = node_namespace(layout).await?;
    let server = ApiServer::open(
        apiserver::Config {
            folder: layout.pki(),
            advertise: SocketAddr::new(IpAddr::V4(NODE_ADDRESS), ports::API_SERVER),
            service_cidr: ranges::SERVICE_CIDR.into(),
            dns_address: ranges::DNS_SERVICE_IP.parse().context("the DNS address")?,
            node_client: credentials.node_client.clone(),
            authority: credentials.authority.clone(),
            dial: Arc::new(InNamespace(namespace.clone())),
            authentication: authentication(&options.authentication)?,
            requests: requests(&options.requests),
            audit: audit::settings(&options.audit),
            encryption: apiserver::cipher::Settings {
                configuration_file: options.encryption.encryption_provider_config.clone(),
                reload: options.encryption.encryption_provider_config_automatic_reload,
                ..Default::default()
            },
        },
        store,
    )
    .await?;
    held.get_or_init(|| server.clone());
    let tls = server.tls(&credentials.serving)?;
    let inside = namespace.listen_tcp(SocketAddr::new(IpAddr::V4(NODE_ADDRESS), ports::API_SERVER)).await?;
    tokio::spawn(serve(server.clone(), listener, Arc::clone(&tls), stop.clone()));
    tokio::spawn(serve(server.clone(), inside, tls, stop.clone()));
    tokio::spawn(Arc::clone(&credentials).keep(server.clone(), stop.clone()));
    run_file::write(layout, api_port)?;
    tracing::info!(api_port, elapsed_ms = started.elapsed().as_millis(), "the API is served");

    tokio::select! {
        () = server.settled() => {}
        () = stop.cancelled() => {
            run_file::remove(layout);
            return Ok(());
        }
    }
    let mut roles = JoinSet::new();
    cluster_roles(&options, &server, &credentials, shared, &stop, &mut roles);
    node_role(&options, &server, &credentials, namespace, &stop, &mut roles).await?;
    tracing::info!(elapsed_ms = started.elapsed().as_millis(), "all roles run");
    tokio::spawn(footprint::let_go(stop.clone()));
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        // A role ends only when it is told to: anything else is a fault that a restart may mend.
        Some(ended) = roles.join_next() => ended.map_err(anyhow::Error::from).and_then(|role| role),
    };
    stop.cancel();
    while let Some(ended) = roles.join_next().await {
        if let Err(error) = ended {
            tracing::warn!(%error, "a role ended badly");
        }
    }
    server.flush_audit().await;
    run_file::remove(layout);
    result
}

fn requests(options: &RequestOptions) -> RequestLimits {
    let default = RequestLimits::default();
    RequestLimits { seats: options.inflight(), timeout: options.request_timeout.unwrap_or(default.timeout) }
}

/// Whom the API server believes, as the options say.
fn authentication(options: &AuthenticationOptions) -> anyhow::Result<Authentication> {
    let request_header = match &options.requestheader_client_ca_file {
        None => None,
        Some(path) => {
            let authority = std::fs::read_to_string(path)
                .with_context(|| format!("--requestheader-client-ca-file: read {}", path.display()))?;
            let certificates = CertificateDer::pem_slice_iter(authority.as_bytes());
            if certificates.flatten().next().is_none() {
                bail!(
                    "--requestheader-client-ca-file: there is no certificate in {}, as PEM",
                    path.display()
                );
            }
            let mut header = RequestHeader {
                authority,
                allowed_names: options.requestheader_allowed_names.clone(),
                ..RequestHeader::default()
            };
            for (given, into) in [
                (&options.requestheader_username_headers, &mut header.username_headers),
                (&options.requestheader_uid_headers, &mut header.uid_headers),
                (&options.requestheader_group_headers, &mut header.group_headers),
                (&options.requestheader_extra_headers_prefix, &mut header.extra_prefixes),
            ] {
                if !given.is_empty() {
                    into.clone_from(given);
                }
            }
            Some(header)
        }
    };
    Ok(Authentication {
        configuration_file: options.authentication_config.clone(),
        token_webhook_file: options.authentication_token_webhook_config_file.clone(),
        request_header,
    })
}

type Work = BoxFuture<'static, anyhow::Result<()>>;

/// Controllers, scheduler and GitOps, each as a user of its own. Where other servers may be on the store too, each is
/// at work on one of them, as a lease says. Where there are none all work for as long as the server is there, and have
/// their caches in common, which the controllers' user reads, who may read everything there is a controller for.
fn cluster_roles(
    options: &ServerOptions,
    server: &ApiServer,
    credentials: &Credentials,
    shared: bool,
    stop: &CancellationToken,
    roles: &mut JoinSet<anyhow::Result<()>>,
) {
    let layout = &options.layout;
    let identity = format!("{}_{}", options.node_name, base::id::uuid());
    let common = Identity::component("kube-controller-manager");
    let common = (!shared).then(|| caches_of(server, common, stop.clone()));
    let mut start = |who: &'static str,
                     lease: &'static str,
                     work: Box<dyn Fn(Caches, CancellationToken) -> Work + Send + Sync>| {
        let client = client_of(server, Identity::component(who));
        let with_caches = {
            let (server, client, common) = (server.clone(), client.clone(), common.clone());
            move |turn: CancellationToken| {
                let caches = match &common {
                    Some(common) => common.acting_by(client.clone()),
                    None => caches_of(&server, Identity::component(who), turn.clone()),
                };
                work(caches, turn)
            }
        };
        let (stop, identity) = (stop.clone(), identity.clone());
        roles.spawn(async move {
            match shared {
                true => lead(Candidate { client, name: lease, identity }, stop, with_caches).await,
                false => with_caches(stop).await,
            }
        });
    };
    let config = controllers::Config {
        cluster_ca_pem: credentials.authority.clone(),
        volumes_dir: layout.volumes(),
        signer: credentials.signer(),
        tokens: credentials::token_signer(server),
    };
    start(
        "kube-controller-manager",
        "kube-controller-manager",
        Box::new(move |caches, turn| {
            let controllers = controllers::run(caches, config.clone(), turn);
            Box::pin(async move {
                controllers.await;
                Ok(())
            })
        }),
    );
    start(
        "kube-scheduler",
        "kube-scheduler",
        Box::new(|caches, turn| {
            Box::pin(async move {
                scheduler::run(caches, turn).await;
                Ok(())
            })
        }),
    );
    let folder = layout.git();
    start(
        "gitops",
        "kedge-gitops",
        Box::new(move |caches, turn| {
            let config = gitops::Config { folder: folder.clone() };
            Box::pin(async move { Ok(gitops::run(caches, config, turn).await?) })
        }),
    );
}

/// The node's agent.
async fn node_role(
    options: &ServerOptions,
    server: &ApiServer,
    credentials: &Credentials,
    namespace: Namespace,
    stop: &CancellationToken,
    roles: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let layout = &options.layout;
    let who = Identity::new(format!("system:node:{}", options.node_name), &["system:nodes"]);
    let client = client_of(server, who);
    let runtime = OwnRuntime::new(layout.containers(), "/proc/self/exe", layout.cgroup_prefix()).await;
    let runtime = runtime.context("cannot look at the containers that are there")?;
    let images = ImageStore::open(layout.images()).context("cannot open the image store")?;
    let mut config = NodeConfig::new(
        &options.node_name,
        layout.cluster_id(),
        layout.node(),
        layout.runtime_dir(),
        namespace.clone(),
    );
    config.dns_upstreams = upstreams();
    let listener =
        namespace.listen_tcp(SocketAddr::new(IpAddr::V4(NODE_ADDRESS), config.server_port)).await?;
    let tls = node_tls(Arc::clone(&credentials.node_serving), &credentials.node_client_authority)?;
    let proxy = client_of(server, Identity::component("kube-proxy"));
    let publish = publish::start(namespace, client_of(server, Identity::component("service-publisher")));
    let stop = stop.clone();
    roles.spawn(async move {
        // It is a controller's to say which addresses its pods have.
        config.pod_range = tokio::select! {
            range = node::registration::join(&client, &config) => range,
            () = stop.cancelled() => return Ok(()),
        };
        let node = Node::new(config, client, proxy, Arc::new(runtime), Arc::new(images))?
            .with_server(node::agent::Listener { listener, tls })
            .with_load_balancers(publish);
        Ok(node.run(stop).await?)
    });
    Ok(())
}

/// The host's name servers, for names that are not the cluster's.
fn upstreams() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers =
        text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok());
    servers.take(3).map(|ip| SocketAddr::new(ip, ports::DNS)).collect()
}

/// A client of the server in this process.
fn client_of(server: &ApiServer, who: Identity) -> kube::Client {
    kube::Client::new(server.as_user(who), "default")
}

/// What somebody in this process knows of the cluster.
fn caches_of(server: &ApiServer, who: Identity, stop: CancellationToken) -> Caches {
    let reader = kube::Client::new(server.as_user(who.clone()).lean(), "default");
    Caches::new(client_of(server, who), stop).reading_by(reader)
}

/// The namespace the node lives in: the one that is there, or a new one.
async fn node_namespace(layout: &Layout) -> anyhow::Result<Namespace> {
    let path = layout.namespaces().join("node");
    let namespace = match Namespace::open(&path) {
        Ok(namespace) => namespace,
        Err(_) => Namespace::create(&path)?,
    };
    let network = net::node_network::NodeNetwork {
        address: NODE_ADDRESS,
        local_addresses: vec![ranges::DNS_SERVICE_IP.parse()?],
        attached_range: ranges::POD_CIDR.parse()?,
        virtual_range: ranges::SERVICE_CIDR.parse()?,
        mtu: net::node_network::DEFAULT_MTU,
    };
    network.apply(&namespace).await?;
    Ok(namespace)
}
