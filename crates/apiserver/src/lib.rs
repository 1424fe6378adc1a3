//! The API server: authentication, authorization, admission and one pipeline of verbs over the kinds table. All
//! access to the state goes through it, in-process clients included; nothing else touches the store.

mod admission;
mod aggregation;
mod allocate;
mod aside;
pub mod audit;
pub mod auth;
mod backend;
mod bootstrap;
mod catalog;
pub mod cipher;
mod claims;
mod conversion;
mod definitions;
mod discovery;
mod documents;
mod encoded;
mod fairness;
mod follow;
pub mod fuzzed;
mod health;
pub mod http;
mod metrics;
mod objects;
mod paths;
mod proxy;
mod recent;
mod reloaded;
mod room;
mod settle;
mod shared_keys;
mod table;
pub mod values;
mod verbs;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Method, Request, header};
use api::kinds::Kind;
use api::status::{ApiError, Resource};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use store::Store;
use tokio::net::TcpStream;

use admission::policies::Policies;
use admission::webhooks::{self, Hooks};
use aggregation::Aggregation;
use auth::Identity;
use auth::authentication::{Authentication, Authenticators};
use auth::certificates::{Credential, PkiError};
use auth::rbac::{Attributes, Snapshot};
use auth::tokens::Signer;
use catalog::Catalog;
use cipher::Cipher;
pub use fairness::RequestLimits;
use fairness::{Admitted, Fairness};
use http::accept::{Offer, Shape};
use http::body::Body;
use http::options;
use http::query::Query;
use http::request::{Asked, Target};
use http::respond::{self, Answer, Form};
use http::tls::{Doorkeeper, Serving};
use http::warnings::Warnings;
use objects::Objects;
use reloaded::Reloaded;

/// How the server reaches its nodes: they may live in a network namespace of their own.
pub trait Dial: Send + Sync + 'static {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, std::io::Result<TcpStream>>;
}

pub struct Config {
    /// Holds keys that must outlive the process.
    pub folder: PathBuf,
    /// Where pods find the server: the endpoint of the `kubernetes` service.
    pub advertise: SocketAddr,
    pub service_cidr: String,
    pub dns_address: IpAddr,
    /// With what it shows itself to nodes, and the authority that theirs are signed by.
    pub node_client: Credential,
    pub authority: String,
    pub dial: Arc<dyn Dial>,
    pub authentication: Authentication,
    pub requests: RequestLimits,
    pub audit: audit::Settings,
    pub encryption: cipher::Settings,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot prepare the first objects: {0}")]
    Bootstrap(ApiError),
    #[error(
        "the store belongs to servers with another {0}; copy the folder `pki` of one of them into this server's data directory"
    )]
    OtherKeys(String),
    #[error("authentication: {0}")]
    Authentication(String),
    #[error("encryption: {0}")]
    Encryption(#[from] cipher::OpenError),
    #[error("encryption: {0}")]
    Rotation(#[from] cipher::RotateError),
    #[error("audit: {0}")]
    Audit(String),
    #[error("the service range {0:?} is not a CIDR such as 10.43.0.0/16")]
    ServiceCidr(String),
}

/// A handle; clones share the server.
#[derive(Clone)]
pub struct ApiServer(Arc<Server>);

pub struct Server {
    objects: Objects,
    encoded: encoded::Encoded,
    catalog: Catalog,
    catalog_loading: tokio::sync::Mutex<()>,
    naming: definitions::Naming,
    signer: Signer,
    rbac: Reloaded<Snapshot>,
    hooks: Reloaded<Hooks>,
    policies: Reloaded<Policies>,
    aggregation: Aggregation,
    fairness: Arc<Fairness>,
    quotas: admission::QuotaTurns,
    addresses: allocate::Addresses,
    documents: documents::Documents,
    metrics: Arc<metrics::Metrics>,
    nodes: proxy::Nodes,
    /// What each node has to do with, and may therefore read.
    nodes_graph: auth::node::Follower,
    authenticators: Authenticators,
    legacy_uses: auth::legacy_tokens::Uses,
    doorkeeper: Doorkeeper,
    audit: Option<Arc<audit::Audit>>,
    /// Whether the cluster has what every cluster has, or what is in the way.
    settled: tokio::sync::watch::Sender<Result<(), String>>,
    config: Config,
}

/// One authorized request.
pub struct Context {
    pub who: Identity,
    pub query: Query,
    pub headers: HeaderMap,
    pub form: Form,
    pub target: Target,
    pub kind: Arc<Kind>,
    /// What the client is to be warned of, beside the answer.
    pub warnings: Mutex<Warnings>,
}

impl Context {
    fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().add(warnings);
    }

    fn resource(&self) -> Resource<'_> {
        self.kind.resource()
    }

    fn dry_run(&self) -> bool {
        self.query.get("dryRun") == Some("All")
    }

    /// Who writes, for field ownership: as the request says, or the program's name.
    fn manager(&self) -> String {
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
        self.query
            .get("fieldManager")
            .map_or_else(|| api::apply::managed::default_manager(agent), str::to_owned)
    }
}

