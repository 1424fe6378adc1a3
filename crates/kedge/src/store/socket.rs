//! How a running server gives out its state, and takes a new key for it: a socket in the data directory, where whoever
//! connects says in a line what he wants. The server alone can read its file consistently, and holds it locked. It is no way around the API's rights:
//! only the user whose process the server is may connect, and he may read the file itself.

use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use apiserver::ApiServer;
use base::layout::Layout;
use store::{Embedded, backup};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Before the backup itself, or what else was asked for.
const WELL: &str = "ok";
const BACKUP: &str = "backup";
const ROTATE_KEY: &str = "rotate-key";
/// Whoever connects says within this time, and in this much, what he wants.
const ASK_LIMIT: Duration = Duration::from_secs(10);
const ASK_LIMIT_BYTES: u64 = 64;

/// The API server, once there is one.
pub type Held = Arc<OnceLock<ApiServer>>;
/// One backup at a time is enough, and bounds the work.
const AT_ONCE: usize = 1;

/// Answers until `stop`. The data directory's lock is held.
pub fn serve(
    layout: &Layout,
    store: Arc<Embedded>,
    server: Held,
    stop: CancellationToken,
) -> anyhow::Result<()> {
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
            let (store, server, turns) = (Arc::clone(&store), Arc::clone(&server), Arc::clone(&turns));
            tokio::spawn(async move {
                let Ok(_turn) = turns.acquire().await else { return };
                if let Err(error) = answer(stream, &store, &server).await {
                    tracing::warn!(%error, "what was asked for over the socket did not come to its end");
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, store: &Embedded, server: &Held) -> anyhow::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if stream.peer_cred()?.uid() != own {
        bail!("somebody else than the server's user asked for it");
    }
    let (input, output) = stream.into_split();
    let mut word = String::new();
    let mut asked = BufReader::new(input.take(ASK_LIMIT_BYTES));
    tokio::time::timeout(ASK_LIMIT, asked.read_line(&mut word)).await??;
    let mut out = BufWriter::with_capacity(1 << 20, output);
    match (word.trim_end(), server.get()) {
        (BACKUP, _) => give_backup(store, &mut out).await,
        (ROTATE_KEY, Some(server)) => {
            let told = match server.rotate_encryption_key().await {
                Ok(done) => {
                    let secrets = match done.entries {
                        1 => "1 secret has".to_owned(),
                        many => format!("{many} secrets have"),
                    };
                    format!("{WELL}\n{secrets} a new key; old keys deleted: {}\n", done.keys)
                }
                Err(error) => format!("{error}\n"),
            };
            out.write_all(told.as_bytes()).await?;
            Ok(out.flush().await?)
        }
        (other, _) => {
            out.write_all(format!("the server cannot do {other:?} now\n").as_bytes()).await?;
            Ok(out.flush().await?)
        }
    }
}

async fn give_backup(store: &Embedded, mut out: &mut BufWriter<OwnedWriteHalf>) -> anyhow::Result<()> {
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
pub async fn backup(layout: &Layout) -> anyhow::Result<Option<BufReader<UnixStream>>> {
    ask(layout, BACKUP).await
}

/// Has the server that runs take a new key; what it says of that.
pub async fn rotate_key(layout: &Layout) -> anyhow::Result<String> {
    let Some(mut answer) = ask(layout, ROTATE_KEY).await? else {
        bail!("no server runs on {}: it alone can change the key", layout.data_dir().display());
    };
    let mut told = String::new();
    answer.read_line(&mut told).await.context("the server said nothing more")?;
    Ok(told.trim_end().to_owned())
}

async fn ask(layout: &Layout, what: &str) -> anyhow::Result<Option<BufReader<UnixStream>>> {
    let path = layout.state_socket();
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", path.display())),
    };
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    stream.write_all(format!("{what}\n").as_bytes()).await.context("the server does not listen")?;
    let mut word = String::new();
    stream.read_line(&mut word).await.context("the server said nothing")?;
    match word.trim_end() {
        WELL => Ok(Some(stream)),
        "" => bail!("the server on {} refused; its log says why", layout.data_dir().display()),
        fault => bail!("{fault}"),
    }
}
