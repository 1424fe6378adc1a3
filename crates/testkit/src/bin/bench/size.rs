//! Size of the binary, and the time of a clean release build.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Row;

pub fn run(executable: &Path) -> Vec<Row> {
    let bytes = std::fs::metadata(executable).map(|m| m.len()).unwrap_or(0);
    vec![Row::new("binary", format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)), "", "")]
}

pub fn build(_executable: &Path) -> Vec<Row> {
    let folder = std::env::temp_dir().join(format!("kedge-t-build-{}", std::process::id()));
    let started = Instant::now();
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--package", "kedge", "--target-dir"]).arg(&folder);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let took = started.elapsed();
    drop(std::fs::remove_dir_all(&folder));
    let shown = match status {
        Ok(status) if status.success() => format!("{:.0} s", took.as_secs_f64()),
        other => format!("failed: {other:?}"),
    };
    vec![Row::new("clean release build", shown, "", "")]
}
