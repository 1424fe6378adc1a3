//! Who sends a request, by what it carries: a bearer token of one of the kinds the server knows, or nothing at all, which
//! is enough where it is asked whether the server lives.

use std::path::PathBuf;

use ::http::{HeaderMap, header};
use api::status::ApiError;

use super::Identity;
use super::oidc::Oidc;
use super::request_header::RequestHeader;
use super::tokens::ISSUER;
use super::webhook::TokenWebhook;
use crate::{Server, paths};

/// What a server is told about whom to believe. The files are named as kube-apiserver's options name them.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// `--authentication-config`
    pub configuration_file: Option<PathBuf>,
    /// `--authentication-token-webhook-config-file`
    pub token_webhook_file: Option<PathBuf>,
    /// `--requestheader-client-ca-file` and its companions
    pub request_header: Option<RequestHeader>,
}

/// Those who are asked about a token that is not our own.
#[derive(Default)]
pub struct Authenticators {
    oidc: Oidc,
    webhook: Option<TokenWebhook>,
}

impl Authenticators {
    pub fn open(settings: &Authentication) -> Result<Self, String> {
        let webhook = settings.token_webhook_file.as_deref().map(TokenWebhook::open).transpose()?;
        Ok(Self { oidc: Oidc::open(settings.configuration_file.clone())?, webhook })
    }
}

/// A user, and for which of the audiences that were asked about the token is.
pub struct Authenticated {
    pub who: Identity,
    pub audiences: Vec<String>,
    /// What whoever shows such a token is to be warned of.
    pub warning: Option<&'static str>,
}

impl Server {
    /// The user behind a bearer token. No token is nobody, who gets no further than the probes; a token that does not
    /// hold is refused.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<(Identity, Option<&'static str>), ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let open = match self.authenticators.oidc.anonymous().await {
                Some(configured) => configured.allows(path),
                None => paths::is_open(path),
            };
            return if open { Ok((Identity::anonymous(), None)) } else { Err(ApiError::unauthorized()) };
        };
        let value = value.to_str().map_err(|_| ApiError::unauthorized())?;
        let (scheme, token) = value.split_once(' ').ok_or_else(ApiError::unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::unauthorized());
        }
        let found = self.token_identity(token.trim(), &[ISSUER]).await;
        found.map(|found| (found.who, found.warning)).ok_or_else(ApiError::unauthorized)
    }

    /// Who a token stands for, if anybody, and if it is for one of the audiences. Tokens but those of service accounts
    /// are for this server and no other audience.
    pub(crate) async fn token_identity(&self, token: &str, audiences: &[&str]) -> Option<Authenticated> {
        if let Some(found) = self.account_identity(token, audiences).await {
            return Some(found);
        }
        let now = base::time::now().as_second();
        let ours: Vec<String> = audiences.iter().filter(|a| **a == ISSUER).map(|a| (*a).to_owned()).collect();
        let Authenticators { oidc, webhook } = &self.authenticators;
        if !ours.is_empty() {
            if let Some((who, warning)) = self.legacy_identity(token, now).await {
                return Some(Authenticated { who, audiences: ours, warning });
            }
            let mut found = self.bootstrap_identity(token, now).await;
            if found.is_none() {
                found = oidc.identity(self, token, now).await;
            }
            if let Some(who) = found {
                return Some(Authenticated { who, audiences: ours, warning: None });
            }
        }
        let (who, audiences) = webhook.as_ref()?.identity(self, token, audiences).await?;
        Some(Authenticated { who, audiences, warning: None })
    }
}
