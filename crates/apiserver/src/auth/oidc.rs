//! Tokens of other issuers, as the configured file says. The file is read again when it has changed; one that cannot be
//! read leaves what was. Keys are fetched when a token needs one that is not known, but not at every stranger's bidding.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::{Request, header};
use api::authentication::{Anonymous, Configuration, Issuer};
use api::weight;
use serde_json::Value;
use tokio::sync::Mutex;

use super::jwk::Jwt;
use super::tokens::ISSUER;
use super::{AUTHENTICATED, Identity};
use crate::Server;
use crate::backend::Backend;
use crate::http::body::{boxed, full, read};

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys of an issuer are asked for this often at the most.
const FETCH_AT_MOST_EVERY: Duration = Duration::from_secs(10);
const DOCUMENT_MAX_BYTES: usize = 1 << 20;
/// So many an issuer has at most; usually it has a few.
const KEYS_MAX: usize = 100;
/// Longer is no token.
const TOKEN_MAX_BYTES: usize = 64 << 10;

/// What a file looked like when it was read.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Default)]
pub struct Oidc {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stamp: Stamp,
    configuration: Arc<Configuration>,
    keys: HashMap<String, Keys>,
}

#[derive(Clone, Default)]
struct Keys {
    all: Arc<Vec<Value>>,
    asked: Option<Instant>,
    /// Held while keys are asked for: whoever comes meanwhile waits for those.
    asking: Arc<Mutex<()>>,
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn load(path: &Path) -> Result<Configuration, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    api::authentication::parse(&text, ISSUER)
}

impl Oidc {
    pub fn open(file: Option<PathBuf>) -> Result<Self, String> {
        let mut state = State::default();
        if let Some(path) = &file {
            state.stamp = stamp(path);
            state.configuration = Arc::new(load(path).map_err(|e| format!("{}: {e}", path.display()))?);
        }
        Ok(Self { file, state: Mutex::new(state) })
    }

    /// The configuration as the file has it now.
    async fn current(&self) -> Arc<Configuration> {
        let mut state = self.state.lock().await;
        if let Some(path) = &self.file {
            let now = stamp(path);
            if now != state.stamp {
                state.stamp = now;
                match load(path) {
                    Ok(configuration) => {
                        tracing::info!(path = %path.display(), "the authentication configuration was reloaded");
                        state.configuration = Arc::new(configuration);
                        state.keys.clear();
                    }
                    Err(error) => {
                        tracing::error!(path = %path.display(), error, "the authentication configuration stays as it was")
                    }
                }
            }
        }
        Arc::clone(&state.configuration)
    }

    /// What is open to nobody in particular, if the file says so.
    pub async fn anonymous(&self) -> Option<Anonymous> {
        match self.file {
            Some(_) => self.current().await.anonymous.clone(),
            None => None,
        }
    }

    /// Whom a token is of, if one of the issuers made it.
    pub async fn identity(&self, server: &Server, token: &str, now_seconds: i64) -> Option<Identity> {
        if self.file.is_none() || token.len() > TOKEN_MAX_BYTES {
            return None;
        }
        let jwt = Jwt::parse(token)?;
        let configuration = self.current().await;
        let issuer = configuration.issuers.iter().find(|i| jwt.claims["iss"] == *i.url.as_str())?;
        if !jwt.is_timely(now_seconds) || !issuer.has_audience(&jwt.claims) {
            return None;
        }
        if !self.is_signed(server, issuer, &jwt).await {
            return None;
        }
        match issuer.user(&jwt.claims) {
            Ok(user) => {
                let mut groups = user.groups;
                groups.push(AUTHENTICATED.into());
                Some(Identity { username: user.username, uid: user.uid, groups, extra: user.extra })
            }
            Err(why) => {
                tracing::debug!(issuer = issuer.url, why, "refused a token");
                None
            }
        }
    }

