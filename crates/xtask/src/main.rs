//! The house tools: `cargo xtask <tool>`.

mod describe;
mod generate;
mod named;
mod run;
mod tidy;

const USAGE: &str = "usage: cargo xtask <tool>

  up [ARGS…]     build kedge and the example, then `kedge up` on it (ARGS go to `kedge up`)
  test           all that CI runs: formatting, lints, tidy, tests
  tidy           the rules of the repository alone
  bench [NAMES…] measure, beside the originals where they are installed
  generate <sources> [<definitions.json>]
                 write the facts table of the built-in types
  describe       write the descriptions of the built-in types, from the recorded answers of the original";

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((tool, rest)) if tool == "up" => run::up(rest),
        Some((tool, [])) if tool == "test" => run::test(),
        Some((tool, [])) if tool == "tidy" => tidy::run(),
        Some((tool, rest)) if tool == "bench" => run::bench(rest),
        Some((tool, rest)) if tool == "generate" => {
            println!("{}", generate::run(rest)?);
            Ok(())
        }
        Some((tool, [])) if matches!(tool.as_str(), "help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        Some((tool, [])) if tool == "describe" => {
            println!("{}", describe::run()?);
            Ok(())
        }
        // Not an error with a backtrace: whoever mistypes wants to know the tools.
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}