impl ApiServer {
    /// Opens the server over a store and sees to what every cluster has.
    pub async fn open(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let cipher = Cipher::open(&config.folder.join("encryption.key"), &config.encryption)?;
        let signer = Signer::open(&config.folder.join("service-account.key"))?;
        if store.is_shared() {
            shared_keys::check(&*store, &config).await?;
        }
        let addresses = allocate::Addresses::new(&config.service_cidr)
            .ok_or_else(|| StartError::ServiceCidr(config.service_cidr.clone()))?;
        let nodes = proxy::Nodes::new(&config.node_client, &config.authority, Arc::clone(&config.dial))?;
        let aggregation = Aggregation::open(&config.folder)?;
        let settings = &config.authentication;
        let authenticators = Authenticators::open(settings).map_err(StartError::Authentication)?;
        let doorkeeper = Doorkeeper::new(&config.authority, settings.request_header.as_ref())?;
        let audit = audit::Audit::open(&config.audit).map_err(StartError::Audit)?;
        let server = Self(Arc::new(Server {
            objects: Objects::new(store, cipher),
            encoded: encoded::Encoded::default(),
            catalog: Catalog::default(),
            catalog_loading: tokio::sync::Mutex::default(),
            naming: definitions::Naming::default(),
            signer,
            rbac: Reloaded::default(),
            hooks: Reloaded::default(),
            policies: Reloaded::default(),
            aggregation,
            fairness: Fairness::new(&config.requests),
            quotas: admission::QuotaTurns::default(),
            addresses,
            documents: documents::Documents::default(),
            metrics: Arc::default(),
            nodes,
            nodes_graph: Default::default(),
            authenticators,
            legacy_uses: Default::default(),
            doorkeeper,
            audit,
            settled: tokio::sync::watch::Sender::new(Err("not finished".into())),
            config,
        }));
        if let Some(audit) = &server.0.audit {
            audit.attach(&server.0);
        }
        server.0.objects.start_cipher().await;
        server.0.objects.finish_rotation().await?;
        settle::begin(&server).await?;
        Ok(server)
    }

