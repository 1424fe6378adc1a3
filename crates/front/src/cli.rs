//! What may be typed. The environment is handed in: only the binary reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use base::constants::paths;
use base::layout::Layout;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::audit::AuditOptions;
use crate::store::{StoreArguments, StoreCommand, StoreOptions, StoreRequest};
use crate::verbs::Verb;

/// What the binary knows and this crate may not look for itself.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `$KEDGE_DATA_DIR`
    pub data_dir: Option<PathBuf>,
    /// `$KUBECONFIG`: files, separated by colons.
    pub kubeconfig: Option<OsString>,
    /// `$HOME`
    pub home: Option<PathBuf>,
    /// `$KEDGE_STORE` and those that begin so.
    pub store: StoreOptions,
    /// Asks the containers of a cluster whose server is gone to end, and waits for each for as long as its pod says, but no
    /// longer than the given time. Tells how many are left.
    pub end_containers: fn(Layout, Duration, watch::Sender<usize>) -> BoxFuture<'static, anyhow::Result<()>>,
    /// Kills every container of a cluster whose server is gone and takes its network away. The data stays.
    pub stop_containers: fn(&Layout) -> anyhow::Result<()>,
    /// The same, and deletes the data.
    pub purge: fn(&Layout) -> anyhow::Result<()>,
}

/// What the binary is to do.
#[derive(Debug)]
pub enum Invocation {
    Server(Box<ServerOptions>),
    Store(Box<StoreRequest>),
    Verb(Box<Request>),
}

/// `kedge server`.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub layout: Layout,
    /// On the host's loopback; 0 takes a free one the first time and keeps to it.
    pub api_port: u16,
    pub node_name: String,
    pub store: StoreOptions,
    /// A filter such as `info` or `warn,gitops=debug`; `None`: as the environment says, else `info`.
    pub log: Option<String>,
    pub log_format: LogFormat,
    pub authentication: AuthenticationOptions,
    pub requests: RequestOptions,
    pub audit: AuditOptions,
    pub encryption: EncryptionOptions,
}

/// How many requests the API answers at once. Named as kube-apiserver names them; fair shares of the sum are what
/// PriorityLevelConfigurations say.
#[derive(Args, Clone, Debug, Default)]
pub struct RequestOptions {
    /// Requests that read, answered at once [default, with the next: 50 for each processor, 100 to 600 in all]
    #[arg(long, value_name = "NUMBER", help_heading = "Requests")]
    pub max_requests_inflight: Option<u32>,
    /// Requests that write, answered at once
    #[arg(long, value_name = "NUMBER", help_heading = "Requests")]
    pub max_mutating_requests_inflight: Option<u32>,
    /// How long a request may take that is no stream [default: 1m]
    #[arg(long, value_name = "TIME", help_heading = "Requests", value_parser = crate::duration::parse)]
    pub request_timeout: Option<std::time::Duration>,
}

impl RequestOptions {
    /// Both together, where either is said; the other is kube-apiserver's default then.
    pub fn inflight(&self) -> Option<u32> {
        let (reads, writes) = (self.max_requests_inflight, self.max_mutating_requests_inflight);
        let said = reads.is_some() || writes.is_some();
        said.then(|| reads.unwrap_or(400).saturating_add(writes.unwrap_or(200)))
    }
}

