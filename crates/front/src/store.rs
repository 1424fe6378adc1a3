//! What may be typed of the store: where a server keeps its state, and `kedge store`. The binary carries it out, as it
//! alone knows both the store and the API server's keys.

use std::path::PathBuf;

use base::layout::Layout;
use clap::{Args, Subcommand};

/// Text that must not get into a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Which store, and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// `None`: a file in the data directory.
    pub address: Option<String>,
    pub authority: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StoreArguments {
    /// Where the state is kept: etcd://host:port[,host:port…][/prefix], etcds:// with TLS [default: $KEDGE_STORE or
    /// a file in the data directory]
    #[arg(long = "store", value_name = "ADDRESS", global = true)]
    address: Option<String>,
    /// The authority that etcd's certificate must be signed by [default: $KEDGE_STORE_CA or the machine's]
    #[arg(long = "store-ca", value_name = "FILE", global = true)]
    authority: Option<PathBuf>,
    /// Our certificate for etcd [default: $KEDGE_STORE_CERT]
    #[arg(long = "store-cert", value_name = "FILE", global = true)]
    certificate: Option<PathBuf>,
    /// Its key [default: $KEDGE_STORE_KEY]
    #[arg(long = "store-key", value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// Our name for etcd [default: $KEDGE_STORE_USER]
    #[arg(long = "store-user", value_name = "NAME", global = true)]
    user: Option<String>,
    /// A file with its password [default: what $KEDGE_STORE_PASSWORD is]
    #[arg(long = "store-password-file", value_name = "FILE", global = true)]
    password_file: Option<PathBuf>,
}

impl StoreArguments {
    /// What was typed, and the environment's where nothing was.
    pub(crate) fn over(self, environment: &StoreOptions) -> StoreOptions {
        let environment = environment.clone();
        StoreOptions {
            address: self.address.or(environment.address),
            authority: self.authority.or(environment.authority),
            certificate: self.certificate.or(environment.certificate),
            key: self.key.or(environment.key),
            user: self.user.or(environment.user),
            password: environment.password.filter(|_| self.password_file.is_none()),
            password_file: self.password_file.or(environment.password_file),
        }
    }
}

/// Back up, restore, check or move the cluster's state
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge store backup /backup/monday         of a running server as well
  kedge store restore /backup/monday
  kedge store check
  kedge store rotate-key
  kedge store migrate --from file --to etcd://127.0.0.1:2379             while the server runs, and
  kedge store migrate --from file --to etcd://127.0.0.1:2379 --update    once more when it has been stopped

Secrets stay encrypted in a backup: keep the data directory's folder `pki` with it. Servers that share an etcd share
that folder too: copy it before the second one starts.")]
pub(crate) struct StoreCommand {
    #[command(subcommand)]
    verb: StoreVerb,
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum StoreVerb {
    /// Write everything, as of one moment, to a file
    Backup {
        file: PathBuf,
        /// Also if the file is there already
        #[arg(long)]
        force: bool,
    },
    /// Put a backup into an empty store
    Restore {
        file: PathBuf,
        /// Also if the store is not empty: what it holds is set aside (a file) or deleted (in etcd)
        #[arg(long)]
        replace: bool,
    },
    /// Verify every checksum and that every object can be read: of the store, or of a backup
    Check { file: Option<PathBuf> },
    /// Give the running cluster a new encryption key, and seal everything with it; the old one is deleted when nothing
    /// needs it any more. Backups from before need the folder `pki` from before
    RotateKey,
    /// Copy everything from one store to another: `file` is that of the data directory
    Migrate {
        /// The store that everything is in: `file`, or an etcd as --store takes it
        #[arg(long, value_name = "STORE")]
        from: String,
        /// The store that it is to be in: `file`, or an etcd as --store takes it
        #[arg(long, value_name = "STORE")]
        to: String,
        /// Also if the target is not empty
        #[arg(long, conflicts_with = "update")]
        replace: bool,
        /// Write only what differs: run it once more, with the servers stopped, after a first time while they ran
        #[arg(long)]
        update: bool,
    },
}

/// `kedge store` with all it needs.
#[derive(Clone, Debug)]
pub struct StoreRequest {
    pub verb: StoreVerb,
    pub layout: Layout,
    pub store: StoreOptions,
}

impl StoreCommand {
    pub(crate) fn into_request(self, layout: Layout, environment: &StoreOptions) -> StoreRequest {
        StoreRequest { verb: self.verb, layout, store: self.store.over(environment) }
    }
}
