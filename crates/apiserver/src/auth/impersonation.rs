//! Speaking for somebody else (`Impersonate-*` headers). There are five ways to be allowed it, the narrow ones first
//! (KEP-5284): the node that an account's pod runs on, any node, an account, whoever else; each is a right to speak for them and
//! one to do this very thing in their name. The last way, the right to `impersonate`, is that of old and knows no bounds.
//!
//! What has to be allowed is found here, from the request alone; `gate.rs` asks for it.

use std::collections::BTreeMap;

use ::http::{HeaderMap, HeaderValue};
use api::kinds::names::{Rule, fault, is_label, is_subdomain};
use api::status::ApiError;

use super::rbac::Attributes;
use super::{AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED, said};
use crate::http::query::percent_decode;

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const GROUP_OF_IDENTITIES: &str = "authentication.k8s.io";
/// Where an account's token says which node its pod runs on.
const NODE_OF_ACCOUNT: &str = "authentication.kubernetes.io/node-name";
/// From so many on, the right to all of a kind is asked for before that to each.
const MANY: usize = 4;

/// A way to be allowed to speak for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

/// What must be allowed.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Where this is allowed, `each` need not be asked for.
    pub all: Option<Attributes>,
    pub each: Vec<Attributes>,
    /// What no right allows, and why.
    pub never: Option<(Attributes, String)>,
}

/// What a header says. One that cannot be read is never taken for one that is not there: whoever sent it would act as themselves.
fn text(name: &str, value: &HeaderValue) -> Result<String, ApiError> {
    let text = said(value).map(str::to_owned);
    text.ok_or_else(|| ApiError::bad_request(format!("the header {name} is not UTF-8")))
}

/// Whom a request wants to speak for, as its headers say; nobody else where there are none.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Option<Identity>, ApiError> {
    let one = |name: &str| headers.get(name).map_or(Ok(String::new()), |value| text(name, value));
    let groups = headers.get_all(GROUP).iter().map(|value| text(GROUP, value)).collect::<Result<_, _>>()?;
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(percent_decode(key, false)).or_default().push(text(name.as_str(), value)?);
        }
    }
    let wanted = Identity { username: one(USER)?, uid: one(UID)?, groups, extra };
    if !wanted.username.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted.is_username_alone() {
        return Ok(None);
    }
    let names = [(!wanted.uid.is_empty(), UID), (!wanted.groups.is_empty(), GROUP), (true, EXTRA)];
    let name = names.into_iter().find_map(|(is_there, name)| is_there.then_some(name)).unwrap_or(EXTRA);
    let name = name.trim_end_matches('-');
    Err(ApiError::bad_request(format!("requested {name} without impersonating a user name: send {USER} too")))
}

impl Identity {
    fn is_username_alone(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }
}

/// Namespace and name of the service account that a user is.
fn account(username: &str) -> Option<(&str, &str)> {
    let (namespace, name) = username.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (is_label(namespace) && is_subdomain(name)).then_some((namespace, name))
}

/// The node that a user is, by its name alone.
fn node(username: &str) -> Option<&str> {
    username.strip_prefix("system:node:").filter(|name| is_subdomain(name))
}

/// The ways that are open for these two, in the order in which they are tried.
pub(super) fn modes(who: &Identity, wanted: &Identity) -> Vec<Mode> {
    let alone = wanted.is_username_alone();
    let mut modes = Vec::new();
    match (node(&wanted.username), account(&wanted.username)) {
        (Some(name), _) => {
            let is_theirs = who.extra.get(NODE_OF_ACCOUNT).is_some_and(|names| names.as_slice() == [name]);
            if alone && is_theirs && account(&who.username).is_some() {
                modes.push(Mode::AssociatedNode);
            }
            modes.extend(alone.then_some(Mode::ArbitraryNode));
        }
        (None, Some(_)) => modes.extend(alone.then_some(Mode::ServiceAccount)),
        (None, None) => modes.push(Mode::UserInfo),
    }
    modes.push(Mode::Legacy);
    modes
}

