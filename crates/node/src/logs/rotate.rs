//! Keeping logs small: beyond a size the file is set aside and the runtime begins a new one.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;

use crate::pods::{Context, log_path};

pub const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Files kept of one run, the current one among them.
pub const LOG_FILES_MAX: usize = 5;
/// A size can only be looked at; a busy container may overshoot by what it writes in this time.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks at the logs of running containers for as long as it is polled.
pub async fn run(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for pod in context.directory.list() {
            for container in pod.containers.iter().filter(|container| container.running) {
                let Some(id) = &container.id else { continue };
                let path = pod.log_dir.join(log_path(&container.name, container.attempt));
                if !is_large(&path) {
                    continue;
                }
                if let Err(error) = set_aside(&path, Timestamp::now()) {
                    tracing::warn!(%error, path = %path.display(), "rotate a log");
                    continue;
                }
                if let Err(error) = context.runtime.reopen_log(id).await {
                    tracing::warn!(%error, %id, "reopen a log");
                }
            }
        }
    }
}

fn is_large(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX)
}

/// Renames the log by the time and removes the oldest ones.
fn set_aside(path: &Path, now: Timestamp) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(path, PathBuf::from(name))?;
    let mut old = set_aside_files(path);
    old.sort();
    let surplus = old.len().saturating_sub(LOG_FILES_MAX - 1);
    for file in &old[..surplus] {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// The rotated files of a log.
fn set_aside_files(path: &Path) -> Vec<PathBuf> {
    let mut prefix = path.file_name().map(OsString::from).unwrap_or_default();
    prefix.push(".");
    let prefix = prefix.to_string_lossy().into_owned();
    let entries = path.parent().and_then(|directory| fs::read_dir(directory).ok());
    let entries = entries.into_iter().flatten().flatten();
    entries.filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).map(|e| e.path()).collect()
}

/// Removes a run's log with all its rotated files; what is not there is as good as removed.
pub fn remove_all(path: &Path) {
    for file in set_aside_files(path).into_iter().chain([path.to_owned()]) {
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %file.display(), "remove a log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_files_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("0.log");
        for second in 0..8 {
            fs::write(&path, second.to_string()).expect("writes");
            set_aside(&path, Timestamp::from_second(1_700_000_000 + second).expect("in range"))
                .expect("rotates");
        }
        let mut kept: Vec<String> =
            set_aside_files(&path).iter().map(|file| fs::read_to_string(file).expect("reads")).collect();
        kept.sort();
        assert_eq!(kept, ["4", "5", "6", "7"]);
        remove_all(&path);
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 0);
    }
}
