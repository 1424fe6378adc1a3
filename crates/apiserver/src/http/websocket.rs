//! Watches and logs over a WebSocket: each event, and each piece of a log, a message. Browsers and older client libraries
//! ask so.

use std::time::Duration;

use ::http::header::{
    AUTHORIZATION, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use ::http::{Request, Response, StatusCode};
use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use http_body_util::BodyExt;
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

/// Browsers can send no header with a WebSocket, but the names of protocols: a bearer token may come as one.
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Moves such a token to where tokens are looked for, and out of the names that are passed on. Another protocol has to be
/// named beside it: one that can be answered with.
pub fn take_token<B>(request: &mut Request<B>) -> Result<(), ApiError> {
    if !is_asked(request) || request.headers().contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let values = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let names = values.flat_map(|v| v.split(',')).map(|name| name.trim().to_owned());
    let (tokens, others): (Vec<String>, Vec<String>) = names.partition(|name| name.starts_with(TOKEN));
    let token = match tokens.as_slice() {
        [] => return Ok(()),
        [token] if !others.is_empty() => token,
        _ => return Err(ApiError::unauthorized()),
    };
    let refused = || ApiError::unauthorized();
    let token = URL_SAFE_NO_PAD.decode(&token[TOKEN.len()..]).map_err(|_| refused())?;
    let token = String::from_utf8(token).map_err(|_| refused())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| refused())?;
    value.set_sensitive(true);
    let others = HeaderValue::from_str(&others.join(",")).map_err(|_| refused())?;
    request.headers_mut().insert(AUTHORIZATION, value);
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, others);
    Ok(())
}

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// Switches the connection and sends a body in pieces, after an empty message that says that the connection stands; in
/// base64 to who asks for that.
pub fn stream_body(mut request: Request<Body>, body: Body) -> Result<Answer, ApiError> {
    let values = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let offered: Vec<&str> = values.flat_map(|v| v.split(',')).map(str::trim).collect();
    let protocol = match offered.iter().find_map(|o| [BINARY, BASE64].into_iter().find(|own| own == o)) {
        Some(protocol) => protocol,
        None if offered.is_empty() => "",
        None => {
            return Err(ApiError::bad_request(format!("unsupported protocol(s): {}", offered.join(", "))));
        }
    };
    if !protocol.is_empty() {
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let text = protocol == BASE64;
    let pieces = futures::stream::unfold(body, move |mut body| async move {
        loop {
            let data = body.frame().await?.ok()?.into_data().unwrap_or_default();
            if !data.is_empty() {
                let piece = if text { STANDARD.encode(&data).into() } else { data };
                return Some((piece, body));
            }
        }
    });
    let standing = futures::stream::once(std::future::ready(Bytes::new()));
    stream(request, text, standing.chain(pieces))
}

/// Switches the connection and sends what comes until either side has had enough.
pub fn stream(
    mut request: Request<Body>,
    text: bool,
    messages: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Answer, ApiError> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let key = key.ok_or_else(|| ApiError::bad_request("a WebSocket needs a Sec-WebSocket-Key"))?;
    let protocol = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
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
    // The only protocol that was asked for is the one that is spoken.
    if let Some(protocol) = protocol.filter(|p| !p.as_bytes().contains(&b',')) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocols: &[&str], expected: Option<(&str, &str)>) {
        let mut request = Request::get("/").header(CONNECTION, "Upgrade").header(UPGRADE, "websocket");
        for protocol in protocols {
            request = request.header(SEC_WEBSOCKET_PROTOCOL, *protocol);
        }
        let mut request = request.body(()).expect("a request");
        let taken = take_token(&mut request).is_ok();
        let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let seen = taken.then(|| (text(AUTHORIZATION), text(SEC_WEBSOCKET_PROTOCOL)));
        assert_eq!(seen, expected, "{protocols:?}");
    }

    #[test]
    fn a_token_may_come_as_the_name_of_a_protocol_beside_another() {
        let token = format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode("t"));
        let both = format!("v5.channel.k8s.io, {token}");
        check(&["v4.channel.k8s.io"], Some(("", "v4.channel.k8s.io")));
        check(&[&both], Some(("Bearer t", "v5.channel.k8s.io")));
        check(&[&token, "a, b"], Some(("Bearer t", "a,b")));
        check(&[&token], None);
        check(&[&both, &token], None);
        check(&[&format!("{TOKEN}?"), "a"], None);
        check(&[&format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode("a\nb")), "a"], None);
        check(&[&format!("{TOKEN}{}", URL_SAFE_NO_PAD.encode([0xff])), "a"], None);
    }
}
