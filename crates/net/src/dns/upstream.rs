//! Asking somebody else: the packet goes on as it came, with an identifier of our own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::name_of;
use crate::namespace::{Namespace, NamespaceError};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const MESSAGE_BYTES_MAX: usize = 65_535;

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("no upstream resolver is configured")]
    None,
    #[error("upstream {server}: {source}")]
    Io {
        server: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("upstream {0} did not answer")]
    Silent(SocketAddr),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// The resolvers foreign names go to, asked in turn until one answers.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub servers: Vec<SocketAddr>,
    /// Where they are asked from.
    pub namespace: Namespace,
}

impl Upstream {
    pub fn none() -> Self {
        Self { servers: Vec::new(), namespace: Namespace::host() }
    }

    /// Passes a packet on and returns the answer's bytes under the asker's identifier.
    pub async fn ask(&self, packet: &[u8], over_tcp: bool) -> Result<Vec<u8>, UpstreamError> {
        let mut last = UpstreamError::None;
        for server in &self.servers {
            let asked = async {
                if over_tcp {
                    self.ask_tcp(*server, packet).await
                } else {
                    self.ask_udp(*server, packet).await
                }
            };
            match timeout(ATTEMPT_TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = UpstreamError::Silent(*server),
            }
        }
        Err(last)
    }

    /// Resolves a name on behalf of an alias of ours.
    pub async fn resolve(&self, name: &str, kind: RecordType) -> Option<Message> {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name_of(name)?, kind));
        let packet = query.to_vec().ok()?;
        let answer = self.ask(&packet, false).await.ok()?;
        Message::from_vec(&answer).ok()
    }

    async fn ask_udp(&self, server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        let failed = |source| UpstreamError::Io { server, source };
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = self.namespace.bind_udp(any).await?;
        socket.connect(server).await.map_err(failed)?;
        // A fresh port and a fresh identifier for each question: guessing an answer takes both.
        let id: [u8; 2] = base::id::random_bytes();
        let mut question = packet.to_vec();
        question[..2].copy_from_slice(&id);
        socket.send(&question).await.map_err(failed)?;
        let mut answer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let length = socket.recv(&mut answer).await.map_err(failed)?;
            if length >= 12 && answer[..2] == id {
                answer.truncate(length);
                answer[..2].copy_from_slice(&packet[..2]);
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(&self, server: SocketAddr, packet: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        let failed = |source| UpstreamError::Io { server, source };
        let mut stream = self.namespace.connect_tcp(server).await?;
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await.map_err(failed)?;
        let length = stream.read_u16().await.map_err(failed)?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.map_err(failed)?;
        Ok(answer)
    }
}
