//! Bootstrap tokens: Secrets by which a new node proves that it was invited. Pure but for the look at the Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{AUTHENTICATED, Identity};
use crate::Server;

pub const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";
const GROUP: &str = "system:bootstrappers";

/// Id and secret of what looks like such a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

fn text(secret: &Value, key: &str) -> String {
    let data = secret["data"][key].as_str().and_then(|t| STANDARD.decode(t).ok());
    data.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// In a time that says nothing of where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

/// A group that such a token may give beside the common one.
fn is_group(name: &str) -> bool {
    let rest = name.strip_prefix("system:bootstrappers:").unwrap_or_default();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !rest.is_empty()
        && rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || matches!(b, b':' | b'-'))
        && rest.bytes().last().is_some_and(plain)
}

/// Whom a Secret stands for when a token names it.
fn identity(secret: &Value, (id, given): (&str, &str), now_seconds: i64) -> Option<Identity> {
    let expiration = text(secret, "expiration");
    let expired = match expiration.as_str() {
        "" => false,
        time => time.parse::<jiff::Timestamp>().map_or(true, |end| end.as_second() <= now_seconds),
    };
    let holds = secret["type"] == TYPE
        && !api::meta::is_deleting(secret)
        && text(secret, "token-id") == id
        && !given.is_empty()
        && same(text(secret, "token-secret").as_bytes(), given.as_bytes())
        && text(secret, "usage-bootstrap-authentication") == "true"
        && !expired;
    if !holds {
        return None;
    }
    let extra = text(secret, "auth-extra-groups");
    let extra: Vec<&str> = extra.split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
    if !extra.iter().all(|group| is_group(group)) {
        return None;
    }
    let mut groups: Vec<String> = extra.into_iter().map(str::to_owned).collect();
    groups.extend([GROUP.to_owned(), AUTHENTICATED.to_owned()]);
    Some(Identity { username: format!("system:bootstrap:{id}"), groups, ..Default::default() })
}

impl Server {
    pub(super) async fn bootstrap_identity(&self, token: &str, now_seconds: i64) -> Option<Identity> {
        let (id, secret) = parts(token)?;
        let kinds = self.catalog.snapshot();
        let kind = kinds.find("", "v1", "secrets")?;
        let (_, found) = self.objects.get(kind, NAMESPACE, &format!("{PREFIX}{id}")).await.ok()??;
        identity(&found, (id, secret), now_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(change: impl Fn(&mut Value), token: &str, expected: Option<&[&str]>) {
        let encode = |text: &str| STANDARD.encode(text);
        let mut secret = json!({"type": TYPE, "metadata": {}, "data": {"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"), "expiration": encode("1970-01-01T00:10:00Z")}});
        change(&mut secret);
        let who = parts(token).and_then(|parts| identity(&secret, parts, 100));
        assert_eq!(
            who.map(|who| who.groups),
            expected.map(|g| g.iter().map(|g| (*g).to_owned()).collect()),
            "{secret}"
        );
    }

    #[test]
    fn only_an_invitation_that_still_holds_lets_in() {
        const TOKEN: &str = "abcdef.0123456789abcdef";
        let encode = |text: &str| Value::from(STANDARD.encode(text));
        check(|_| (), TOKEN, Some(&[GROUP, AUTHENTICATED]));
        check(|_| (), "abcdef.0123456789abcdeg", None);
        check(|_| (), "abcdef.0123456789abcde", None);
        check(|_| (), "Abcdef.0123456789abcdef", None);
        check(|s| s["data"]["expiration"] = encode("1970-01-01T00:01:00Z"), TOKEN, None);
        check(|s| s["data"]["expiration"] = encode("some day"), TOKEN, None);
        check(|s| s["data"]["usage-bootstrap-authentication"] = encode("false"), TOKEN, None);
        check(|s| s["type"] = "Opaque".into(), TOKEN, None);
        check(|s| s["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into(), TOKEN, None);
        let extra = &["system:bootstrappers:workers", GROUP, AUTHENTICATED];
        check(
            |s| s["data"]["auth-extra-groups"] = encode("system:bootstrappers:workers"),
            TOKEN,
            Some(extra),
        );
        check(|s| s["data"]["auth-extra-groups"] = encode("system:masters"), TOKEN, None);
    }
}
