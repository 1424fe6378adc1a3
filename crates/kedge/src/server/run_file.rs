//! What keeps two servers off one data directory, and what tells the command line where a running one is.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base::layout::Layout;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// `run.json`: the command line reads it, nobody else.
#[derive(Debug, Serialize, Deserialize)]
struct RunFile {
    pid: u32,
    server: String,
    kubeconfig: PathBuf,
}

/// How long a server that was killed may take to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Held as long as the file is open; the kernel lets go of it when the process is gone, however it went.
pub async fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            bail!(
                "another server runs on {}; `kedge down` stops it, `--data-dir` starts one elsewhere",
                layout.data_dir().display()
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(file)
}

/// The port that was asked for; for 0 the one that this directory used before, else a free one.
pub async fn listen(layout: &Layout, asked: u16) -> anyhow::Result<TcpListener> {
    let remembered = layout.api_port();
    let before: Option<u16> =
        std::fs::read_to_string(&remembered).ok().and_then(|text| text.trim().parse().ok());
    let port = if asked == 0 { before.unwrap_or(0) } else { asked };
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address(port)).await.with_context(|| {
        format!(
            "cannot listen on 127.0.0.1:{port}; choose another port with `--api-port`, or 0 for a free one"
        )
    })?;
    std::fs::write(&remembered, listener.local_addr()?.port().to_string())
        .with_context(|| format!("cannot write {}", remembered.display()))?;
    Ok(listener)
}

pub fn write(layout: &Layout, api_port: u16) -> anyhow::Result<()> {
    let content = RunFile {
        pid: std::process::id(),
        server: format!("https://127.0.0.1:{api_port}"),
        kubeconfig: layout.kubeconfig(),
    };
    let path = layout.run_file();
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec_pretty(&content)?)
        .and_then(|()| std::fs::rename(&beside, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

pub fn remove(layout: &Layout) {
    if let Err(error) = std::fs::remove_file(layout.run_file()) {
        tracing::debug!(%error, "cannot remove the run file");
    }
}
