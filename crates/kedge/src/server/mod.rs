//! `kedge server`: all roles in one process, from an empty directory to a ready node.

mod credentials;
mod run_file;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use apiserver::auth::Identity;
use apiserver::http::serve::{serve, tls_config};
use apiserver::{ApiServer, Dial};
use base::constants::{ports, ranges};
use base::layout::Layout;
use client::kube;
use futures::future::BoxFuture;
use net::namespace::Namespace;
use store::{Embedded, EmbeddedOptions, Store};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use credentials::Credentials;

/// What `kedge server` was asked for.
pub struct Options {
    pub layout: Layout,
    /// On the host's loopback; 0 takes a free one the first time and keeps to it.
    pub api_port: u16,
    pub node_name: String,
}

/// The node's own address: the first of its range.
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);

struct InNamespace(Namespace);

impl Dial for InNamespace {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>> {
        let namespace = self.0.clone();
        Box::pin(async move { namespace.connect_tcp(address).await.map_err(std::io::Error::other) })
    }
}

/// Runs until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let layout = &options.layout;
    std::fs::create_dir_all(layout.data_dir())
        .with_context(|| format!("cannot make {}", layout.data_dir().display()))?;
    let _lock = run_file::lock(layout)?;
    let listener = run_file::listen(layout, options.api_port).await?;
    let api_port = listener.local_addr()?.port();
    let credentials = Credentials::open(layout, api_port, NODE_ADDRESS, &options.node_name)?;
    let store = Embedded::open(&layout.state(), EmbeddedOptions::default())?;
    let store: Arc<dyn Store> = Arc::new(store);

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
        },
        store,
    )
    .await?;
    let tls = tls_config(&credentials.serving, &credentials.authority)?;
    let inside = namespace.listen_tcp(SocketAddr::new(IpAddr::V4(NODE_ADDRESS), ports::API_SERVER)).await?;
    tokio::spawn(serve(server.clone(), listener, Arc::clone(&tls), stop.clone()));
    tokio::spawn(serve(server.clone(), inside, tls, stop.clone()));
    run_file::write(layout, api_port)?;
    tracing::info!(api_port, elapsed_ms = started.elapsed().as_millis(), "the API is served");

    stop.cancelled().await;
    run_file::remove(layout);
    Ok(())
}

/// A client of the server in this process.
fn client_of(server: &ApiServer, who: Identity) -> kube::Client {
    kube::Client::new(server.as_user(who), "default")
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

/// The roles that work through the API.
pub fn try_out() -> ExitCode {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let data_dir = std::env::args().nth(2).expect("a data dir");
    let options = Options { layout: Layout::new(data_dir), api_port: 0, node_name: "node-1".into() };
    match runtime.block_on(run(options, CancellationToken::new())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
