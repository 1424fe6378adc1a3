//! Invitations to nodes (bootstrap tokens): those whose time is over are deleted, and the ConfigMap `cluster-info`, by which
//! a stranger learns where the cluster is, is signed with each that may be used for that. There is such a ConfigMap only
//! where somebody has made one, as kubeadm does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Cache, Controller, Key, Next, Outcome, Reconciler};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::DeleteParams;
use ring::hmac;

use crate::context::{self, Context};
use crate::meta;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const PUBLIC: &str = "kube-public";
const INFO: &str = "cluster-info";
const SIGNED: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

pub fn start(context: &Context) -> Vec<Controller> {
    let secrets = context.caches.of::<Secret>();
    let maps = context.caches.of::<ConfigMap>();
    let cleaner = Cleaner { context: context.clone(), secrets: Arc::clone(&secrets) };
    let signer = Signer { context: context.clone(), secrets: Arc::clone(&secrets), maps: Arc::clone(&maps) };
    let info = || Key::new(PUBLIC, INFO);
    vec![
        Controller::new("tokencleaner", cleaner).watches(&secrets, |change| match is_one(change.object()) {
            true => vec![Key::of(&**change.object())],
            false => Vec::new(),
        }),
        Controller::new("bootstrapsigner", signer)
            .watches(&secrets, move |change| if is_one(change.object()) { vec![info()] } else { Vec::new() })
            .watches(&maps, move |change| {
                let key = Key::of(&**change.object());
                if key == info() { vec![key] } else { Vec::new() }
            }),
    ]
}

fn is_one(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE) && meta::namespace(&secret.metadata) == NAMESPACE
}

fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

/// How long an invitation still holds; `None`: for ever. One whose end cannot be read is over.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let end = match text(secret, "expiration") {
        "" => return None,
        end => end.parse::<Timestamp>(),
    };
    let left = end.ok().map(|end| end.duration_since(now));
    Some(left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default())
}

struct Cleaner {
    context: Context,
    secrets: Arc<Cache<Secret>>,
}

impl Reconciler for Cleaner {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(secret) = self.secrets.get(&key).filter(|secret| is_one(secret)) else {
                return Ok(Next::OnChange);
            };
            match left(&secret, base::time::now()) {
                None => Ok(Next::OnChange),
                Some(left) if !left.is_zero() => Ok(Next::After(left)),
                Some(_) => {
                    let api: Api<Secret> = self.context.api(NAMESPACE);
                    context::delete_exactly(&api, &secret.metadata, DeleteParams::default()).await?;
                    Ok(Next::OnChange)
                }
            }
        })
    }
}

struct Signer {
    context: Context,
    secrets: Arc<Cache<Secret>>,
    maps: Arc<Cache<ConfigMap>>,
}

impl Reconciler for Signer {
    fn reconcile(&self, key: Key) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(map) = self.maps.get(&key) else { return Ok(Next::OnChange) };
            let held = self.secrets.in_namespace(NAMESPACE);
            let tokens: BTreeMap<&str, &str> =
                held.iter().filter_map(|secret| signs(secret, base::time::now())).collect();
            if let Some(data) = signed(map.data.as_ref(), &tokens) {
                let mut new = (*map).clone();
                new.data = Some(data);
                let api: Api<ConfigMap> = self.context.api(PUBLIC);
                context::ignore_missing(api.replace(INFO, &context::params(), &new).await)?;
            }
            Ok(Next::OnChange)
        })
    }
}

/// Id and secret of an invitation that may be signed with.
fn signs(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = meta::name(&secret.metadata).strip_prefix(PREFIX) == Some(id);
    let holds = is_one(secret)
        && !meta::is_deleting(&secret.metadata)
        && named
        && !id.is_empty()
        && !key.is_empty()
        && text(secret, "usage-bootstrap-signing") == "true"
        && left(secret, now).is_none_or(|left| !left.is_zero());
    holds.then_some((id, key))
}

