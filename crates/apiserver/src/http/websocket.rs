//! Watches over a WebSocket: each event a message. Browsers and older client libraries watch so.

use std::time::Duration;

use ::http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use ::http::{Request, Response, StatusCode};
use api::status::ApiError;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::body::{Body, full};
use super::respond::Answer;

/// Whoever only listens has nothing long to say.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
const FAREWELL: Duration = Duration::from_secs(5);

fn has_word<B>(request: &Request<B>, name: &HeaderName, word: &str) -> bool {
    let values = request.headers().get_all(name).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
}

pub fn is_asked<B>(request: &Request<B>) -> bool {
    has_word(request, &CONNECTION, "upgrade") && has_word(request, &UPGRADE, "websocket")
}

/// Switches the connection and sends what comes until either side has had enough.
pub fn stream(
    mut request: Request<Body>,
    text: bool,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Answer, ApiError> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let key = key.ok_or_else(|| ApiError::bad_request("a WebSocket needs a Sec-WebSocket-Key"))?;
    let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("this connection cannot be upgraded"))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => carry(upgraded, text, messages).await,
            Err(error) => tracing::debug!(%error, "a watch was not upgraded"),
        }
    });
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.map_err(ApiError::internal)?);
    Ok(answer)
}

async fn carry(upgraded: hyper::upgrade::Upgraded, text: bool, messages: impl Stream<Item = Bytes> + Send) {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut sink, mut incoming) = socket.split();
    futures::pin_mut!(messages);
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(bytes) = message else { break };
                let message = match (text, std::str::from_utf8(&bytes)) {
                    (true, Ok(text)) => Message::text(text),
                    _ => Message::binary(bytes),
                };
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            // Pings are answered by reading; anything else that is said means nothing.
            said = incoming.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            }
        }
    }
    if sink.close().await.is_ok() {
        let rest = async { while let Some(Ok(_)) = incoming.next().await {} };
        drop(tokio::time::timeout(FAREWELL, rest).await);
    }
}