impl Mode {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::AssociatedNode => Some("associated-node"),
            Self::ArbitraryNode => Some("arbitrary-node"),
            Self::ServiceAccount => Some("serviceaccount"),
            Self::UserInfo => Some("user-info"),
            Self::Legacy => None,
        }
    }

    /// The right to speak for somebody in this way, as the audit names it; that of old has no bounds to name.
    pub(super) fn constraint(self) -> Option<String> {
        self.name().map(|name| format!("impersonate:{name}"))
    }

    fn right(self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: self.constraint().unwrap_or_else(|| "impersonate".into()),
            group: group.into(),
            resource: resource.into(),
            name: name.into(),
            ..Default::default()
        }
    }

    /// All that must be allowed to do this in the name of whoever is wanted, in the order in which it is asked for.
    pub(super) fn checks(self, wanted: &Identity, this: &Attributes) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(name) = self.name() {
            let verb = format!("impersonate-on:{name}:{}", this.verb);
            checks.push(Check { each: vec![Attributes { verb, ..this.clone() }], ..Default::default() });
        }
        checks.push(Check { each: vec![self.username(&wanted.username)], ..Default::default() });
        if !wanted.uid.is_empty() {
            let uid = self.right(GROUP_OF_IDENTITIES, "uids", &wanted.uid);
            checks.push(Check { each: vec![uid], ..Default::default() });
        }
        checks.extend((!wanted.groups.is_empty()).then(|| self.groups(&wanted.groups)));
        checks.extend((!wanted.extra.is_empty()).then(|| self.extra(&wanted.extra)));
        checks
    }

    /// The API group that users and groups are of: bounds came with an own one.
    fn group_of_users(self) -> &'static str {
        match self {
            Self::Legacy => "",
            _ => GROUP_OF_IDENTITIES,
        }
    }

    fn username(self, username: &str) -> Attributes {
        let group = self.group_of_users();
        match (self, node(username), account(username)) {
            // Whichever node it is: an account that may speak for its own may do so wherever its pods run.
            (Self::AssociatedNode, ..) => self.right(group, "nodes", "*"),
            (Self::ArbitraryNode, Some(name), _) => self.right(group, "nodes", name),
            (_, _, Some((namespace, name))) => {
                Attributes { namespace: namespace.into(), ..self.right(group, "serviceaccounts", name) }
            }
            _ => self.right(group, "users", username),
        }
    }

    fn groups(self, groups: &[String]) -> Check {
        let right = |name: &str| self.right(self.group_of_users(), "groups", name);
        let is_narrow = self != Self::Legacy;
        let has = |name: &str| groups.iter().any(|group| group == name);
        let never = match is_narrow {
            true if has("") => {
                Some((right(""), "impersonating the empty string group is not allowed".to_owned()))
            }
            true if has(MASTERS) => {
                Some((right(MASTERS), format!("impersonating the {MASTERS} group is not allowed")))
            }
            _ => None,
        };
        let all = (is_narrow && groups.len() >= MANY).then(|| right("*"));
        Check { all, each: groups.iter().map(|group| right(group)).collect(), never }
    }

    fn extra(self, extra: &BTreeMap<String, Vec<String>>) -> Check {
        let right = |key: &str, value: &str| Attributes {
            subresource: key.into(),
            ..self.right(GROUP_OF_IDENTITIES, "userextras", value)
        };
        let values = || extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let is_narrow = self != Self::Legacy;
        let fault = extra.iter().find_map(|(key, values)| extra_fault(key, values));
        Check {
            all: (is_narrow && values().count() >= MANY).then(|| right("*", "*")),
            each: values().map(|(key, value)| right(key, value)).collect(),
            never: fault.filter(|_| is_narrow).map(|fault| (right("", ""), fault)),
        }
    }

    /// Who a request is of once it is allowed.
    pub(super) fn becomes(self, mut wanted: Identity) -> Identity {
        if let Some((namespace, _)) = account(&wanted.username)
            && wanted.groups.is_empty()
        {
            wanted.groups =
                vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        if matches!(self, Self::AssociatedNode | Self::ArbitraryNode) {
            wanted.groups = vec!["system:nodes".into()];
        }
        let always = match wanted.username == Identity::anonymous().username {
            true => UNAUTHENTICATED,
            false => AUTHENTICATED,
        };
        if !wanted.is_in(always) && !wanted.is_in(UNAUTHENTICATED) {
            wanted.groups.push(always.into());
        }
        wanted
    }
}

