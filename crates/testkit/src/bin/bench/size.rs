//! Size of the binary, and the time of a clean release build.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Row;

pub fn run(executable: &Path) -> Vec<Row> {
    let ours = mib(executable);
    // What does the same work, each a program of its own; those that the machine has.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Vec<(&str, f64)> = ORIGINALS
        .into_iter()
        .filter_map(|name| {
            let file =
                std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())?;
            Some((name, mib(&file)))
        })
        .collect();
    let sum: f64 = found.iter().map(|(_, size)| size).sum();
    let beside = match found.as_slice() {
        [] => "none of the originals is installed".to_owned(),
        found => {
            let each: Vec<String> = found.iter().map(|(name, size)| format!("{name} {size:.0}")).collect();
            format!("{sum:.0} MiB: {}", each.join(", "))
        }
    };
    vec![Row::new("binary", format!("{ours:.1} MiB"), "", beside)]
}

const ORIGINALS: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "etcd",
    "containerd",
    "runc",
    "coredns",
];

fn mib(file: &Path) -> f64 {
    std::fs::metadata(file).map_or(0.0, |m| m.len() as f64 / f64::from(1 << 20))
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
