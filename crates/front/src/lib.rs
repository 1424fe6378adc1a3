//! The command line: what a person types, and what they see. It speaks to the cluster through the Kubernetes API alone
//! and to the server's process through three files of the data directory (`lock`, `run.json`, `server.log`), so that
//! every verb but `up`, `status` and `down` works on any cluster.
//!
//! One verb is one file below `verbs/`, and [`verbs`] holds the table of them.

mod application;
mod audit;
mod builds;
mod cli;
mod discovery;
mod duration;
mod explain;
mod follow;
mod kustomization;
mod output;
mod process;
mod progress;
mod project;
mod repository;
mod requests;
mod session;
mod store;
mod table;
mod tree;
mod troubles;
mod verbs;
mod world;

pub use audit::{AuditMode, AuditOptions};
pub use cli::{
    AuthenticationOptions, EncryptionOptions, Environment, Invocation, LogFormat, Request, RequestOptions,
    ServerOptions, parse, parse_from,
};
pub use store::{Secret, StoreOptions, StoreRequest, StoreVerb};
pub use verbs::{Verb, run};
