//! How a running server gives out its state: a socket in the data directory that answers whoever connects with a
//! backup. The server alone can read its file consistently, and holds it locked. It is no way around the API's rights:
//! only the user whose process the server is may connect, and he may read the file itself.

use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::{Context, bail};
use base::layout::Layout;
use store::{Embedded, backup};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Before the backup itself.
const WELL: &str = "ok";
/// One backup at a time is enough, and bounds the work.
const AT_ONCE: usize = 1;

/// Answers until `stop`. The data directory's lock is held.
pub fn serve(layout: &Layout, store: Arc<Embedded>, stop: CancellationToken) -> anyhow::Result<()> {
    let path = layout.state_socket();
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", path.display()));
        }
        _ => {}
    }
    let listener = match UnixListener::bind(&path) {
        // A socket's path has at most a hundred letters or so. Everything else works without it.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            tracing::warn!(%error, path = %path.display(), "backups of the running server cannot be given out");
            return Ok(());
        }
        bound => bound.with_context(|| format!("cannot listen on {}", path.display()))?,
    };
    let turns = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    tokio::spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for a backup");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let (store, turns) = (Arc::clone(&store), Arc::clone(&turns));
            tokio::spawn(async move {
                let Ok(_turn) = turns.acquire().await else { return };
                if let Err(error) = answer(stream, &store).await {
                    tracing::warn!(%error, "a backup did not come to its end");
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, store: &Embedded) -> anyhow::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if stream.peer_cred()?.uid() != own {
        bail!("somebody else than the server's user asked for it");
    }
    let mut out = BufWriter::with_capacity(1 << 20, stream);
    match store.verify().await {
        Ok(_) => out.write_all(format!("{WELL}\n").as_bytes()).await?,
        Err(error) => {
            out.write_all(format!("{error}\n").as_bytes()).await?;
            out.flush().await?;
            return Err(error.into());
        }
    }
    let summary = backup::write(store, &mut out).await?;
    tracing::info!(revision = summary.revision, entries = summary.entries, "gave out a backup");
    Ok(())
}

/// The server's backup, if a server runs on the data directory.
pub async fn connect(layout: &Layout) -> anyhow::Result<Option<BufReader<UnixStream>>> {
    let path = layout.state_socket();
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", path.display())),
    };
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    let mut word = String::new();
    stream.read_line(&mut word).await.context("the server said nothing")?;
    match word.trim_end() {
        WELL => Ok(Some(stream)),
        "" => bail!("the server on {} refused; its log says why", layout.data_dir().display()),
        fault => bail!("{fault}"),
    }
}