/// Whom the API believes, beside its own certificates and tokens. Named as kube-apiserver names them.
#[derive(Args, Clone, Debug, Default)]
pub struct AuthenticationOptions {
    /// An AuthenticationConfiguration: issuers of tokens, and what nobody in particular may see
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub authentication_config: Option<PathBuf>,
    /// A kubeconfig that says which service knows tokens
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Signs the certificates of proxies that say in headers who asks
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of such proxies; none means all that the authority has signed
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_allowed_names: Vec<String>,
    /// [default: X-Remote-User]
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_username_headers: Vec<String>,
    /// [default: X-Remote-Uid]
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_uid_headers: Vec<String>,
    /// [default: X-Remote-Group]
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_group_headers: Vec<String>,
    /// [default: X-Remote-Extra-]
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// What is encrypted in the store, and how. Named as kube-apiserver names them.
#[derive(Args, Clone, Debug, Default)]
pub struct EncryptionOptions {
    /// An EncryptionConfiguration [default: Secrets, with a key made for the cluster]
    #[arg(long, value_name = "FILE", help_heading = "Encryption")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Take the file anew when it has changed
    #[arg(long, help_heading = "Encryption")]
    pub encryption_provider_config_automatic_reload: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// A verb with all it needs; `run` carries it out.
#[derive(Debug)]
pub struct Request {
    pub verb: Verb,
    pub(crate) globals: Globals,
    pub(crate) environment: Environment,
}

/// Kubernetes, containers, network and GitOps in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "kedge",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Examples:
  kedge up                      start a cluster and deploy the Git repository you are in
  kedge status                  what runs, from the commit to the pod
  kedge get pods -A             look around; kubectl works as well:
  KUBECONFIG=/var/lib/kedge/kubeconfig kubectl get pods -A
  kedge down --purge            remove every trace")]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// Where the cluster keeps everything [default: $KEDGE_DATA_DIR or /var/lib/kedge]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// How to reach the cluster [default: that of --data-dir, $KUBECONFIG, or that of the default data directory]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace to look in [default: the kubeconfig's]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Server(Box<ServerArguments>),
    Store(StoreCommand),
    #[command(flatten)]
    Verb(Verb),
}

/// Run all of the cluster's roles in the foreground; `kedge up` does it in the background
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge server --data-dir /var/lib/kedge
  kedge server --api-port 6443 --log warn,gitops=debug --log-format json
  kedge server --store etcds://10.0.0.1,10.0.0.2 --store-ca ca.pem --store-cert own.pem --store-key own.key")]
struct ServerArguments {
    /// The API's port on 127.0.0.1; 0 takes a free one the first time and keeps to it
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    api_port: u16,
    #[arg(long, value_name = "NAME", default_value = "node-1")]
    node_name: String,
    #[command(flatten)]
    store: StoreArguments,
    /// What to log, such as `info` or `warn,gitops=debug` [default: $KEDGE_LOG or info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    authentication: AuthenticationOptions,
    #[command(flatten)]
    requests: RequestOptions,
    #[command(flatten)]
    audit: AuditOptions,
    #[command(flatten)]
    encryption: EncryptionOptions,
}

/// Reads the process' arguments. Prints help and errors itself, and then ends the process.
pub fn parse(environment: Environment) -> Invocation {
    let cli = Cli::parse();
    cli.into_invocation(environment)
}

impl Cli {
    fn into_invocation(self, environment: Environment) -> Invocation {
        match self.command {
            Command::Server(arguments) => Invocation::Server(Box::new(ServerOptions {
                layout: layout(&self.globals, &environment),
                api_port: arguments.api_port,
                node_name: arguments.node_name,
                store: arguments.store.over(&environment.store),
                log: arguments.log,
                log_format: arguments.log_format,
                authentication: arguments.authentication,
                requests: arguments.requests,
                audit: arguments.audit,
                encryption: arguments.encryption,
            })),
            Command::Store(command) => Invocation::Store(Box::new(
                command.into_request(layout(&self.globals, &environment), &environment.store),
            )),
            Command::Verb(verb) => {
                Invocation::Verb(Box::new(Request { verb, globals: self.globals, environment }))
            }
        }
    }
}

/// The data directory, spelled in the one way its cluster's id follows from.
pub(crate) fn layout(globals: &Globals, environment: &Environment) -> Layout {
    let chosen = globals.data_dir.clone().or_else(|| environment.data_dir.clone());
    let chosen = chosen.unwrap_or_else(|| PathBuf::from(paths::DATA_DIR));
    let absolute = std::path::absolute(&chosen).unwrap_or(chosen);
    // Without `.` and a slash at the end; links stay as they are, so that a directory not there yet has its name too.
    Layout::new(absolute.components().collect::<PathBuf>())
}

/// The whole grammar, for completion scripts.
pub(crate) fn grammar() -> clap::Command {
    Cli::command()
}

/// Parses a line as the shell would hand it over.
pub fn parse_from<'a>(
    words: impl IntoIterator<Item = &'a str>,
    environment: Environment,
) -> Result<Invocation, clap::Error> {
    let matches = grammar().try_get_matches_from(words)?;
    Ok(Cli::from_arg_matches(&matches)?.into_invocation(environment))
}