    async fn is_signed(&self, server: &Server, issuer: &Issuer, jwt: &Jwt<'_>) -> bool {
        let known = self.keys_of(issuer).await;
        if known.signed(jwt) {
            return true;
        }
        if !known.may_be_asked_for(jwt) {
            return false;
        }
        // One at a time: strangers that come together are one.
        let _asking = known.asking.lock().await;
        let known = self.keys_of(issuer).await;
        if !known.may_be_asked_for(jwt) {
            return known.signed(jwt);
        }
        let all = match fetch_keys(server, issuer).await {
            Ok(keys) => Arc::new(keys),
            Err(error) => {
                tracing::warn!(issuer = issuer.url, error, "cannot fetch the keys of an issuer");
                Arc::clone(&known.all)
            }
        };
        let keys = Keys { all, asked: Some(Instant::now()), asking: Arc::clone(&known.asking) };
        // Unless the file was read again meanwhile.
        if let Some(held) = self.state.lock().await.keys.get_mut(&issuer.url)
            && Arc::ptr_eq(&held.asking, &keys.asking)
        {
            *held = keys.clone();
        }
        keys.signed(jwt)
    }

    async fn keys_of(&self, issuer: &Issuer) -> Keys {
        self.state.lock().await.keys.entry(issuer.url.clone()).or_default().clone()
    }
}

impl Keys {
    fn signed(&self, jwt: &Jwt<'_>) -> bool {
        self.all.iter().any(|key| jwt.is_signed_by(key))
    }

    fn may_be_asked_for(&self, jwt: &Jwt<'_>) -> bool {
        let unknown = !self.all.iter().any(|key| key["kid"] == *jwt.key_id.as_str());
        unknown && self.asked.is_none_or(|asked| asked.elapsed() >= FETCH_AT_MOST_EVERY)
    }
}

async fn fetch_keys(server: &Server, issuer: &Issuer) -> Result<Vec<Value>, String> {
    let discovery = match &issuer.discovery_url {
        Some(url) => url.clone(),
        None => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
    };
    let authority = issuer.authority.as_deref();
    let document = fetch(server, &discovery, authority).await?;
    if document["issuer"] != *issuer.url.as_str() {
        return Err(format!("{discovery} is of issuer {}", document["issuer"]));
    }
    let uri = document["jwks_uri"].as_str().ok_or("the discovery document has no jwks_uri")?;
    let keys = fetch(server, uri, authority).await?;
    key_set(&keys).map_err(|why| format!("{uri}: {why}"))
}

/// The keys of a set. Each is tried on tokens of strangers.
fn key_set(document: &Value) -> Result<Vec<Value>, String> {
    let keys = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    match keys.len() > KEYS_MAX {
        true => Err(format!("{} keys are more than {KEYS_MAX}", keys.len())),
        false => Ok(keys.to_vec()),
    }
}

/// A document by HTTPS; where an answer points elsewhere is not followed.
async fn fetch(server: &Server, url: &str, authority: Option<&str>) -> Result<Value, String> {
    let backend = Backend::new(Some(url), None, authority.map(str::as_bytes), false, None);
    let backend = backend.map_err(|e| e.to_string())?;
    let rest = url.strip_prefix("https://").unwrap_or_default();
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let request = Request::get(path).header(header::ACCEPT, "application/json").body(full(""));
    let request = request.map_err(|e| e.to_string())?;
    let work = async {
        let answer = backend.send(server, request).await.map_err(|e| e.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("{url}: {}", answer.status()));
        }
        let body = read(boxed(answer.into_body()), DOCUMENT_MAX_BYTES).await;
        let body = body.map_err(|_| format!("{url}: cannot be read"))?;
        weight::bounded(weight::of_json(&body)).map_err(|e| format!("{url}: {e}"))?;
        serde_json::from_slice(&body).map_err(|e| format!("{url}: {e}"))
    };
    tokio::time::timeout(FETCH_TIMEOUT, work).await.map_err(|_| format!("{url}: no answer in time"))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_of_keys_has_an_end() {
        let set = |count: usize| key_set(&json!({"keys": vec![json!({"kty": "EC"}); count]}));
        assert_eq!(set(KEYS_MAX).map(|keys| keys.len()), Ok(KEYS_MAX));
        assert!(set(KEYS_MAX + 1).is_err());
        assert_eq!(key_set(&json!([])), Ok(Vec::new()));
    }
}
