//! `kedge-shim-test shim --dir <directory>`: nothing but the shim.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("shim") => container::shim::main(arguments),
        _ => ExitCode::from(2),
    }
}
