//! Notices at once when a branch of a repository on this machine moves: the kernel tells which files of its `refs`
//! were renamed into place. What the kernel does not tell (a network file system) the interval finds.

use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// Calls `changed` whenever a reference of the repository may have moved, until stopped.
pub async fn watch(repository: PathBuf, changed: impl Fn() + Send + 'static, stop: CancellationToken) {
    match follow(&repository, &changed, &stop).await {
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(%error, path = %repository.display(), "cannot watch the repository; its interval must do")
        }
    }
}

async fn follow(
    repository: &Path,
    changed: &(impl Fn() + Send),
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let git = match repository.join(".git") {
        inner if inner.is_dir() => inner,
        _ => repository.to_owned(),
    };
    let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
    let descriptor = inotify::init(flags)?;
    // SAFETY: the descriptor is owned by what it is given to, and so stays open and the same until that is dropped.
    let watcher = unsafe { AsyncFd::register(descriptor) }?;
    add_folders(watcher.get_ref(), &git)?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    loop {
        let mut ready = tokio::select! {
            ready = watcher.readable() => ready?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut reader = inotify::Reader::new(watcher.get_ref(), &mut buffer);
        let mut moved = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name =
                        event.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                    moved |= !name.ends_with(".lock");
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        if moved {
            // A branch with a slash in its name brings a folder of its own.
            add_folders(watcher.get_ref(), &git)?;
            changed();
        }
    }
}

/// `refs/heads` and `refs/tags` with all below, and the folder that holds `packed-refs`.
fn add_folders(watcher: &std::os::fd::OwnedFd, git: &Path) -> std::io::Result<()> {
    use inotify::WatchFlags as W;
    let wanted = W::MOVED_TO | W::CREATE | W::CLOSE_WRITE | W::DELETE;
    inotify::add_watch(watcher, git, W::MOVED_TO)?;
    let mut folders = vec![git.join("refs/heads"), git.join("refs/tags")];
    while let Some(folder) = folders.pop() {
        if !folder.is_dir() {
            continue;
        }
        inotify::add_watch(watcher, &folder, wanted)?;
        let entries = std::fs::read_dir(&folder)?.filter_map(Result::ok);
        folders.extend(entries.map(|e| e.path()).filter(|p| p.is_dir()));
    }
    Ok(())
}
