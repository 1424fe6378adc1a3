//! What is said to a holder of keys: the three calls of `v2.KeyManagementService` over a Unix socket, each within the time
//! that was configured. A plugin that is being replaced is waited for so long; one that hangs costs so much and no more.

use std::collections::BTreeMap;
use std::time::Duration;

use grpc::{Channel, Fault, Peer};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::envelope::Source;

/// What a gRPC server may answer unless its client says otherwise; anything here is far shorter.
const MESSAGE_LIMIT_BYTES: usize = 4 << 20;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub struct StatusResponse {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub healthz: String,
    #[prost(string, tag = "3")]
    pub key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub annotations: BTreeMap<String, Vec<u8>>,
}

pub struct Plugin {
    /// Of the socket; `@` at the beginning is for a name without a file.
    path: String,
    timeout: Duration,
    channel: tokio::sync::Mutex<Option<Channel>>,
}

impl Plugin {
    pub fn new(path: &str, timeout: Duration) -> Self {
        Self { path: path.to_owned(), timeout, channel: Default::default() }
    }

    pub async fn status(&self) -> Result<StatusResponse, Fault> {
        self.call("Status", &StatusRequest {}).await
    }

    pub async fn encrypt(&self, plain: &[u8]) -> Result<EncryptResponse, Fault> {
        self.call("Encrypt", &EncryptRequest { plaintext: plain.to_vec(), uid: base::id::uuid() }).await
    }

    pub async fn decrypt(&self, source: &Source) -> Result<Vec<u8>, Fault> {
        let request = DecryptRequest {
            ciphertext: source.sealed.clone(),
            uid: base::id::uuid(),
            key_id: source.key_id.clone(),
            annotations: source.annotations.clone(),
        };
        let answer: DecryptResponse = self.call("Decrypt", &request).await?;
        Ok(answer.plaintext)
    }

    /// Asks until there is an answer or the time is over. Each of the calls may be made twice without harm.
    async fn call<A: Message, B: Message + Default>(&self, method: &str, request: &A) -> Result<B, Fault> {
        let end = Instant::now() + self.timeout;
        let mut fault = Fault::NotSent(format!("{} did not answer in time", self.path));
        loop {
            match tokio::time::timeout_at(end, self.attempt(method, request, end)).await {
                Ok(Err(other @ (Fault::NotSent(_) | Fault::Broken(_)))) => fault = other,
                Ok(answer) => return answer,
                Err(_) => return Err(fault),
            }
            if Instant::now() + PAUSE >= end {
                return Err(fault);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt<A: Message, B: Message + Default>(
        &self,
        method: &str,
        request: &A,
        end: Instant,
    ) -> Result<B, Fault> {
        let channel = self.channel().await?;
        let limit = end.saturating_duration_since(Instant::now());
        let path = format!("/v2.KeyManagementService/{method}");
        let answer = channel.unary(&path, request, &[], limit).await;
        if let Err(Fault::NotSent(_) | Fault::Broken(_)) = &answer {
            // What nothing came over is not used again.
            let mut held = self.channel.lock().await;
            if held.as_ref().is_some_and(|held| held.is_same(&channel)) {
                *held = None;
            }
        }
        answer
    }

    async fn channel(&self) -> Result<Channel, Fault> {
        let mut held = self.channel.lock().await;
        if let Some(channel) = held.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let place = match self.path.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => self.path.clone(),
        };
        let unreachable = |e: std::io::Error| Fault::NotSent(format!("dial unix {}: {e}", self.path));
        let stream = UnixStream::connect(place).await.map_err(unreachable)?;
        let peer = Peer {
            authority: "localhost".into(),
            secure: false,
            // Its servers end connections that are pinged more often than they expect.
            pings: false,
            message_limit_bytes: MESSAGE_LIMIT_BYTES,
        };
        let channel = Channel::new(stream, peer).await?;
        *held = Some(channel.clone());
        Ok(channel)
    }
}
