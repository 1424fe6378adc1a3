//! Port-forward: for each connection the client opens an error stream and a data stream of one request id.

use std::collections::BTreeMap;

use net::namespace::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::session::StreamWriter;
use super::{STREAM_TYPE, Session, Stream};
use crate::server::port_forward::dial;

const CHUNK_BYTES: usize = 32 * 1024;
/// Error streams whose data stream has not come yet.
const HALVES_MAX: usize = 256;

/// Serves connections until the client is gone.
pub async fn serve(mut session: Session, network: Namespace) {
    let mut halves: BTreeMap<String, Stream> = BTreeMap::new();
    let mut connections = JoinSet::new();
    while let Some(stream) = session.next().await {
        while connections.try_join_next().is_some() {}
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let Some(other) = halves.remove(&id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(id, stream);
            }
            continue;
        };
        let (error, data) = match stream.header(STREAM_TYPE) {
            Some("data") => (other, stream),
            _ => (stream, other),
        };
        connections.spawn(connect(network.clone(), error, data));
    }
}

async fn connect(network: Namespace, error: Stream, data: Stream) {
    let port = data.header("port").and_then(|port| port.parse().ok());
    let dialled = match port {
        Some(port) => dial(&network, port).await,
        None => Err("the stream names no port".to_owned()),
    };
    let error = error.writer();
    match dialled {
        Ok(stream) => carry(stream, data).await,
        Err(message) => {
            error.write(message.as_bytes()).await;
            data.writer().finish().await;
        }
    }
    error.finish().await;
}

async fn carry(stream: TcpStream, mut data: Stream) {
    let (mut read, mut write) = stream.into_split();
    let writer: StreamWriter = data.writer();
    let inward = async {
        while let Some(bytes) = data.data.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The other side has heard all or is gone; it makes no difference here.
        drop(write.shutdown().await);
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if !writer.write(&buffer[..length]).await {
                return;
            }
        }
        writer.finish().await;
    };
    // When the pod has said its last, what the client still says has no hearer.
    tokio::select! {
        () = outward => {}
        () = async { inward.await; std::future::pending::<()>().await } => {}
    }
}
