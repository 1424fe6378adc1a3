//! The table of verbs. Each has a file with what may be typed (its `Args`), what it does (`run`), and examples.

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Request;
use crate::output::Paint;
use crate::session::Session;

macro_rules! verbs {
    ($($module:ident::$verb:ident,)*) => {
        $(mod $module;)*

        #[derive(Debug, Subcommand)]
        pub enum Verb {
            $($verb($module::$verb),)*
        }

        impl Verb {
            async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$verb(arguments) => arguments.run(session).await,)*
                }
            }
        }
    };
}

verbs! {
    up::Up,
    status::Status,
    reconcile::Reconcile,
    suspend::Suspend,
    resume::Resume,
    down::Down,
    get::Get,
    describe::Describe,
    apply::Apply,
    delete::Delete,
    logs::Logs,
    exec::Exec,
    build::Build,
    images::Images,
    kubeconfig::Kubeconfig,
    version::Version,
    completion::Completion,
}

/// Carries a verb out. Errors are told on standard error, with their causes and the next step.
pub async fn run(request: Request) -> ExitCode {
    // An error only says that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let Request { verb, globals, environment } = request;
    let session = Session::new(globals, environment);
    match verb.run(&session).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", Paint::stderr().bad("error:"));
            if base::disk::is_full(error.as_ref()) {
                eprintln!("{}", base::disk::remedy(session.layout.data_dir()));
            }
            ExitCode::FAILURE
        }
    }
}
