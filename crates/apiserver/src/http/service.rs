//! The server as a tower service for clients in this process: without TCP and TLS, never without authorization and
//! admission. Whoever builds one says who its user is.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};

use super::body::{Body, BoxError, boxed};
use crate::ApiServer;
use crate::auth::Identity;

/// Marks a request of somebody in this process who follows kinds and does not want to know who owns which field: that is
/// often half of an object, and most of the work of reading it.
#[derive(Clone, Copy)]
pub struct Lean;

#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    who: Identity,
    lean: bool,
    /// The program that asks, where it does not say so itself.
    agent: Option<HeaderValue>,
}

impl ApiServer {
    pub fn as_user(&self, who: Identity) -> InProcess {
        let agent = HeaderValue::from_str(program(&who.username)).ok();
        InProcess { server: self.clone(), who, lean: false, agent }
    }
}

impl InProcess {
    /// Watches through it may leave `managedFields` out.
    pub fn lean(self) -> Self {
        Self { lean: true, ..self }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if let Some(agent) = &self.agent {
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
        }
        if self.lean {
            request.extensions_mut().insert(Lean);
        }
        let answer = self.server.handle(request.map(boxed), Some(self.who.clone()));
        answer.map(Ok).boxed()
    }
}

/// The program that works as this user, as whoever reads `managedFields` knows it.
fn program(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(part) if part.starts_with("node:") => "kubelet",
        Some(part) => part,
        None => user,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_known_by_their_programs() {
        assert_eq!(program("system:kube-scheduler"), "kube-scheduler");
        assert_eq!(program("system:node:node-1"), "kubelet");
        assert_eq!(program("jane"), "jane");
    }
}
