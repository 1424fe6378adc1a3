//! `/exec` and `/attach`: a session of the runtime carried over whatever the caller switched to.

use std::sync::Arc;

use bytes::Bytes;
use container::runtime::{ExecRequest, ExecSession, RuntimeError, TerminalSize};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::query::Query;
use super::spdy::{self, Session, exec::Wanted};
use super::upgrade::Upgrade;
use super::websocket::{self, Channels, PROTOCOLS};
use super::{Refusal, Reply};
use crate::pods::Context;

/// Messages that may wait in either direction; then the faster side waits.
const QUEUE_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;

/// What comes from the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin(Bytes),
    StdinClosed,
    Resize(TerminalSize),
}

/// What goes to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// How it ended: a `Status` in JSON. The last of all.
    Status(Bytes),
}

type Target<'a> = (&'a str, &'a str, &'a str);

/// The running container a request is about.
fn running(context: &Context, (namespace, pod, container): Target<'_>) -> Result<String, Refusal> {
    let entry = context.directory.get(namespace, pod);
    let entry = entry.ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" does not exist")))?;
    let found = entry.containers.into_iter().find(|c| c.name == container);
    let missing = || Refusal::not_found(format!("container not found (\"{container}\")"));
    let found = found.ok_or_else(missing)?;
    if !found.running {
        return Err(Refusal::internal(format!("container \"{container}\" is not running")));
    }
    found.id.ok_or_else(missing)
}

fn streams(query: &Query) -> Wanted {
    Wanted {
        stdin: query.flag("input") || query.flag("stdin"),
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: query.flag("error") || query.flag("stderr"),
        tty: query.flag("tty"),
    }
}

pub async fn exec(
    context: &Arc<Context>,
    target: Target<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    let id = running(context, target)?;
    let streams = streams(query);
    let wanted = ExecRequest {
        command: query.all("command"),
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        size: None,
    };
    if wanted.command.is_empty() {
        return Err(Refusal::bad_request("you must specify a command"));
    }
    let upgrade = Upgrade::of(request.headers(), &PROTOCOLS, &[spdy::EXEC_PROTOCOL])?;
    let context = context.clone();
    Ok(accept(upgrade, streams, request, true, async move { context.runtime.exec(&id, wanted).await }))
}

pub async fn attach(
    context: &Arc<Context>,
    target: Target<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    let id = running(context, target)?;
    let upgrade = Upgrade::of(request.headers(), &PROTOCOLS, &[spdy::EXEC_PROTOCOL])?;
    let context = context.clone();
    Ok(accept(upgrade, streams(query), request, false, async move { context.runtime.attach(&id).await }))
}

/// `tells_exit`: whether the caller is told the exit code. One who attached is not, for the process is not its own.
fn accept(
    upgrade: Upgrade,
    streams: Wanted,
    request: Request<Incoming>,
    tells_exit: bool,
    session: impl Future<Output = Result<ExecSession, RuntimeError>> + Send + 'static,
) -> Reply {
    let tunnel = upgrade.clone();
    upgrade.accept(request, move |upgraded| async move {
        let (inputs, inputs_out) = mpsc::channel(QUEUE_MAX);
        let (outputs, outputs_out) = mpsc::channel(QUEUE_MAX);
        let run = tokio::spawn(async move {
            match session.await {
                Ok(session) => run_session(session, tells_exit, inputs_out, outputs).await,
                Err(error) => send(&outputs, Output::Status(failure(&error))).await,
            }
        });
        match tunnel {
            Upgrade::WebSocket { protocol, .. } => {
                let channels = Channels::of(protocol);
                websocket::carry(websocket::open(upgraded).await, channels, inputs, outputs_out).await;
            }
            Upgrade::Spdy { .. } => {
                let session = Session::start(TokioIo::new(upgraded));
                spdy::exec::carry(session, streams, inputs, outputs_out).await;
            }
        }
        // The caller is gone or has been told everything.
        run.abort();
    })
}

async fn send(outputs: &mpsc::Sender<Output>, output: Output) {
    if outputs.send(output).await.is_err() {
        tracing::trace!("nobody listens to a session any more");
    }
}

/// Carries the streams of a session until its process ends and everything it wrote has been handed on.
pub async fn run_session(
    session: ExecSession,
    tells_exit: bool,
    inputs: mpsc::Receiver<Input>,
    outputs: mpsc::Sender<Output>,
) {
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let typing = tokio::spawn(feed(stdin, resize, inputs));
    let out = pump(stdout, outputs.clone(), Output::Stdout);
    let err = pump(stderr, outputs.clone(), Output::Stderr);
    let ((), (), ended) = tokio::join!(out, err, exit);
    typing.abort();
    let status = match ended {
        Ok(code) if code == 0 || !tells_exit => success(),
        Ok(code) => exit_failure(code),
        Err(error) => failure(&error),
    };
    send(&outputs, Output::Status(status)).await;
}

async fn feed(
    mut stdin: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>,
    resize: container::runtime::ResizeHandle,
    mut inputs: mpsc::Receiver<Input>,
) {
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Stdin(data) => {
                if let Some(to) = &mut stdin
                    && (to.write_all(&data).await.is_err() || to.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Input::StdinClosed => {
                if let Some(mut closing) = stdin.take()
                    && let Err(error) = closing.shutdown().await
                {
                    tracing::trace!(%error, "close stdin");
                }
            }
            Input::Resize(size) => {
                if let Err(error) = resize.resize(size).await {
                    tracing::debug!(%error, "resize a terminal");
                }
            }
        }
    }
}

async fn pump(
    stream: Option<Box<dyn AsyncRead + Send + Unpin>>,
    outputs: mpsc::Sender<Output>,
    wrap: fn(Bytes) -> Output,
) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut buffer).await {
            // A terminal that is hung up reads as an error; either way there is no more.
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if outputs.send(wrap(Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn success() -> Bytes {
    json!({"metadata": {}, "status": "Success"}).to_string().into()
}

fn exit_failure(code: i32) -> Bytes {
    let message = format!("command terminated with non-zero exit code: exit status {code}");
    let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
        "details": {"causes": causes},
    })
    .to_string()
    .into()
}

fn failure(error: &RuntimeError) -> Bytes {
    // A command that could not be executed has an exit code too, as shells know it.
    if let RuntimeError::Exec { exit_code, message, .. } = error {
        let causes = json!([{"reason": "ExitCode", "message": exit_code.to_string()}]);
        let message = format!("command terminated with non-zero exit code: {message}");
        return json!({
            "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
            "details": {"causes": causes},
        })
        .to_string()
        .into();
    }
    let message = format!("Internal error occurred: error executing command in container: {error}");
    json!({
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
        "details": {"causes": [{"message": error.to_string()}]},
    })
    .to_string()
    .into()
}
