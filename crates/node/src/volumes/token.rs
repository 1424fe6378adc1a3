//! Service account tokens: asked for once per pod and audience, and again when most of their life is over.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccountTokenProjection;
use parking_lot::Mutex;

use super::{VolumeContext, VolumeError};

const TOKEN_REFRESH_PERCENT: i64 = 80;
const LIFE_SECONDS_DEFAULT: i64 = 3600;

/// The tokens of one pod.
#[derive(Default)]
pub struct TokenCache(Mutex<BTreeMap<(String, i64), Token>>);

struct Token {
    text: String,
    refresh_at: Timestamp,
}

impl TokenCache {
    /// When the first of them should be renewed.
    pub fn next_refresh(&self) -> Option<Timestamp> {
        self.0.lock().values().map(|token| token.refresh_at).min()
    }

    pub async fn token(
        &self,
        context: &VolumeContext<'_>,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, VolumeError> {
        let life = projection.expiration_seconds.unwrap_or(LIFE_SECONDS_DEFAULT);
        let key = (projection.audience.clone().unwrap_or_default(), life);
        if let Some(token) = self.0.lock().get(&key).filter(|token| token.refresh_at > context.now) {
            return Ok(token.text.clone());
        }
        let status = request(context, &key.0, life).await?;
        let until = status.expiration_timestamp.map_or(context.now, |time| time.0);
        let granted = until.as_second().saturating_sub(context.now.as_second());
        let refresh_at = crate::pods::later(context.now, granted * TOKEN_REFRESH_PERCENT / 100);
        let text = status.token.unwrap_or_default();
        self.0.lock().insert(key, Token { text: text.clone(), refresh_at });
        Ok(text)
    }
}

async fn request(
    context: &VolumeContext<'_>,
    audience: &str,
    life_seconds: i64,
) -> Result<k8s_openapi::api::authentication::v1::TokenRequestStatus, VolumeError> {
    let meta = &context.pod.metadata;
    let account = context.pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let path = format!(
        "/api/v1/namespaces/{}/serviceaccounts/{}/token",
        meta.namespace.as_deref().unwrap_or_default(),
        account.filter(|name| !name.is_empty()).unwrap_or("default"),
    );
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(Some(audience.to_owned()).filter(|a| !a.is_empty()).into_iter().collect()),
            expiration_seconds: Some(life_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let failed = |error| VolumeError::Token(error);
    let body = serde_json::to_vec(&body).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| failed(kube::Error::HttpError(error)))?;
    let answer: TokenRequest = context.client.request(request).await.map_err(failed)?;
    Ok(answer.status.unwrap_or_default())
}
