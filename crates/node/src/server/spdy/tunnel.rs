//! A byte stream through the binary messages of a WebSocket.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::server::websocket::Socket;

const CHUNK_BYTES: usize = 32 * 1024;

/// The stream's end for whoever speaks through the socket, and the task that carries.
pub fn through_websocket(socket: Socket) -> (DuplexStream, impl Future<Output = ()> + Send) {
    let (ours, theirs) = tokio::io::duplex(2 * CHUNK_BYTES);
    (theirs, carry(socket, ours))
}

async fn carry(socket: Socket, stream: DuplexStream) {
    let (mut sink, mut messages) = socket.split();
    let (mut read, mut write) = tokio::io::split(stream);
    let inward = async {
        while let Some(Ok(message)) = messages.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Close(_) => break,
                _ => continue,
            };
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
        // The session reads the end of the stream.
        drop(write.shutdown().await);
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if sink.send(Message::Binary(buffer[..length].to_vec().into())).await.is_err() {
                return;
            }
        }
        drop(sink.send(Message::Close(None)).await);
    };
    tokio::join!(inward, outward);
}
