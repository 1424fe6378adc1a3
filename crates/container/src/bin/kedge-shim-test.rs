//! For the tests: `shim --dir <directory>` is the shim, `agent <file>` an agent that starts one container and then only
//! waits, to be killed.

use std::path::PathBuf;
use std::process::ExitCode;

use container::own::OwnRuntime;
use container::runtime::{ContainerConfig, Runtime, SandboxConfig};

#[derive(serde::Deserialize)]
struct Task {
    state_dir: PathBuf,
    prefix: String,
    sandbox: SandboxConfig,
    container: ContainerConfig,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("shim"), Some(first)) => container::shim::main([first].into_iter().chain(arguments)),
        (Some("agent"), Some(file)) => match agent(&file) {
            Ok(never) => never,
            Err(error) => {
                base::tell!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn agent(file: &str) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Task { state_dir, prefix, sandbox, container } = serde_json::from_slice(&std::fs::read(file)?)?;
    let runtime = OwnRuntime::new(state_dir, "/proc/self/exe", prefix).await?;
    let sandbox = runtime.run_pod_sandbox(sandbox).await?;
    let container = runtime.create_container(&sandbox, container).await?;
    runtime.start_container(&container).await?;
    println!("started");
    std::future::pending().await
}
