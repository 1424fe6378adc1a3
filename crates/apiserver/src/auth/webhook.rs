//! Tokens that another service knows: it is asked by a `TokenReview`, and its answers hold for a little while.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use api::weight;
use k8s_openapi::api::authentication::v1::TokenReview;
use parking_lot::Mutex;
use serde_json::json;

use super::tokens::ISSUER;
use super::{AUTHENTICATED, Identity};
use crate::Server;
use crate::backend::Backend;

const TIMEOUT: Duration = Duration::from_secs(10);
const KEPT_FOR: Duration = Duration::from_secs(120);
/// A no holds for less: the token may have been made just now.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Answers that are kept; when there are as many, all are asked anew.
const KEPT_MAX: usize = 4096;

pub struct TokenWebhook {
    backend: Backend,
    answers: Mutex<HashMap<String, (Option<Known>, Instant)>>,
}

/// Who it is, and which of the audiences that were asked for the token is for.
type Known = (Identity, Vec<String>);

impl TokenWebhook {
    /// Reads where the service is from a kubeconfig.
    pub fn open(path: &Path) -> Result<Self, String> {
        Ok(Self { backend: Backend::from_kubeconfig(path)?, answers: Mutex::default() })
    }

    pub async fn identity(&self, server: &Server, token: &str, audiences: &[&str]) -> Option<Known> {
        let key = base::id::sha256_hex(format!("{}\n{token}", audiences.join("\n")).as_bytes());
        if let Some((answer, until)) = self.answers.lock().get(&key).cloned()
            && Instant::now() < until
        {
            return answer;
        }
        let answer = match self.ask(server, token, audiences).await {
            Ok(answer) => answer,
            Err(error) => {
                // Nobody has said no: the next one asks again.
                tracing::warn!(error, "the token webhook does not answer");
                return None;
            }
        };
        let kept_for = if answer.is_some() { KEPT_FOR } else { REFUSED_FOR };
        let mut answers = self.answers.lock();
        if answers.len() >= KEPT_MAX {
            answers.clear();
        }
        answers.insert(key, (answer.clone(), Instant::now() + kept_for));
        answer
    }

    async fn ask(&self, server: &Server, token: &str, audiences: &[&str]) -> Result<Option<Known>, String> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": token, "audiences": audiences}});
        let answer = self.backend.post(server, "", &review, TIMEOUT).await.map_err(|e| e.to_string())?;
        if !answer.0.is_success() {
            return Err(format!("it answered {}", answer.0));
        }
        weight::bounded(weight::of_json(&answer.1)).map_err(|e| e.to_string())?;
        let review: TokenReview = serde_json::from_slice(&answer.1).map_err(|e| e.to_string())?;
        let status = review.status.unwrap_or_default();
        // One that says nothing of audiences knows of none but ours.
        let mut fitting =
            status.audiences.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![ISSUER.to_owned()]);
        fitting.retain(|audience| audiences.contains(&audience.as_str()));
        let user = status.user.filter(|_| status.authenticated == Some(true) && !fitting.is_empty());
        Ok(user.and_then(|user| {
            let username = user.username.filter(|name| !name.is_empty())?;
            let mut groups = user.groups.unwrap_or_default();
            groups.push(AUTHENTICATED.into());
            let (uid, extra) = (user.uid.unwrap_or_default(), user.extra.unwrap_or_default());
            Some((Identity { username, uid, groups, extra }, fitting))
        }))
    }
}
