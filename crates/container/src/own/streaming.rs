//! Commands in a container, and its own streams: what a shim hands over as descriptors becomes a session.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::Connection;
use super::runtime::OwnRuntime;
use super::session::Streams;
use crate::protocol::{Reply as Answer, Request};
use crate::runtime::{ExecRequest, ExecResult, ExecSession, ResizeHandle, Result, RuntimeError};

/// How long output may still come after a command has ended, from children it left behind.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(5);
const EXEC_OUTPUT_MAX_BYTES: u64 = 16 << 20;

impl OwnRuntime {
    async fn session(&self, id: &str, request: ExecRequest) -> Result<(Connection, Streams)> {
        let (sandbox, _) = self.locate(id)?;
        let (mut connection, reply) = sandbox.ask(Request::Exec { id: id.into(), exec: request }).await?;
        let streams =
            Streams::take(&mut connection, &reply).map_err(|error| RuntimeError::io("exec", id, error))?;
        Ok((connection, streams))
    }

    pub(super) async fn execute(&self, id: &str, request: ExecRequest) -> Result<ExecSession> {
        let (mut connection, streams) = self.session(id, request).await?;
        let id = id.to_owned();
        let resize = streams.resize_handle().unwrap_or_else(no_resize);
        let exit = Box::pin(async move { exit_code(&mut connection, &id).await });
        Ok(into_session(streams, resize, exit))
    }

    pub(super) async fn execute_to_end(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecResult> {
        let request = ExecRequest { command, stdout: true, stderr: true, ..ExecRequest::default() };
        let (mut connection, streams) = self.session(id, request).await?;
        let read = async { tokio::join!(collect(streams.stdout), collect(streams.stderr)) };
        let mut reading = std::pin::pin!(read);
        let limit = if timeout.is_zero() { Duration::MAX } else { timeout };
        let mut output = None;
        let run = async {
            let mut exit = std::pin::pin!(exit_code(&mut connection, id));
            loop {
                tokio::select! {
                    got = &mut reading, if output.is_none() => output = Some(got),
                    code = &mut exit => return code,
                }
            }
        };
        let Ok(code) = tokio::time::timeout(limit, run).await else {
            // The command may be gone by itself by now.
            connection.send(&Request::Kill).await.ok();
            let timeout_ms = timeout.as_millis() as u64;
            return Err(RuntimeError::Timeout { operation: "exec".into(), id: id.into(), timeout_ms });
        };
        let exit_code = code?;
        if output.is_none() {
            output = tokio::time::timeout(OUTPUT_TIMEOUT, reading).await.ok();
        }
        let (stdout, stderr) = output.unwrap_or_default();
        Ok(ExecResult { stdout, stderr, exit_code })
    }

    pub(super) async fn attach_to(&self, id: &str) -> Result<ExecSession> {
        let (sandbox, _) = self.locate(id)?;
        let (mut connection, reply) = sandbox.ask(Request::Attach { id: id.into() }).await?;
        let streams =
            Streams::take(&mut connection, &reply).map_err(|error| RuntimeError::io("attach", id, error))?;
        let owned = id.to_owned();
        let (for_resize, for_exit) = (sandbox.clone(), sandbox);
        let resize = match streams.terminal {
            false => no_resize(),
            true => {
                let id = owned.clone();
                ResizeHandle::new(move |size| {
                    let (sandbox, id) = (for_resize.clone(), id.clone());
                    Box::pin(async move { sandbox.ask(Request::Resize { id, size }).await.map(|_| ()) })
                })
            }
        };
        let exit = Box::pin(async move {
            let ended = for_exit.wait_for_exit(&owned, Duration::MAX).await;
            ended.map(|status| status.exit_code).ok_or_else(|| RuntimeError::container_not_found(&owned))
        });
        Ok(into_session(streams, resize, exit))
    }
}

fn no_resize() -> ResizeHandle {
    ResizeHandle::new(|_| Box::pin(async { Ok(()) }))
}

fn into_session(
    streams: Streams,
    resize: ResizeHandle,
    exit: futures::future::BoxFuture<'static, Result<i32>>,
) -> ExecSession {
    ExecSession {
        stdin: streams.stdin.map(|stream| Box::new(stream) as _),
        stdout: streams.stdout.map(|stream| Box::new(stream) as _),
        stderr: streams.stderr.map(|stream| Box::new(stream) as _),
        resize,
        exit,
    }
}

async fn exit_code(connection: &mut Connection, id: &str) -> Result<i32> {
    loop {
        match connection.receive().await {
            Ok(Some(Answer::Exited { exit_code })) => return Ok(exit_code),
            Ok(Some(_)) => {}
            Ok(None) => return Err(RuntimeError::io("exec", id, "the shim is gone")),
            Err(error) => return Err(RuntimeError::io("exec", id, error)),
        }
    }
}

/// To the end, keeping no more than the bound.
async fn collect(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let mut limited = (&mut stream).take(EXEC_OUTPUT_MAX_BYTES);
        // What was read before an error is still the output.
        limited.read_to_end(&mut kept).await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    }
    kept
}
