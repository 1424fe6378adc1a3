//! Events for another service, in an `EventList` each time. A service that is away is asked again, a few times and ever
//! more seldom; one that does not want an event is not.

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;

use crate::Server;
use crate::backend::Backend;

const TIMEOUT: Duration = Duration::from_secs(30);
const TRIES: u32 = 5;
const FACTOR: f64 = 1.5;

pub struct Webhook {
    backend: Backend,
    backoff: Duration,
    /// Through whom Services are reached: known once the server stands.
    pub server: Arc<Link>,
}

pub type Link = OnceLock<Weak<Server>>;

impl Webhook {
    /// `backoff`: the wait before the second try.
    pub fn open(path: &Path, backoff: Duration) -> Result<Self, String> {
        Ok(Self { backend: Backend::from_kubeconfig(path)?, backoff, server: Arc::default() })
    }

    pub async fn send(&self, lines: &[Bytes]) -> Result<(), String> {
        let body = list(lines);
        let mut wait = self.backoff;
        let mut attempt = 1;
        loop {
            let Some(server) = self.server.get().and_then(Weak::upgrade) else {
                return Err("the server is gone".into());
            };
            let fault = match self.backend.post_bytes(&server, "", body.clone(), TIMEOUT).await {
                Ok((code, _)) if code.is_success() => return Ok(()),
                Ok((code, _)) if may_pass(code) => format!("the service answered {code}"),
                Ok((code, _)) => return Err(format!("the service answered {code}")),
                Err(error) => error.to_string(),
            };
            if attempt == TRIES {
                return Err(fault);
            }
            attempt += 1;
            tokio::time::sleep(wait).await;
            wait = wait.mul_f64(FACTOR);
        }
    }
}

fn may_pass(code: StatusCode) -> bool {
    code.is_server_error() || code == StatusCode::TOO_MANY_REQUESTS
}

fn list(lines: &[Bytes]) -> Bytes {
    let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.extend_from_slice(b"]}");
    Bytes::from(body)
}