/// The map's data with the signatures that there should be; `None` when it has those.
fn signed(
    data: Option<&BTreeMap<String, String>>,
    tokens: &BTreeMap<&str, &str>,
) -> Option<BTreeMap<String, String>> {
    let data = data?;
    let content = data.get(SIGNED)?;
    let others = data.iter().filter(|(key, _)| !key.starts_with(SIGNATURE));
    let mut new: BTreeMap<String, String> = others.map(|(k, v)| (k.clone(), v.clone())).collect();
    for (id, key) in tokens {
        new.insert(format!("{SIGNATURE}{id}"), signature(content, id, key));
    }
    (new != *data).then_some(new)
}

/// A JWS whose content is elsewhere.
fn signature(content: &str, id: &str, key: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":{id:?}}}"));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use k8s_openapi::ByteString;

    fn invitation(change: impl Fn(&mut Secret)) -> Secret {
        let mut secret = Secret { type_: Some(TYPE.into()), ..Default::default() };
        secret.metadata.name = Some("bootstrap-token-abcdef".into());
        secret.metadata.namespace = Some(NAMESPACE.into());
        for (key, value) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-signing", "true"),
            ("expiration", &at(60).to_string()),
        ] {
            set(&mut secret, key, value);
        }
        change(&mut secret);
        secret
    }

    fn set(secret: &mut Secret, key: &str, value: &str) {
        secret.data.get_or_insert_default().insert(key.into(), ByteString(value.as_bytes().to_vec()));
    }

    #[test]
    fn an_invitation_holds_until_its_end() {
        let left_of = |end: &str| left(&invitation(|s| set(s, "expiration", end)), at(0));
        assert_eq!(left_of(&at(60).to_string()), Some(Duration::from_secs(60)));
        assert_eq!(left_of(&at(0).to_string()), Some(Duration::ZERO));
        assert_eq!(left_of(&at(-5).to_string()), Some(Duration::ZERO));
        assert_eq!(left_of("some day"), Some(Duration::ZERO));
        assert_eq!(left_of(""), None);
    }

    #[test]
    fn only_what_may_be_signed_with_signs() {
        let check = |change: &dyn Fn(&mut Secret), expected: bool| {
            let secret = invitation(change);
            assert_eq!(signs(&secret, at(0)).is_some(), expected, "{secret:?}");
        };
        check(&|_| (), true);
        check(&|s| set(s, "expiration", ""), true);
        check(&|s| set(s, "expiration", &at(0).to_string()), false);
        check(&|s| set(s, "usage-bootstrap-signing", "false"), false);
        check(&|s| set(s, "token-id", "other1"), false);
        check(&|s| set(s, "token-secret", ""), false);
        check(&|s| s.type_ = Some("Opaque".into()), false);
        check(&|s| s.metadata.namespace = Some("default".into()), false);
    }

    #[test]
    fn signatures_are_brought_up_to_date_and_nothing_else_changes() {
        let data = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let tokens = BTreeMap::from([("abcdef", "0123456789abcdef")]);
        let stale = data(&[("kubeconfig", "x"), ("jws-kubeconfig-gone12", "y"), ("other", "z")]);
        let new = signed(Some(&stale), &tokens).expect("it changes");
        assert_eq!(new.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig", "other"]);
        assert_eq!(signed(Some(&new), &tokens), None, "once is enough");
        assert_eq!(signed(Some(&data(&[("other", "z")])), &tokens), None, "nothing to sign");
        assert_eq!(signed(None, &tokens), None);
    }

    /// Made by another program of the same.
    #[test]
    fn a_signature_is_what_others_make_of_it() {
        assert_eq!(signature("content", "abcdef", "0123456789abcdef"), EXPECTED);
    }

    const EXPECTED: &str =
        "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..psz1NayrXM3IaFzKZGsb5n_mBl7MjtlsZ1xE8MRmF_4";
}
