//! One connection: the streams the client opens come out of a queue, each with its own queue of data.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::frame::{self, Frame, FrameError};
use super::headers::{HeaderReader, HeaderWriter, Headers};

/// Streams that may be open at a time.
const STREAMS_MAX: usize = 512;
/// Frames that may wait for their reader. There is no flow control: a full queue holds up the whole connection.
const FRAMES_MAX: usize = 64;
const REFUSED_STREAM: u32 = 3;
const DATA_BYTES_MAX: usize = 32 * 1024;

/// A stream the client opened. Dropping it does not close it: say `finish`.
pub struct Stream {
    headers: Headers,
    /// Data as it comes; ends when the client has finished its side.
    pub data: mpsc::Receiver<Vec<u8>>,
    writer: StreamWriter,
}

/// The writing side of a stream.
#[derive(Clone)]
pub struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

impl Stream {
    /// By its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn writer(&self) -> StreamWriter {
        self.writer.clone()
    }
}

impl StreamWriter {
    /// False: the connection is gone.
    pub async fn write(&self, data: &[u8]) -> bool {
        for chunk in data.chunks(DATA_BYTES_MAX) {
            if self.frames.send(frame::data(self.id, chunk, false)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends our side of the stream.
    pub async fn finish(&self) -> bool {
        self.frames.send(frame::data(self.id, &[], true)).await.is_ok()
    }
}

/// A connection; dropping it closes it.
pub struct Session {
    streams: mpsc::Receiver<Stream>,
    tasks: JoinSet<()>,
}

impl Session {
    pub fn start<S>(connection: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, mut write) = tokio::io::split(connection);
        let (frames, mut frames_out) = mpsc::channel::<Vec<u8>>(FRAMES_MAX);
        let (streams, streams_out) = mpsc::channel(STREAMS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(frame) = frames_out.recv().await {
                if write.write_all(&frame).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            if let Err(error) = receive(read, frames, streams).await {
                tracing::debug!(%error, "SPDY connection");
            }
        });
        Self { streams: streams_out, tasks }
    }

    /// The next stream; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Lets what is queued go out, then closes. Every writer must be gone, else this waits for it.
    pub async fn close(mut self) {
        const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
        drop(self.streams);
        let ends = async { while self.tasks.join_next().await.is_some() {} };
        // A client that does not leave in time is left.
        drop(tokio::time::timeout(FAREWELL, ends).await);
    }
}

async fn receive(
    mut from: impl AsyncRead + Unpin,
    frames: mpsc::Sender<Vec<u8>>,
    streams: mpsc::Sender<Stream>,
) -> Result<(), FrameError> {
    let (mut reader, mut writer) = (HeaderReader::new(), HeaderWriter::new()?);
    let mut open: BTreeMap<u32, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    while let Some(frame) = frame::read(&mut from).await? {
        let answer = match frame {
            Frame::Open { stream: id, block, fin } => {
                let headers = reader.read(&block)?;
                open.retain(|_, data| !data.is_closed());
                if open.len() >= STREAMS_MAX {
                    Some(frame::reset(id, REFUSED_STREAM))
                } else {
                    let (data, data_out) = mpsc::channel(FRAMES_MAX);
                    if !fin {
                        open.insert(id, data);
                    }
                    let reply = frame::reply(id, &writer.write(&[])?);
                    if frames.send(reply).await.is_err() {
                        return Ok(());
                    }
                    let writer = StreamWriter { id, frames: frames.clone() };
                    if streams.send(Stream { headers, data: data_out, writer }).await.is_err() {
                        return Ok(());
                    }
                    None
                }
            }
            Frame::Data { stream, data, fin } => {
                if let Some(sender) = open.get(&stream)
                    && !data.is_empty()
                    && sender.send(data).await.is_err()
                {
                    open.remove(&stream);
                }
                if fin {
                    open.remove(&stream);
                }
                None
            }
            Frame::Reset { stream } => {
                open.remove(&stream);
                None
            }
            Frame::Headers { block } => {
                reader.read(&block)?;
                None
            }
            Frame::Ping { id } => Some(frame::ping(id)),
            Frame::GoAway => return Ok(()),
            Frame::Other => None,
        };
        if let Some(answer) = answer
            && frames.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_carry_data_both_ways() {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut session = Session::start(server);
        let mut headers = HeaderWriter::new().expect("a writer");
        let block = headers.write(&[("streamType", "data"), ("port", "80")]).expect("writes");
        client.write_all(&frame::open(1, &block, false)).await.expect("sends");
        client.write_all(&frame::data(1, b"question", true)).await.expect("sends");
        let mut stream = session.next().await.expect("a stream");
        assert_eq!((1, stream.header("streamtype"), stream.header("port")), (1, Some("data"), Some("80")));
        assert_eq!(stream.data.recv().await.as_deref(), Some(&b"question"[..]));
        assert_eq!(stream.data.recv().await, None);
        let writer = stream.writer();
        assert!(writer.write(b"answer").await && writer.finish().await);
        let mut replies = Vec::new();
        for _ in 0..3 {
            replies.push(frame::read(&mut client).await.expect("reads").expect("a frame"));
        }
        assert!(matches!(replies[0], Frame::Headers { .. }));
        assert_eq!(replies[1], Frame::Data { stream: 1, data: b"answer".to_vec(), fin: false });
        assert_eq!(replies[2], Frame::Data { stream: 1, data: vec![], fin: true });
    }
}
