//! The one binary: every role of the server, the shim of each pod, and the command line. It reads the environment,
//! wires the crates together and holds no logic of its own.

mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "shim") {
        // Single-threaded from start to end: it forks containers.
        return container::shim::main(std::env::args().skip(2));
    }
    server::try_out()
}