    /// How it meets those who connect, showing them a certificate.
    pub fn tls(&self, serving: &Arc<Serving>) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        self.0.doorkeeper.tls(Arc::clone(serving))
    }

    /// Shows nodes another certificate from now on, and other servers a new one.
    pub fn renew(&self, node_client: &Credential) -> Result<(), PkiError> {
        self.0.nodes.replace(node_client)?;
        self.0.aggregation.renew()
    }

    /// Signs tokens with a new key from now on if the present one has served its time. Servers that share a store share
    /// their key, which none can replace for the others: there it stays.
    pub fn replace_old_key(&self) -> Result<(), PkiError> {
        match self.0.objects.store.is_shared() {
            true => Ok(()),
            false => self.0.signer.rotate_when_due(base::time::now().as_second()),
        }
    }

    /// Gives the cluster a new encryption key and seals everything with it.
    pub async fn rotate_encryption_key(&self) -> Result<cipher::Rotated, cipher::RotateError> {
        self.0.objects.rotate_key().await
    }

    /// Answers a request. `who` is what the transport proved (a client certificate, or a component in this process);
    /// without it the request's token decides.
    pub fn handle(&self, request: Request<Body>, who: Option<Identity>) -> BoxFuture<'static, Answer> {
        let server = self.clone();
        Box::pin(async move {
            let started = Instant::now();
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let form = respond::error_form(&request);
            let audit_id = respond::audit_id(request.headers());
            let query = Query::parse(request.uri().query().unwrap_or_default());
            let asked = Asked::parse(&method, &path, &query);
            let long = asked.is_long();
            let running = server.0.running(&request, &asked, &query);
            let trail = server.0.audit.as_ref().map(|audit| audit::Trail::begin(audit, &request, &audit_id));
            // A stream brings what it brings when it likes; anything else has to come.
            let request = if long { request } else { request.map(http::timely::timely) };
            let coming = server.admitted(request, (asked, query), who, (form, trail.clone()));
            let mut answer = audit::within(trail.clone(), coming).await;
            if let Some(trail) = trail {
                answer = trail.end(answer).await;
            }
            respond::finish(&mut answer, &audit_id);
            running.answered(answer.status(), started.elapsed());
            match long {
                true => answer = answer.map(|body| http::body::holding(body, running)),
                false => {
                    // Reading it may take as long as making it.
                    let until = Instant::now() + server.0.fairness.timeout;
                    answer.extensions_mut().insert(http::pace::Until(until));
                }
            }
            let elapsed_ms = started.elapsed().as_millis();
            tracing::debug!(%method, path, status = answer.status().as_u16(), elapsed_ms, "request");
            answer
        })
    }

    /// Lets a request in when it is its turn, and answers it.
    async fn admitted(
        &self,
        mut request: Request<Body>,
        (asked, query): (Asked, Query),
        who: Option<Identity>,
        (form, trail): (respond::Form, Option<Arc<audit::Trail>>),
    ) -> Answer {
        let refuse = move |error: ApiError| respond::error(form, &error);
        if who.is_none()
            && let Err(error) = http::websocket::take_token(&mut request)
        {
            return refuse(error);
        }
        let long = asked.is_long();
        let began = Instant::now();
        let limit = match http::timeout::of(&query, self.0.fairness.timeout) {
            Ok(limit) => limit,
            Err(_) if long => Duration::MAX,
            Err(error) => return refuse(error),
        };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let headers = request.headers().clone();
        let (admitted, held) = match self.0.admit((&method, &path, &headers), (asked, query), who, form).await
        {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let server = self.clone();
        let whose = room::Whose::of(&admitted.who);
        let answering = audit::within(trail.clone(), async move {
            let mut answer = server.0.answer(&server, request, admitted).await.unwrap_or_else(refuse);
            answer.extensions_mut().insert(whose);
            held.until_sent(answer)
        });
        let answering = aside::able(Some(whose), answering);
        // A write that has begun is brought to its end, whatever becomes of the one who asked: what follows it (rights,
        // kinds, addresses) must not be left out. What is audited is told of also when it fails badly.
        let reads = matches!(method, Method::GET | Method::HEAD);
        let answering = async move {
            if reads && trail.is_none() {
                return answering.await;
            }
            match tokio::spawn(answering).await {
                Ok(answer) => answer,
                Err(error) => {
                    if let Some(trail) = &trail {
                        trail.panicked().await;
                    }
                    refuse(ApiError::internal(error))
                }
            }
        };
        match long {
            true => answering.await,
            false => fairness::in_time(answering, limit.saturating_sub(began.elapsed()), form).await,
        }
    }
}

impl Server {
    async fn answer(
        &self,
        handle: &ApiServer,
        request: Request<Body>,
        admitted: Admitted,
    ) -> Result<Answer, ApiError> {
        let Admitted { who, warning, query, asked } = admitted;
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let what = asked.attributes(&method);
        let allowed = match paths::is_open(&path) {
            true => Ok(()),
            false => audit::timed(audit::Layer::Authorization, self.authorize(&who, &what)).await,
        };
        audit::decided(self, &who, &what, &allowed).await;
        allowed?;
        if let Asked::Resource(target) = &asked
            && matches!(target.subresource.as_str(), "exec" | "attach" | "portforward")
            && target.verb != "create"
        {
            // A WebSocket is opened by a GET, but what it opens is no reading.
            let what = Attributes { verb: "create".into(), ..asked.attributes(&method) };
            self.authorize(&who, &what).await?;
        }
        if let Asked::Path(path) = &asked
            && health::Probe::parse(path, &query).is_some()
        {
            // Answered also when nothing can be read any more: that is what it has to tell.
            return self.path(&method, path, &query, request.headers()).await;
        }
        let remotes = self.remotes().await?;
        if let Some(remote) = aggregation::asked(&remotes, &asked) {
            return self.pass_on(remote, &who, request).await;
        }
        match asked {
            Asked::Path(path) if aggregation::is_merged(&remotes, &path) => {
                let headers = aggregation::mergeable(request.headers());
                let own = self.path(&method, &path, &query, &headers).await;
                self.merged(&remotes, &path, own).await
            }
            Asked::Path(path) => self.path(&method, &path, &query, request.headers()).await,
            Asked::Resource(target) => {
                let kinds = self.catalog.snapshot();
                let Some(kind) = kinds.find(&target.group, &target.version, &target.plural) else {
                    let known = kinds.of_version(&target.group, &target.version).any(|k| k.custom.is_none());
                    return if known { Err(ApiError::no_such_path()) } else { Ok(respond::page_not_found()) };
                };
                let headers = request.headers().clone();
                let lean = request.extensions().get::<http::service::Lean>().is_some();
                let form = Form { lean, ..form(&target, kind, &query, &headers)? };
                options::check_write(target.verb, &query, is_apply(&headers))?;
                let streams = target.streams();
                let gzip = respond::accepts_gzip(&headers);
                let mut warnings = Warnings::default();
                warnings.add(warning.into_iter().map(str::to_owned));
                let warnings = Mutex::new(warnings);
                let context = Context { who, query, headers, form, target, kind: Arc::clone(kind), warnings };
                let answer = verbs::dispatch(handle, context, request).await?;
                Ok(if gzip && !streams && !audit::keeps_answer() {
                    respond::compressed(answer)
                } else {
                    answer
                })
            }
        }
    }

