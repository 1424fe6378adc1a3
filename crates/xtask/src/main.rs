//! The house tools: `cargo xtask <tool>`.

mod generate;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((tool, rest)) if tool == "generate" => println!("{}", generate::run(rest)?),
        _ => anyhow::bail!("usage: cargo xtask generate <sources> [<definitions.json>]"),
    }
    Ok(())
}
