//! A proxy in front of the server that authenticates users itself, and says in headers who asks. It is believed for its
//! certificate: of an authority that signs for nothing else, and under a name that was configured.

use std::collections::BTreeMap;

use ::http::HeaderMap;

use super::{AUTHENTICATED, Identity, said};
use crate::http::query::percent_decode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What signs the certificates of such proxies, as PEM.
    pub authority: String,
    /// The common names they have; none means any that the authority has signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            authority: String::new(),
            allowed_names: Vec::new(),
            username_headers: one("x-remote-user"),
            uid_headers: one("x-remote-uid"),
            group_headers: one("x-remote-group"),
            extra_prefixes: one("x-remote-extra-"),
        }
    }
}

impl RequestHeader {
    pub fn trusts(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// Whom the headers name, if anybody: nobody where one of them cannot be read.
    pub fn identity(&self, headers: &HeaderMap) -> Option<Identity> {
        let all = |names: &[String]| -> Option<Vec<String>> {
            let values = names.iter().flat_map(|name| headers.get_all(name.to_lowercase()));
            let texts = values.map(|value| said(value).map(|text| text.trim().to_owned()));
            Some(texts.collect::<Option<Vec<_>>>()?.into_iter().filter(|text| !text.is_empty()).collect())
        };
        let username = all(&self.username_headers)?.into_iter().next()?;
        let uid = all(&self.uid_headers)?.into_iter().next().unwrap_or_default();
        let mut groups = all(&self.group_headers)?;
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let key = self.extra_prefixes.iter().find_map(|p| name.as_str().strip_prefix(&p.to_lowercase()));
            if let Some(key) = key.filter(|k| !k.is_empty()) {
                extra.entry(percent_decode(key, false)).or_default().push(said(value)?.to_owned());
            }
        }
        Some(Identity { username, uid, groups, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    #[test]
    fn the_headers_of_a_proxy_make_a_user() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "devs"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2Fteam", "a"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let who = RequestHeader::default().identity(&headers).expect("a user");
        assert_eq!((who.username.as_str(), who.uid.as_str()), ("jane", "7"));
        assert_eq!(who.groups, ["devs", "ops", AUTHENTICATED]);
        assert_eq!(who.extra["example.com/team"], ["a"]);
        headers.insert("x-remote-user", "jürgen".parse().expect("a value"));
        headers.append("x-remote-user", HeaderValue::from_static("admin"));
        let who = RequestHeader::default().identity(&headers).expect("a user");
        assert_eq!(who.username, "jürgen", "the first, in any language");
        headers.insert("x-remote-user", HeaderValue::from_bytes(b"j\xff").expect("a value"));
        headers.append("x-remote-user", HeaderValue::from_static("admin"));
        assert_eq!(RequestHeader::default().identity(&headers), None, "what cannot be read is nobody");
        headers.remove("x-remote-user");
        assert_eq!(RequestHeader::default().identity(&headers), None);
    }
}