    /// Counts a request from now on.
    fn running(&self, request: &Request<Body>, asked: &Asked, query: &Query) -> metrics::Running {
        let dry_run = query.get("dryRun") == Some("All");
        let kinds = self.catalog.snapshot();
        let labels =
            metrics::Labels::of(asked, request.method(), &kinds, dry_run, is_apply(request.headers()));
        metrics::Running::begin(&self.metrics, labels)
    }

    async fn reload_catalog(&self) -> Result<(), ApiError> {
        // One at a time, from the reading on: an older list must not replace a newer one.
        let _loading = self.catalog_loading.lock().await;
        if self.catalog.snapshot().all().is_empty() {
            self.catalog.rebuild(&[]);
        }
        let kinds = self.catalog.snapshot();
        if let Some(kind) = kinds.by_kind("apiextensions.k8s.io", "CustomResourceDefinition") {
            self.catalog.rebuild(&self.objects.all(kind).await?);
        }
        Ok(())
    }

    /// Takes one definition as the store holds it now, whichever write was faster.
    async fn reload_definition(&self, kind: &Kind, name: &str) -> Result<(), ApiError> {
        let _loading = self.catalog_loading.lock().await;
        let definition = match self.objects.get(kind, "", name).await? {
            Some((_, value)) => Some(serde_json::from_value(value).map_err(ApiError::internal)?),
            None => None,
        };
        self.catalog.update(name, definition.as_ref());
        Ok(())
    }

    /// What other parts of the server must know of a write that has just been done.
    async fn after_write(&self, kind: &Kind, name: &str) {
        // What remote servers are reached through, where there are any.
        let leads_there =
            kind.group == "discovery.k8s.io" || kind.group.is_empty() && kind.plural == "services";
        if leads_there && self.remotes().await.is_ok_and(|remotes| !remotes.is_empty()) {
            self.aggregation.look();
        }
        match &*kind.group {
            api::kinds::RBAC_GROUP => self.rbac.outdate(),
            webhooks::GROUP => {
                self.hooks.outdate();
                self.policies.outdate();
            }
            aggregation::GROUP => {
                self.aggregation.remotes.outdate();
                self.aggregation.look();
            }
            bootstrap::flowcontrol::GROUP => self.fairness.outdate(),
            "apiextensions.k8s.io" => {
                if let Err(error) = self.reload_definition(kind, name).await {
                    tracing::error!(%error, name, "cannot reload a CustomResourceDefinition");
                }
                self.aggregation.look();
            }
            _ => {}
        }
    }
}

fn is_apply(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    content_type.is_some_and(|c| c.starts_with("application/apply-patch"))
}

/// What the answer is to be in. Streams and proxies decide their form themselves.
fn form(target: &Target, kind: &Kind, query: &Query, headers: &HeaderMap) -> Result<Form, ApiError> {
    if target.streams() {
        return Ok(Form::JSON);
    }
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let list = target.name.is_empty() && target.subresource.is_empty();
    let protobuf = kind.custom.is_none();
    let offer = Offer { protobuf, shapes: true, stream: target.verb == "watch", list, routed: protobuf };
    let form = Form::parse(text(header::ACCEPT), offer)?;
    if form.shape == Shape::Table {
        table::check_options(query)?;
    }
    Ok(form.with_pretty(query, text(header::USER_AGENT).unwrap_or_default()))
}