/// Why an extra field cannot be claimed in the narrow ways.
fn extra_fault(key: &str, values: &[String]) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".into());
    }
    if let Some(fault) = path_fault(key) {
        return Some(format!("impersonating an invalid key in extra is not allowed: extra.key: {fault}"));
    }
    if key.to_lowercase() != key {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    let is_empty = values.iter().any(String::is_empty);
    is_empty.then(|| "impersonating the empty string value in extra is not allowed".into())
}

/// What is wrong with a path that is to begin with a domain.
fn path_fault(text: &str) -> Option<String> {
    let parts = text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    let Some((domain, path)) = parts else {
        return Some(format!(
            "Invalid value: {text:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"
        ));
    };
    if let Some(fault) = fault(Rule::Subdomain, domain) {
        return Some(format!("Invalid value: {domain:?}: {fault}"));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    (!path.bytes().all(fits)).then(|| {
        let form = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
        format!("Invalid value: {path:?}: Invalid path (regex used for validation is '{form}')")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name: ::http::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn who_is_wanted_is_said_by_headers() {
        assert_eq!(wanted(&headers(&[])).expect("nobody"), None);
        let told = wanted(&headers(&[
            (USER, "jane"),
            (UID, "7"),
            (GROUP, "a"),
            (GROUP, "b"),
            ("Impersonate-Extra-Acme.com%2Fproject", "x"),
        ]));
        let told = told.expect("good headers").expect("somebody");
        assert_eq!((told.username.as_str(), told.uid.as_str()), ("jane", "7"));
        assert_eq!(told.groups, ["a", "b"]);
        assert_eq!(told.extra["acme.com/project"], ["x"]);
        for name in [USER, UID, GROUP, "impersonate-extra-k"] {
            let mut map = headers(&[(USER, "jane")]);
            map.insert(name, "jürgen".parse().expect("a value"));
            let told = wanted(&map).expect("good headers").expect("somebody");
            assert!(format!("{told:?}").contains("jürgen"), "{told:?}");
            map.insert(name, HeaderValue::from_bytes(b"j\xff").expect("a value"));
            assert!(wanted(&map).is_err(), "{name} cannot be read");
        }
        for alone in [(UID, "1"), (GROUP, "g"), ("impersonate-extra-k", "v")] {
            let error = wanted(&headers(&[alone])).expect_err("nobody is spoken for");
            assert!(error.to_string().contains("impersonate-user"), "{error}");
        }
    }

    #[test]
    fn each_is_spoken_for_in_ways_of_their_own() {
        let jane = Identity::new("jane", &[]);
        let mut agent = Identity::new("system:serviceaccount:ns:agent", &[]);
        agent.extra.insert(NODE_OF_ACCOUNT.into(), vec!["n1".into()]);
        let user = |name: &str| Identity { username: name.into(), ..Default::default() };
        let check = |who: &Identity, wanted: &Identity, expected: &[Mode]| {
            assert_eq!(modes(who, wanted), expected, "{} for {}", who.username, wanted.username);
        };
        check(&jane, &user("bob"), &[Mode::UserInfo, Mode::Legacy]);
        check(&jane, &user("system:serviceaccount:a:b"), &[Mode::ServiceAccount, Mode::Legacy]);
        check(&jane, &user("system:serviceaccount:a:b:c"), &[Mode::UserInfo, Mode::Legacy]);
        check(&jane, &user("system:node:n1"), &[Mode::ArbitraryNode, Mode::Legacy]);
        check(&jane, &user("system:node:N 1"), &[Mode::UserInfo, Mode::Legacy]);
        check(&agent, &user("system:node:n1"), &[Mode::AssociatedNode, Mode::ArbitraryNode, Mode::Legacy]);
        check(&agent, &user("system:node:n2"), &[Mode::ArbitraryNode, Mode::Legacy]);
        let mut liar = jane.clone();
        liar.extra = agent.extra.clone();
        check(&liar, &user("system:node:n1"), &[Mode::ArbitraryNode, Mode::Legacy]);
        for narrow in ["system:node:n1", "system:serviceaccount:a:b"] {
            let wanted = Identity { groups: vec!["g".into()], ..user(narrow) };
            check(&agent, &wanted, &[Mode::Legacy]);
        }
    }
}
