//! The node as a whole: its parts are made here and run together.

use std::sync::Arc;

use container::runtime::{Runtime, RuntimeError};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use net::dns::{DnsConfig, DnsError, DnsServer, Records, Upstream};
use net::ipam::Allocator;
use net::namespace::{Namespace, NamespaceError};
use net::node_network::{NODE_LINK, NodeNetwork};
use net::rules::{Options, Rules, RulesError};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cache, ObjectWatches, PodStream};
use crate::config::NodeConfig;
use crate::events::Recorder;
use crate::images::Images;
use crate::machine::Capacity;
use crate::pods::{Context, Directory, PodManager};
use crate::services::{self, Publish};
use crate::{logs, registration, server};

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("make {}: {source}", path.display())]
    Directory {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the node's network: {0}")]
    Network(#[from] NamespaceError),
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error("look at what the runtime has: {0}")]
    Runtime(#[from] RuntimeError),
}

/// Where the node's server listens, and how it knows its callers.
pub struct Listener {
    pub listener: TcpListener,
    /// Verifies client certificates; whoever passes may do everything.
    pub tls: Arc<rustls::ServerConfig>,
}

pub struct Node {
    context: Arc<Context>,
    slices: Cache<EndpointSlice>,
    background: JoinSet<()>,
    listener: Option<Listener>,
    publish: Option<Publish>,
}

impl Node {
    /// `client` speaks as the node, which sees what its pods need; `proxy` as the one who makes services reachable, who
    /// sees all of them and where they end.
    pub fn new(
        config: NodeConfig,
        client: Client,
        proxy: Client,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn Images>,
    ) -> Result<Self, NodeError> {
        for path in [config.data_dir.join("pods"), config.data_dir.join("logs"), config.run_dir.join("netns")]
        {
            std::fs::create_dir_all(&path).map_err(|source| NodeError::Directory { path, source })?;
        }
        let mut background = JoinSet::new();
        let (events, writer) = Recorder::new(client.clone(), &config.name);
        background.spawn(writer);
        let (heavy, pulls) = Context::limits();
        // The first address of the range stays free, as a gateway's would be.
        let taken = [config.pod_range.nth(1)].into_iter().flatten();
        let context = Context {
            addresses: Mutex::new(Allocator::new(config.pod_range, taken)),
            capacity: Capacity::read(&config.data_dir),
            watches: ObjectWatches::new(client.clone()),
            services: Cache::default(),
            directory: Directory::default(),
            events,
            client,
            proxy,
            runtime,
            images,
            heavy,
            pulls,
            config,
        };
        Ok(Self {
            context: Arc::new(context),
            slices: Cache::default(),
            background,
            listener: None,
            publish: None,
        })
    }

    /// Serves logs, exec and the rest to the API server.
    pub fn with_server(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Is told which ports of load-balanced services should be reachable from the host.
    pub fn with_load_balancers(mut self, publish: Publish) -> Self {
        self.publish = Some(publish);
        self
    }

    /// Runs until `shutdown`. Containers go on without us; the next run finds them.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let context = self.context.clone();
        let config = &context.config;
        self.network().apply(&config.namespace).await?;
        let options = Options {
            node_addresses: vec![config.address],
            masquerade_from: Some(config.cluster_range),
            stray_link: Some(NODE_LINK.to_owned()),
        };
        let namespace = config.namespace.clone();
        let rules = tokio::task::spawn_blocking(move || Rules::open(&namespace, options))
            .await
            .expect("opening a socket does not panic")?;
        let dns = self.start_dns().await?;
        let manager = PodManager::new(context.clone()).await?;
        let background = &mut self.background;
        background.spawn(registration::run(context.clone()));
        background.spawn(context.services.clone().follow(Api::<Service>::all(context.client.clone())));
        background.spawn(self.slices.clone().follow(Api::<EndpointSlice>::all(context.proxy.clone())));
        let parts = services::Parts {
            slices: self.slices.clone(),
            rules,
            names: dns.publisher(),
            publish: self.publish.take(),
        };
        background.spawn(services::run(context.clone(), parts));
        background.spawn(logs::rotate::run(context.clone()));
        if let Some(Listener { listener, tls }) = self.listener.take() {
            background.spawn(server::run(context.clone(), listener, tls));
        }
        let pods = PodStream::start(context.client.clone(), &config.name);
        // Containers start with the variables of the services that exist, so those are known first.
        let mut services = context.services.changes();
        background.spawn(async move {
            if services.wait_for(|changes| *changes > 0).await.is_ok() {
                manager.run(pods).await;
            }
        });
        shutdown.cancelled().await;
        self.background.shutdown().await;
        Ok(())
    }

    fn network(&self) -> NodeNetwork {
        let config = &self.context.config;
        NodeNetwork {
            address: config.address,
            local_addresses: vec![config.dns_address],
            attached_range: config.pod_range,
            virtual_range: config.service_range,
            mtu: config.mtu,
        }
    }

    async fn start_dns(&self) -> Result<DnsServer, DnsError> {
        let config = &self.context.config;
        let dns = DnsConfig {
            address: (config.dns_address, base::constants::ports::DNS).into(),
            reverse_ranges: vec![config.service_range, config.cluster_range],
            upstream: Upstream { servers: config.dns_upstreams.clone(), namespace: Namespace::host() },
        };
        DnsServer::start(&config.namespace, dns, Records::new(&config.cluster_domain)).await
    }

    /// The pods of this node, for whoever serves them elsewhere.
    pub fn pods(&self) -> Directory {
        self.context.directory.clone()
    }
}
