//! `kedge exec`: a command in a container, with the terminal if that is asked for.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::logs::{default_container, pods_of};
use crate::requests::explain;
use crate::session::Session;

/// Run a command in a container
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  kedge exec -n shop deploy/web -- env
  kedge exec -it store-0 -- sh
  echo hello | kedge exec -i store-0 -- cat")]
pub struct Exec {
    /// A pod, or a workload whose pods are meant: deploy/web
    pod: String,
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    tty: bool,
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let cluster = session.cluster().await?;
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        let found = pods_of(&cluster, &self.pod).await?;
        // Of a workload's pods one that runs, if any does.
        let running = found.iter().find(|pod| pod["status"]["phase"] == "Running");
        let pod = running.or(found.first()).with_context(|| format!("{} has no pods", self.pod))?;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let container = match &self.container {
            Some(container) => container.clone(),
            None => default_container(pod).context("the pod has no container")?,
        };
        let tty = self.tty && isatty(std::io::stdin());
        if self.tty && !tty {
            eprintln!("standard input is no terminal; going on without one");
        }
        let parameters = AttachParams::default()
            .stdin(self.stdin)
            .stdout(true)
            // A terminal has one stream for both.
            .stderr(!tty)
            .tty(tty)
            .container(container);
        let process = pods.exec(name, &self.command, &parameters).await.map_err(explain)?;
        let raw = if tty { Some(RawTerminal::enter()?) } else { None };
        let status = carry(process, self.stdin, tty).await;
        drop(raw);
        exit_code(status?)
    }
}

/// Of each read from standard input.
const CHUNK_BYTES: usize = 16 * 1024;

/// Carries all streams until the command has ended.
async fn carry(mut process: AttachedProcess, stdin: bool, tty: bool) -> anyhow::Result<Option<Status>> {
    let status = process.take_status().context("the command's status was asked for twice")?;
    if let (true, Some(mut writer)) = (stdin, process.stdin()) {
        let mut chunks = read_stdin();
        tokio::spawn(async move {
            while let Some(chunk) = chunks.recv().await {
                // The command may have ended: then nobody wants the rest.
                if writer.write_all(&chunk).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            // Its end is the end of the command's input.
            drop(writer.shutdown().await);
        });
    }
    if let (true, Some(mut sizes)) = (tty, process.terminal_size()) {
        let mut changed = signal(SignalKind::window_change()).context("cannot watch the terminal's size")?;
        tokio::spawn(async move {
            loop {
                let Ok(size) = tcgetwinsize(std::io::stdout()) else { return };
                let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                if futures::SinkExt::send(&mut sizes, size).await.is_err() || changed.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    let out = process.stdout();
    let err = process.stderr();
    let out = async move { if let Some(out) = out { copy(out, std::io::stdout()).await } else { Ok(()) } };
    let err = async move { if let Some(err) = err { copy(err, std::io::stderr()).await } else { Ok(()) } };
    let (out, err) = tokio::join!(out, err);
    out.and(err).context("cannot write what the command says")?;
    Ok(status.await)
}

async fn copy(mut from: impl AsyncReadExt + Unpin, mut to: impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
        }
    }
}

/// On a thread of its own that nobody waits for: a read from a terminal cannot be called off.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count) = stdin.read(&mut buffer) {
            if count == 0 || sender.blocking_send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Every key goes to the command; the terminal is as it was when this is dropped.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("cannot look at the terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).context("cannot change the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0) {
            eprintln!("the terminal could not be set back ({error}); type `reset`");
        }
    }
}

/// The command's own code.
fn exit_code(status: Option<Status>) -> anyhow::Result<ExitCode> {
    let Some(status) = status else { bail!("the connection broke before the command ended") };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    match code.and_then(|cause| cause.message.as_deref()?.parse::<u8>().ok()) {
        Some(code) => {
            // What could not even be executed says why; any other command has had its say.
            let why = status.message.unwrap_or_default();
            if let Some((_, why)) = why.split_once("exec: ") {
                eprintln!("exec: {why}");
            }
            // As kubectl says it.
            eprintln!("command terminated with exit code {code}");
            Ok(ExitCode::from(code))
        }
        None => bail!("{}", status.message.unwrap_or_else(|| "the command could not be run".into())),
    }
}
