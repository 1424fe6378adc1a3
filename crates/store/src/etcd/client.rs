//! One client of all members: who is asked, in whose name, and what is asked again. A read is asked again until time
//! runs out; a write only while it is sure that nobody has got it.

use std::time::Duration;

use grpc::{Answers, Channel, Fault, codes};
use parking_lot::Mutex;
use prost::Message;
use tokio::time::Instant;

use super::address::Connector;
use super::messages::{AuthenticateRequest, AuthenticateResponse};

/// How long a request may take in all, with what is tried again.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);
/// A member that has lost the others must not keep us waiting.
const MEMBER: (&str, &str) = ("hasleader", "true");

/// Whether doing it twice is doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Safe,
    Unsafe,
}

pub struct Client {
    connector: Connector,
    user: Option<(String, String)>,
    /// The connection in use, and the number of the member it goes to.
    current: tokio::sync::Mutex<(Option<Channel>, usize)>,
    token: Mutex<Option<String>>,
}

impl Client {
    pub fn new(connector: Connector, user: Option<(String, String)>) -> Self {
        let current = tokio::sync::Mutex::new((None, 0));
        Self { connector, user, current, token: Mutex::default() }
    }

    async fn channel(&self) -> Result<Channel, Fault> {
        let mut current = self.current.lock().await;
        if let Some(channel) = current.0.as_ref().filter(|c| !c.is_closed()) {
            return Ok(channel.clone());
        }
        current.0 = None;
        let mut fault = Fault::NotSent("no member of etcd is known".into());
        for _ in 0..self.connector.count() {
            match tokio::time::timeout(CONNECT_LIMIT, self.connector.connect(current.1)).await {
                Ok(Ok(channel)) => {
                    current.0 = Some(channel.clone());
                    return Ok(channel);
                }
                Ok(Err(error)) => fault = error,
                Err(_) => fault = Fault::NotSent("a member of etcd does not answer".into()),
            }
            current.1 = current.1.wrapping_add(1);
        }
        Err(fault)
    }

    /// Goes to the next member: this one is of no use.
    async fn leave(&self, channel: &Channel) {
        let mut current = self.current.lock().await;
        let same = current.0.as_ref().is_some_and(|held| held.is_closed() || held.is_same(channel));
        if same && (self.connector.count() > 1 || channel.is_closed()) {
            *current = (None, current.1.wrapping_add(1));
        }
    }

    async fn token(&self, channel: &Channel) -> Result<Option<String>, Fault> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        if let Some(token) = self.token.lock().clone() {
            return Ok(Some(token));
        }
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: AuthenticateResponse = channel.unary(path, &request, &[MEMBER], REQUEST_LIMIT).await?;
        *self.token.lock() = Some(answer.token.clone());
        Ok(Some(answer.token))
    }

    /// Asks, within [`REQUEST_LIMIT`].
    pub async fn call<A: Message, B: Message + Default>(
        &self,
        path: &str,
        request: &A,
        again: Again,
    ) -> Result<B, Fault> {
        let end = Instant::now() + REQUEST_LIMIT;
        let mut authenticated = false;
        let mut earlier = None;
        loop {
            let fault = match self.try_call(path, request, end).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let retry = match &fault {
                Fault::NotSent(_) => true,
                Fault::Broken(_) => again == Again::Safe,
                refused if is_stale_token(refused) => {
                    *self.token.lock() = None;
                    !std::mem::replace(&mut authenticated, true)
                }
                refused if was_not_taken(refused) => true,
                refused => again == Again::Safe && is_passing(refused),
            };
            if !retry {
                return Err(fault);
            }
            if Instant::now() + PAUSE >= end {
                // That time ran out says less than why it was tried again.
                let ran_out = Instant::now() >= end;
                return Err(earlier.filter(|_| ran_out).unwrap_or(fault));
            }
            earlier = Some(fault);
            if !authenticated {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn try_call<A: Message, B: Message + Default>(
        &self,
        path: &str,
        request: &A,
        end: Instant,
    ) -> Result<B, Fault> {
        let late = |_| Fault::NotSent("etcd cannot be reached in time".into());
        let channel = tokio::time::timeout_at(end, self.channel()).await.map_err(late)??;
        // Nothing of the request itself has gone out while the token is being fetched.
        let token = match self.token(&channel).await {
            Err(Fault::Broken(text)) => Err(Fault::NotSent(text)),
            other => other,
        };
        let answer = match token {
            Ok(token) => {
                let limit = end.saturating_duration_since(Instant::now());
                channel.unary(path, request, &metadata(&token), limit).await
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &answer
            && (!matches!(fault, Fault::Refused { .. }) || is_passing(fault))
        {
            self.leave(&channel).await;
        }
        answer
    }

    /// Asks for a stream of answers.
    pub async fn stream(&self, path: &str, request: &impl Message) -> Result<Answers, Fault> {
        let channel = self.channel().await?;
        let token = self.token(&channel).await?;
        let metadata = metadata(&token);
        let opened = channel.stream(path, request, &metadata);
        let opened = match tokio::time::timeout(REQUEST_LIMIT, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Fault::Broken(format!("{path}: no answer in time"))),
        };
        if let Err(fault) = &opened {
            self.refused(fault);
            self.leave(&channel).await;
        }
        opened
    }

    /// Puts another token in its place, for tests.
    #[cfg(test)]
    pub fn forget_token(&self, other: &str) -> Option<String> {
        self.token.lock().replace(other.to_owned())
    }

    /// To be told of what ends a stream: a token that no longer holds is not used again.
    pub fn refused(&self, fault: &Fault) {
        if is_stale_token(fault) {
            *self.token.lock() = None;
        }
    }
}

fn metadata(token: &Option<String>) -> Vec<(&'static str, &str)> {
    std::iter::once(MEMBER).chain(token.as_deref().map(|token| ("token", token))).collect()
}

fn message(fault: &Fault) -> &str {
    match fault {
        Fault::Refused { message, .. } => message,
        Fault::NotSent(text) | Fault::Broken(text) => text,
    }
}

fn is_stale_token(fault: &Fault) -> bool {
    let unauthenticated = matches!(fault, Fault::Refused { code: codes::UNAUTHENTICATED, .. });
    unauthenticated
        || matches!(fault, Fault::Refused { message, .. } if message.contains("revision of auth store is old"))
}

/// Another moment, or another member, may answer otherwise.
fn is_passing(fault: &Fault) -> bool {
    matches!(fault, Fault::Refused { code: codes::UNAVAILABLE | codes::DEADLINE_EXCEEDED, .. })
}

/// Refusals that come before anything is proposed to the members.
fn was_not_taken(fault: &Fault) -> bool {
    is_passing(fault)
        && ["etcdserver: no leader", "etcdserver: not capable", "etcdserver: too many requests"]
            .iter()
            .any(|text| message(fault).starts_with(text))
}
