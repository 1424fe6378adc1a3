//! The server as a tower service for clients in this process: without TCP and TLS, never without authorization and
//! admission. Whoever builds one says who its user is.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};

use super::body::{Body, BoxError, boxed};
use crate::ApiServer;
use crate::auth::Identity;

#[derive(Clone)]
pub struct InProcess {
    server: ApiServer,
    who: Identity,
}

impl ApiServer {
    pub fn as_user(&self, who: Identity) -> InProcess {
        InProcess { server: self.clone(), who }
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.server.handle(request.map(boxed), Some(self.who.clone()));
        answer.map(Ok).boxed()
    }
}
