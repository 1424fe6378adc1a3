//! The client's side played by hand.

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use net::namespace::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::exec::{Wanted, carry};
use super::frame::{self, Frame};
use super::headers::HeaderWriter;
use super::*;
use crate::server::exec::{Input, Output};
use crate::server::upgrade::Upgrade;
use crate::server::websocket;

struct Client {
    connection: DuplexStream,
    headers: HeaderWriter,
}

impl Client {
    fn start() -> (Self, Session) {
        let (connection, server) = tokio::io::duplex(64 * 1024);
        (Self::on(connection), Session::start(server))
    }

    fn on(connection: DuplexStream) -> Self {
        Self { connection, headers: HeaderWriter::new().expect("a writer") }
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let block = self.headers.write(headers).expect("writes");
        self.connection.write_all(&frame::open(stream, &block, false)).await.expect("sends");
    }

    async fn send(&mut self, stream: u32, data: &[u8], fin: bool) {
        self.connection.write_all(&frame::data(stream, data, fin)).await.expect("sends");
    }

    /// All data of all streams until every one of `streams` has ended.
    async fn receive(&mut self, mut streams: Vec<u32>) -> Vec<(u32, String)> {
        let mut all: Vec<(u32, String)> = streams.iter().map(|id| (*id, String::new())).collect();
        while !streams.is_empty() {
            match frame::read(&mut self.connection).await.expect("reads").expect("a frame") {
                Frame::Data { stream, data, fin } => {
                    let text = String::from_utf8(data).expect("text");
                    all.iter_mut().filter(|(id, _)| *id == stream).for_each(|(_, all)| all.push_str(&text));
                    if fin {
                        streams.retain(|id| *id != stream);
                    }
                }
                Frame::Headers { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
        all
    }
}

/// The port of somebody who says again what is said.
async fn echo() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.expect("echoes");
            write.write_all(b"!").await.expect("writes");
        }
    });
    port
}

/// Two connections at once, the second to a port nobody listens at.
async fn check_forwarding(mut client: Client, port: u16) {
    let port = port.to_string();
    for (first, id, port) in [(1, "0", port.as_str()), (5, "1", "1")] {
        client.open(first, &[("streamType", "error"), ("port", port), ("requestID", id)]).await;
        client.send(first, b"", true).await;
        client.open(first + 2, &[("streamType", "data"), ("port", port), ("requestID", id)]).await;
    }
    client.send(3, b"hello", false).await;
    client.send(3, b" there", true).await;
    let said = client.receive(vec![1, 3, 5, 7]).await;
    assert_eq!((said[0].1.as_str(), said[1].1.as_str()), ("", "hello there!"));
    assert!(said[2].1.contains("failed to connect to localhost:1 inside"), "{said:?}");
}

#[tokio::test]
async fn connections_are_forwarded_and_refusals_told() {
    let port = echo().await;
    let (client, session) = Client::start();
    tokio::spawn(super::port_forward::serve(session, Namespace::host()));
    check_forwarding(client, port).await;
}

/// As clients do since v1.31, with nothing to fall back to: the frames in the messages of a WebSocket, wherever those part them.
#[tokio::test]
async fn connections_are_forwarded_through_a_websocket() {
    let port = echo().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
        let upgrade = Upgrade::of(request.headers(), &[TUNNEL_PROTOCOL], &[]).expect("a protocol in common");
        Ok::<_, std::convert::Infallible>(upgrade.accept(request, |upgraded| async move {
            let (stream, carrying) = through_websocket(websocket::open(upgraded).await);
            tokio::join!(carrying, super::port_forward::serve(Session::start(stream), Namespace::host()));
        }))
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    tokio::spawn(serving.with_upgrades());
    let mut request = "ws://localhost/portForward/n/p".into_client_request().expect("a request");
    let offered = HeaderValue::from_static("SPDY/3.1+portforward.k8s.io");
    request.headers_mut().insert("sec-websocket-protocol", offered.clone());
    let (socket, answer) = tokio_tungstenite::client_async(request, near).await.expect("switches");
    assert_eq!(answer.headers()["sec-websocket-protocol"], offered);
    let (mut sink, mut messages) = socket.split();
    let (connection, inner) = tokio::io::duplex(64 * 1024);
    let (mut read, mut write) = tokio::io::split(inner);
    tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Binary(data) = message {
                write.write_all(&data).await.expect("is heard");
            }
        }
    });
    tokio::spawn(async move {
        let mut piece = [0; 7];
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            sink.send(Message::Binary(piece[..length].to_vec().into())).await.expect("is heard");
        }
    });
    check_forwarding(Client::on(connection), port).await;
}

#[tokio::test]
async fn a_session_has_a_stream_each_way() {
    let (mut client, session) = Client::start();
    let (inputs, mut inputs_out) = mpsc::channel(4);
    let (outputs, outputs_out) = mpsc::channel(4);
    let wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
    let carrying = tokio::spawn(carry(session, wanted, inputs, outputs_out));
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamType", kind)]).await;
    }
    client.send(3, b"typed", true).await;
    assert_eq!(inputs_out.recv().await, Some(Input::Stdin("typed".into())));
    assert_eq!(inputs_out.recv().await, Some(Input::StdinClosed));
    for output in [Output::Stdout("out".into()), Output::Stderr("err".into()), Output::Status("{}".into())] {
        outputs.send(output).await.expect("listens");
    }
    drop(outputs);
    let said = client.receive(vec![1, 5, 7]).await;
    assert_eq!(said, [(1, "{}".into()), (5, "out".into()), (7, "err".into())]);
    drop(client);
    carrying.await.expect("ends");
}
