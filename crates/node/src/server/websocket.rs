//! The channels of `v5.channel.k8s.io` and its forerunners: the first byte of each message is a channel's number. Those with
//! `base64` in their names are for who can send text alone: the number is a digit, and what follows is in base64. Before the
//! fourth version a command's end was told as text, and only where it went wrong; those are also spoken with who names no
//! protocol at all.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
pub const V4_TEXT: &str = "v4.base64.channel.k8s.io";
const OLD: &str = "channel.k8s.io";
const OLD_TEXT: &str = "base64.channel.k8s.io";
/// What is spoken with who names no protocol.
pub const UNNAMED: &str = "";

/// What exec and attach speak, best first.
pub const PROTOCOLS: [&str; 6] = [V5, V4, V4_TEXT, OLD, OLD_TEXT, UNNAMED];

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

/// How channels are written, by the name of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    text: bool,
    old: bool,
}

impl Channels {
    pub fn of(protocol: &str) -> Self {
        Self {
            text: matches!(protocol, V4_TEXT | OLD_TEXT),
            old: matches!(protocol, OLD | OLD_TEXT | UNNAMED),
        }
    }

    pub fn message(self, channel: u8, data: &[u8]) -> Message {
        if self.text {
            let mut text = String::from(char::from(b'0' + channel));
            STANDARD.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        Message::Binary(message.into())
    }

    /// The channel of a message and what came for it; `None` for what means nothing to us.
    pub fn split(self, message: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (channel, data) = message.split_first()?;
        match self.text {
            true => Some((channel.checked_sub(b'0')?, STANDARD.decode(data).ok()?)),
            false => Some((*channel, data.to_vec())),
        }
    }

    fn decode(self, message: &[u8]) -> Option<Input> {
        let (channel, data) = self.split(message)?;
        match channel {
            STDIN => Some(Input::Stdin(data.into())),
            RESIZE => parse_size(&data).map(Input::Resize),
            CLOSE if data == [STDIN] => Some(Input::StdinClosed),
            _ => None,
        }
    }

    /// `None` for what is not told in this protocol.
    fn encode(self, output: &Output) -> Option<Message> {
        match output {
            Output::Stdout(data) => Some(self.message(STDOUT, data)),
            Output::Stderr(data) => Some(self.message(STDERR, data)),
            Output::Status(data) if !self.old => Some(self.message(ERROR, data)),
            Output::Status(data) => {
                let status: serde_json::Value = serde_json::from_slice(data).ok()?;
                let message = (status["status"] != "Success").then(|| status["message"].as_str())??;
                Some(self.message(ERROR, message.as_bytes()))
            }
        }
    }
}

/// Carries a session over the socket until the session has said its last or the caller is gone.
///
/// Output waits until the client has answered a ping: kubectl opens its channels when it has the answer to its upgrade, and
/// throws away what comes for one that it has not opened yet. A command that is quick is quicker than that.
pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    channels: Channels,
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
                if let Some(message) = channels.encode(&output) && sink.send(message).await.is_err() {
                    return;
                }
            }
            message = stream.next() => match message {
                // Some clients send what is text as text.
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => {
                    listens = true;
                    let gone = match (&inputs, channels.decode(&message.into_data())) {
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
        let carried = tokio::spawn(carry(socket, Channels::of(V5), inputs, taken));
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
        let decode = |message: &[u8]| Channels::of(V4).decode(message);
        assert_eq!(decode(b"\0abc"), Some(Input::Stdin(Bytes::from_static(b"abc"))));
        assert_eq!(
            decode(b"\x04{\"Width\":80,\"Height\":24}"),
            Some(Input::Resize(TerminalSize { width: 80, height: 24 }))
        );
        assert_eq!(decode(&[255, 0]), Some(Input::StdinClosed));
        for nothing in [&b""[..], b"\x01x", b"\x04{", &[255, 1], &[255]] {
            assert_eq!(decode(nothing), None, "{nothing:?}");
        }
        let written = Channels::of(V5).encode(&Output::Stderr(Bytes::from_static(b"x")));
        assert_eq!(written, Some(Message::binary(&b"\x02x"[..])));
    }

    #[test]
    fn channels_of_text() {
        for protocol in [V4_TEXT, OLD_TEXT] {
            let channels = Channels::of(protocol);
            assert_eq!(channels.decode(b"0Zm9vCg=="), Some(Input::Stdin(Bytes::from_static(b"foo\n"))));
            let size = channels.decode(b"4eyJXaWR0aCI6ODAsIkhlaWdodCI6MjR9");
            assert_eq!(size, Some(Input::Resize(TerminalSize { width: 80, height: 24 })));
            for nothing in [&b""[..], b"0?", b"\0Zm9v", b"1Zm9v"] {
                assert_eq!(channels.decode(nothing), None, "{nothing:?}");
            }
            let written = channels.encode(&Output::Stdout(Bytes::from_static(b"\n")));
            assert_eq!(written, Some(Message::text("1Cg==")));
            assert_eq!(channels.encode(&Output::Stdout(Bytes::new())), Some(Message::text("1")));
        }
    }

    #[test]
    fn the_end_of_a_command() {
        let told = |protocol: &str, status: &'static str| {
            let message =
                Channels::of(protocol).encode(&Output::Status(Bytes::from_static(status.as_bytes())));
            message.map(|message| message.into_text().expect("text").to_string())
        };
        const WELL: &str = r#"{"status":"Success"}"#;
        const ILL: &str = r#"{"status":"Failure","message":"exit status 3"}"#;
        assert_eq!(told(V4, WELL).as_deref(), Some("\x03{\"status\":\"Success\"}"));
        for protocol in [OLD, UNNAMED] {
            assert_eq!(
                (told(protocol, WELL), told(protocol, ILL).as_deref()),
                (None, Some("\x03exit status 3"))
            );
        }
        assert_eq!(told(OLD_TEXT, ILL), Some(format!("3{}", STANDARD.encode("exit status 3"))));
    }
}
