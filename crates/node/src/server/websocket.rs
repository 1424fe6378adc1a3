//! The channels of `v4.channel.k8s.io` and `v5.channel.k8s.io`: the first byte of each message is a channel's number.

use bytes::Bytes;
use container::runtime::TerminalSize;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::exec::{Input, Output};

pub const V5: &str = "v5.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte says which channel has ended.
const CLOSE: u8 = 255;
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So long the first output waits for a client that does not answer a ping.
const GREETING: std::time::Duration = std::time::Duration::from_millis(500);

pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

pub async fn open(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// A size as clients send it.
pub fn parse_size(json: &[u8]) -> Option<TerminalSize> {
    let size: Size = serde_json::from_slice(json).ok()?;
    Some(TerminalSize { width: size.width, height: size.height })
}

/// What a message means; `None` for what means nothing to us.
pub fn decode(message: &[u8]) -> Option<Input> {
    let (channel, data) = message.split_first()?;
    match *channel {
        STDIN => Some(Input::Stdin(Bytes::copy_from_slice(data))),
        RESIZE => parse_size(data).map(Input::Resize),
        CLOSE if data == [STDIN] => Some(Input::StdinClosed),
        _ => None,
    }
}

pub fn encode(output: &Output) -> Vec<u8> {
    let (channel, data): (u8, &[u8]) = match output {
        Output::Stdout(data) => (STDOUT, data),
        Output::Stderr(data) => (STDERR, data),
        Output::Status(data) => (ERROR, data),
    };
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    message
}

/// Carries a session over the socket until the session has said its last or the caller is gone.
///
/// Output waits until the client has answered a ping: kubectl opens its channels when it has the answer to its upgrade, and
/// throws away what comes for one that it has not opened yet. A command that is quick is quicker than that.
pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    inputs: mpsc::Sender<Input>,
    mut outputs: mpsc::Receiver<Output>,
) {
    let (mut sink, mut stream) = socket.split();
    let mut inputs = Some(inputs);
    if sink.send(Message::Ping(Bytes::new())).await.is_err() {
        return;
    }
    let mut listens = false;
    let mut greeting = std::pin::pin!(tokio::time::sleep(GREETING));
    loop {
        tokio::select! {
            () = &mut greeting, if !listens => listens = true,
            output = outputs.recv(), if listens => {
                let Some(output) = output else { break };
                if sink.send(Message::Binary(encode(&output).into())).await.is_err() {
                    return;
                }
            }
            message = stream.next() => match message {
                // Some clients send what is text as text.
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => {
                    listens = true;
                    let gone = match (&inputs, decode(&message.into_data())) {
                        (Some(inputs), Some(input)) => inputs.send(input).await.is_err(),
                        _ => false,
                    };
                    if gone {
                        inputs = None;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(Message::Pong(_))) => listens = true,
                Some(Ok(_)) => {}
            }
        }
    }
    // The session is over: say so, and wait for the other side to agree so that nothing sent is lost.
    // With the code of a normal end: clients take a close without one for a fault.
    let normal = CloseFrame { code: CloseCode::Normal, reason: Default::default() };
    if sink.send(Message::Close(Some(normal))).await.is_ok() {
        const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);
        let rest = async { while let Some(Ok(_)) = stream.next().await {} };
        // Whoever does not answer in time has had all there was.
        drop(tokio::time::timeout(FAREWELL, rest).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_waits_until_the_client_listens() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (server, mut client) = tokio::io::duplex(1024);
        let (inputs, _kept) = mpsc::channel(1);
        let (outputs, taken) = mpsc::channel(1);
        outputs.send(Output::Stdout(Bytes::from_static(b"x"))).await.expect("there is room");
        let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        let carried = tokio::spawn(carry(socket, inputs, taken));
        let mut head = [0; 2];
        client.read_exact(&mut head).await.expect("a frame");
        assert_eq!(head, [0x89, 0], "a ping comes first");
        let early = tokio::time::timeout(GREETING / 5, client.read_u8()).await;
        assert!(early.is_err(), "nothing comes before it is answered: {early:?}");
        // A pong, masked as a client's frames are.
        client.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.expect("sent");
        let mut frame = [0; 4];
        client.read_exact(&mut frame).await.expect("a frame");
        assert_eq!(frame, [0x82, 2, STDOUT, b'x']);
        drop((outputs, client));
        carried.await.expect("ends");
    }

    #[test]
    fn channels_are_numbered() {
        assert_eq!(decode(b"\0abc"), Some(Input::Stdin(Bytes::from_static(b"abc"))));
        assert_eq!(
            decode(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(Input::Resize(TerminalSize { width: 80, height: 24 }))
        );
        assert_eq!(decode(&[255, 0]), Some(Input::StdinClosed));
        for nothing in [&b""[..], b"\x01x", b"\x04{", &[255, 1], &[255]] {
            assert_eq!(decode(nothing), None, "{nothing:?}");
        }
        assert_eq!(encode(&Output::Stderr(Bytes::from_static(b"x"))), b"\x02x");
    }
}
