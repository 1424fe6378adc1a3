//! Switching a request's connection to another protocol.

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::websocket::UNNAMED;
use super::{Refusal, Reply, full};

/// What the caller wants to switch to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// With the subprotocol that was agreed upon.
    WebSocket { protocol: &'static str, accept: String },
    /// SPDY/3.1, with the stream protocol that was agreed upon.
    Spdy { protocol: &'static str },
}

fn words<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.into_iter().flat_map(|value| value.split(',')).map(str::trim)
}

impl Upgrade {
    /// `websocket` and `spdy` are the protocols we speak, best first.
    pub fn of(
        headers: &HeaderMap,
        websocket: &[&'static str],
        spdy: &[&'static str],
    ) -> Result<Self, Refusal> {
        let wanted = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if wanted.eq_ignore_ascii_case("websocket") {
            let key = headers.get(header::SEC_WEBSOCKET_KEY);
            let key = key.ok_or_else(|| Refusal::bad_request("a websocket key is missing"))?;
            let mut offered: Vec<&str> = words(headers, "sec-websocket-protocol").collect();
            if offered.is_empty() {
                offered.push(UNNAMED);
            }
            let agreed = websocket.iter().find(|ours| offered.contains(ours));
            let protocol = agreed.ok_or_else(|| Refusal::bad_request("no subprotocol in common"))?;
            return Ok(Self::WebSocket { protocol, accept: derive_accept_key(key.as_bytes()) });
        }
        if wanted.eq_ignore_ascii_case("SPDY/3.1") {
            let offered: Vec<&str> = words(headers, "x-stream-protocol-version").collect();
            let agreed = spdy.iter().find(|ours| offered.contains(ours));
            let refusal = || Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!(
                    "unable to negotiate protocol: client supports {offered:?}, server accepts {spdy:?}"
                ),
            };
            return Ok(Self::Spdy { protocol: agreed.ok_or_else(refusal)? });
        }
        Err(Refusal::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr over an upgraded connection",
        ))
    }

    /// The answer that switches; what follows runs once it is sent.
    pub fn accept<F>(
        &self,
        request: Request<Incoming>,
        then: impl FnOnce(hyper::upgrade::Upgraded) -> F + Send + 'static,
    ) -> Reply
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(async move {
            match hyper::upgrade::on(request).await {
                Ok(upgraded) => then(upgraded).await,
                Err(error) => tracing::debug!(%error, "upgrade a connection"),
            }
        });
        let mut reply = Response::new(full(""));
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = reply.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Self::WebSocket { protocol, accept } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                // Nothing is agreed to where nothing was offered.
                if *protocol != UNNAMED {
                    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
                }
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
            }
            Self::Spdy { protocol } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
            }
        }
        reply
    }
}
