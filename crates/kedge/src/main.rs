//! The one binary: every role of the server, the shim of each pod, and the command line. It reads the environment,
//! wires the crates together and holds no logic of its own.

mod memory;
mod server;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use base::constants::variables;
use front::{Environment, Invocation, LogFormat, Secret, ServerOptions, StoreOptions};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "shim") {
        // Single-threaded from start to end: it forks containers.
        return container::shim::main(std::env::args().skip(2));
    }
    // One provider of cryptography for all: the clients of registries and Git servers ask for the default.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        base::tell!("kedge: another provider of cryptography is installed already");
        return ExitCode::FAILURE;
    }
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let environment = Environment {
        data_dir: path(variables::DATA_DIR).map(PathBuf::from),
        kubeconfig: path(variables::KUBECONFIG),
        home: path("HOME").map(PathBuf::from),
        store: StoreOptions {
            address: text(variables::STORE),
            authority: path(variables::STORE_CA).map(PathBuf::from),
            certificate: path(variables::STORE_CERT).map(PathBuf::from),
            key: path(variables::STORE_KEY).map(PathBuf::from),
            user: text(variables::STORE_USER),
            password: text(variables::STORE_PASSWORD).map(Secret),
            password_file: None,
        },
        end_containers: server::end::containers,
        stop_containers: server::purge::stop_containers,
        purge: server::purge::purge,
    };
    let invocation = front::parse(environment);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .on_thread_park(memory::tidy)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            base::tell!("kedge: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match invocation {
        Invocation::Server(options) => {
            log(&options);
            runtime.block_on(server::main(*options))
        }
        Invocation::Store(request) => runtime.block_on(store::main(*request)),
        Invocation::Verb(request) => {
            end_where_nothing_can_be_told();
            runtime.block_on(front::run(*request))
        }
    }
}

/// A verb whose words can be written nowhere ends as one that has failed; to say so there is no place either.
fn end_where_nothing_can_be_told() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |fault| {
        let words = fault.payload().downcast_ref::<String>();
        if words.is_some_and(|words| words.starts_with("failed printing to ")) {
            std::process::exit(1);
        }
        usual(fault);
    }));
}

/// Enough to keep the processors busy, few enough to idle small.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

fn log(options: &ServerOptions) {
    let filter =
        options.log.clone().or_else(|| std::env::var(variables::LOG).ok()).unwrap_or_else(|| "info".into());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        // Where a line cannot be written, neither can that it could not: the attempt would break the server off.
        .log_internal_errors(false);
    let subscriber = subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    match options.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}
