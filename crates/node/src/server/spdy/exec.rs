//! Exec and attach: the client opens a stream for each direction, `error` always among them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::session::StreamWriter;
use super::{STREAM_TYPE, Session, Stream};
use crate::server::exec::{Input, Output};
use crate::server::websocket::parse_size;

/// The client opens all its streams at once.
const OPENING_TIMEOUT: Duration = Duration::from_secs(30);

/// The streams a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("error", true),
            ("stdin", self.stdin),
            ("stdout", self.stdout),
            ("stderr", self.stderr && !self.tty),
            ("resize", self.tty),
        ];
        all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name)
    }
}

/// Carries a session until it has said its last or the client is gone.
pub async fn carry(
    mut session: Session,
    wanted: Wanted,
    inputs: mpsc::Sender<Input>,
    mut outputs: mpsc::Receiver<Output>,
) {
    let Ok(Some(mut streams)) = tokio::time::timeout(OPENING_TIMEOUT, collect(&mut session, wanted)).await
    else {
        return;
    };
    let mut feeders = tokio::task::JoinSet::new();
    if let Some(stdin) = streams.remove("stdin") {
        feeders.spawn(feed_stdin(stdin, inputs.clone()));
    }
    if let Some(resize) = streams.remove("resize") {
        feeders.spawn(feed_sizes(resize, inputs));
    }
    let writers: BTreeMap<&str, StreamWriter> =
        streams.iter().map(|(name, stream)| (name.as_str(), stream.writer())).collect();
    loop {
        let output = tokio::select! {
            output = outputs.recv() => output,
            // A stream after the last one means nothing to us; none means that the client is gone.
            stream = session.next() => match stream {
                Some(_) => continue,
                None => return,
            },
        };
        let Some(output) = output else { break };
        let (name, data) = match &output {
            Output::Stdout(data) => ("stdout", data),
            Output::Stderr(data) => ("stderr", data),
            Output::Status(data) => ("error", data),
        };
        if let Some(writer) = writers.get(name)
            && !writer.write(data).await
        {
            return;
        }
    }
    for writer in writers.values() {
        writer.finish().await;
    }
    drop(writers);
    drop(streams);
    feeders.shutdown().await;
    session.close().await;
}

async fn collect(session: &mut Session, wanted: Wanted) -> Option<BTreeMap<String, Stream>> {
    let mut streams = BTreeMap::new();
    while !wanted.names().all(|name| streams.contains_key(name)) {
        let stream = session.next().await?;
        let name = stream.header(STREAM_TYPE).unwrap_or_default().to_owned();
        streams.insert(name, stream);
    }
    Some(streams)
}

async fn feed_stdin(mut stream: Stream, inputs: mpsc::Sender<Input>) {
    while let Some(data) = stream.data.recv().await {
        if inputs.send(Input::Stdin(data.into())).await.is_err() {
            return;
        }
    }
    // A session that has ended needs no end of its input.
    drop(inputs.send(Input::StdinClosed).await);
}

/// Sizes come as JSON objects one after the other, a frame each.
async fn feed_sizes(mut stream: Stream, inputs: mpsc::Sender<Input>) {
    while let Some(data) = stream.data.recv().await {
        for line in data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Some(size) = parse_size(line)
                && inputs.send(Input::Resize(size)).await.is_err()
            {
                return;
            }
        }
    }
}
