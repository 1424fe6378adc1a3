//! `kedge completion`: the script that teaches a shell our words.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::session::Session;
use crate::{cli, output};

/// Print the completion script of a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge completion bash > /etc/bash_completion.d/kedge
  kedge completion zsh > \"${fpath[1]}/_kedge\"
  kedge completion fish > ~/.config/fish/completions/kedge.fish")]
pub struct Completion {
    #[arg(value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

impl Completion {
    pub async fn run(self, _: &Session) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli::grammar(), "kedge", &mut script);
        output::bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
