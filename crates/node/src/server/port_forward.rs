//! `/portForward/{namespace}/{pod}`: connections to ports inside the pod's own network.
//!
//! Over a WebSocket either in the older way, two channels a port (data, error) named by the query, or as a tunnel for
//! SPDY frames (see `spdy`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use net::namespace::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::query::Query;
use super::spdy::{self, Session};
use super::upgrade::Upgrade;
use super::websocket::{self, Channels, Socket, UNNAMED, V4, V4_TEXT};
use super::{Refusal, Reply};
use crate::pods::Context;

const QUEUE_MAX: usize = 16;
const CHUNK_BYTES: usize = 32 * 1024;
/// Ports one request may name.
const PORTS_MAX: usize = 64;

pub fn serve(
    context: &Arc<Context>,
    namespace: &str,
    pod: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    let entry = context.directory.get(namespace, pod);
    let entry = entry.ok_or_else(|| Refusal::not_found(format!("pod \"{pod}\" does not exist")))?;
    let not_running = || Refusal::internal(format!("pod \"{pod}\" is not running"));
    let network = entry.network.ok_or_else(not_running)?;
    let spoken = [spdy::TUNNEL_PROTOCOL, V4, V4_TEXT, UNNAMED];
    let upgrade = Upgrade::of(request.headers(), &spoken, &[spdy::PORT_FORWARD_PROTOCOL])?;
    let channels = match upgrade {
        Upgrade::WebSocket { protocol: spdy::TUNNEL_PROTOCOL, .. } => {
            return Ok(upgrade.accept(request, move |upgraded| async move {
                let (stream, carrying) = spdy::through_websocket(websocket::open(upgraded).await);
                let serving = spdy::port_forward::serve(Session::start(stream), network);
                tokio::join!(carrying, serving);
            }));
        }
        Upgrade::Spdy { .. } => {
            return Ok(upgrade.accept(request, move |upgraded| async move {
                spdy::port_forward::serve(Session::start(TokioIo::new(upgraded)), network).await;
            }));
        }
        Upgrade::WebSocket { protocol, .. } => Channels::of(protocol),
    };
    let ports: Vec<u16> = query.all("port").iter().filter_map(|port| port.parse().ok()).collect();
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(Refusal::bad_request("at least one and not too many ports are required"));
    }
    Ok(upgrade.accept(request, move |upgraded| async move {
        carry(websocket::open(upgraded).await, channels, network, &ports).await;
    }))
}

/// Dials a port of the pod as its own loopback sees it.
pub async fn dial(network: &Namespace, port: u16) -> Result<tokio::net::TcpStream, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    network.connect_tcp(address).await.map_err(|error| {
        format!("failed to connect to localhost:{port} inside the pod's network namespace: {error}")
    })
}

async fn carry(socket: Socket, channels: Channels, network: Namespace, ports: &[u16]) {
    let (mut sink, mut stream) = socket.split();
    let (outputs, mut outputs_out) = mpsc::channel::<Message>(QUEUE_MAX);
    let mut inputs: BTreeMap<u8, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut connections = tokio::task::JoinSet::new();
    for (index, port) in ports.iter().enumerate() {
        let Ok(channel) = u8::try_from(index * 2) else { return };
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        inputs.insert(channel, sender);
        for channel in [channel, channel + 1] {
            if sink.send(channels.message(channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let outputs = (channels, outputs.clone());
        connections.spawn(connect(network.clone(), *port, channel, receiver, outputs));
    }
    drop(outputs);
    loop {
        tokio::select! {
            output = outputs_out.recv() => {
                let Some(output) = output else { break };
                if sink.send(output).await.is_err() {
                    return;
                }
            }
            message = stream.next() => match message {
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => {
                    let data = message.into_data();
                    if let Some((channel, data)) = channels.split(&data)
                        && let Some(input) = inputs.get(&channel)
                        && input.send(data).await.is_err()
                    {
                        inputs.remove(&channel);
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    if let Err(error) = sink.send(Message::Close(None)).await {
        tracing::trace!(%error, "close a port-forward");
    }
}

async fn connect(
    network: Namespace,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Vec<u8>>,
    (channels, outputs): (Channels, mpsc::Sender<Message>),
) {
    let stream = match dial(&network, port).await {
        Ok(stream) => stream,
        Err(error) => {
            drop(outputs.send(channels.message(channel + 1, error.as_bytes())).await);
            return;
        }
    };
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        while let Some(data) = input.recv().await {
            if write.write_all(&data).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = read.read(&mut buffer).await {
        if outputs.send(channels.message(channel, &buffer[..length])).await.is_err() {
            break;
        }
    }
    writing.abort();
}
