//! Requests that are not about a resource: whether the server lives, what it is, and what it serves.

use ::http::{HeaderMap, Method, StatusCode, header};
use api::status::ApiError;

use crate::http::accept;
use crate::http::query::Query;
use crate::http::respond::{self, Answer};
use crate::{Server, discovery, health, objects};

/// Paths that anybody may read: whether the server lives. How it is with each of its parts is a right, as in the original.
pub fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz")
}

impl Server {
    pub(crate) async fn path(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Answer, ApiError> {
        let kinds = self.catalog.snapshot();
        let path = path.trim_end_matches('/');
        let is_discovery = path.starts_with("/api") && discovery::is_known(&kinds, path);
        // Whatever the method: it is a question of whether anybody is there.
        if let Some(probe) = health::Probe::parse(path, query) {
            return Ok(probe.answer(&self.checks(&probe).await));
        }
        if is_discovery && *method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Ok(respond::page_not_found());
        }
        let answer = match path {
            "/version" => {
                let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
                accept::routed(accept, &[accept::JSON])?;
                respond::object(StatusCode::OK, respond::Form::JSON, &discovery::version())
            }
            "/metrics" => self.metrics().await?,
            "/.well-known/openid-configuration" => respond::json(StatusCode::OK, &discovery::openid()),
            "/openid/v1/jwks" => {
                let mut answer = respond::json(StatusCode::OK, &self.signer.jwks());
                let media_type = ::http::HeaderValue::from_static("application/jwk-set+json");
                answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
                answer
            }
            path if path.starts_with("/openapi/") => self.documents.answer(&kinds, path, query, headers),
            path if path.starts_with("/debug/") => {
                let plan = self.fairness_plan().await;
                self.fairness.page(&plan, path, query).unwrap_or_else(respond::page_not_found)
            }
            path => discovery::answer(&kinds, path, headers, self.config.advertise)?
                .unwrap_or_else(respond::page_not_found),
        };
        Ok(if respond::accepts_gzip(headers) { respond::compressed(answer) } else { answer })
    }

    /// What must be well for the server to be.
    async fn checks(&self, probe: &health::Probe) -> Vec<health::Check> {
        let reachable = self.objects.store.get("/").await;
        let etcd = reachable.map(drop).map_err(|e| objects::store_error(e).message);
        let kinds = match self.catalog.snapshot().all().is_empty() {
            true => Err("the kinds are not loaded".to_owned()),
            false => Ok(()),
        };
        let cipher = self.objects.cipher();
        let kms = if probe.asks_for(health::KMS) {
            cipher.health().await
        } else {
            cipher.has_health().then_some(Ok(()))
        };
        health::checks(etcd, kms, cipher.reloads(), kinds, self.settled.borrow().clone())
    }
}
