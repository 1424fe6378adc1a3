//! Whole pods on a whole node: the real runtime, the real network, the real image store; only the API is a stand-in.

mod api;
mod scenarios;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("shim") {
        // This is the program the runtime re-executes, before any thread is started.
        return container::shim::main(arguments);
    }
    if first.as_deref() == Some("--list") {
        return ExitCode::SUCCESS;
    }
    let only = first.filter(|word| !word.starts_with('-'));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(scenarios::run(only.as_deref()));
    ExitCode::SUCCESS
}
