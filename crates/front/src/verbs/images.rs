//! `kedge images`: what is in the image store of this machine.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use image::ImageStore;

use crate::output;
use crate::session::Session;
use crate::table::TextTable;

/// List the images on this machine
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge images")]
pub struct Images {}

impl Images {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let folder = session.layout.images();
        if !folder.exists() {
            output::line("there are no images yet; `kedge build` makes one")?;
            return Ok(ExitCode::SUCCESS);
        }
        let store = ImageStore::open(&folder).context("cannot open the image store; it needs root")?;
        let mut table = TextTable::new(["IMAGE", "ID", "SIZE", "CREATED"]);
        for record in store.list()? {
            let id = record.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            let names = if record.tags.is_empty() { &record.digests } else { &record.tags };
            for name in names {
                let created = record.created.clone().unwrap_or_default();
                table.row([name.clone(), id.clone(), size(record.size_bytes), created]);
            }
        }
        output::text(&table.render())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `12.3MB`
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.2}GB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!([super::size(12), super::size(1500), super::size(2_340_000)], ["12B", "1.5kB", "2.3MB"]);
        assert_eq!(super::size(7_000_000_000), "7.00GB");
    }
}
