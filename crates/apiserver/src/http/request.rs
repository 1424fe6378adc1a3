//! What a request asks for, read from its method and path before anything else looks at it.

use http::Method;

use super::query::{Query, percent_decode};
use crate::auth::rbac::Attributes;

/// A request about a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub namespace: String,
    pub name: String,
    /// The one name that a field selector leaves: rights to that object suffice.
    pub selected: String,
    /// The fields that a list or a watch is limited to, and the one value each must have.
    pub fields: Box<[(String, String)]>,
    pub subresource: String,
    /// What follows the subresource (`…/proxy/path`).
    pub rest: String,
    pub verb: &'static str,
}

impl Target {
    /// Whether the answer is what a node, a pod or a service says.
    pub fn streams(&self) -> bool {
        matches!(&*self.subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Resource(Target),
    Path(String),
}

impl Asked {
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        match target(method, path, query) {
            Some(target) => Self::Resource(target),
            None => Self::Path(path.to_owned()),
        }
    }

    /// Whether it lasts for as long as whoever asks wants.
    pub fn is_long(&self) -> bool {
        matches!(self, Self::Resource(target) if target.verb == "watch" || target.streams())
    }

    pub fn attributes(&self, method: &Method) -> Attributes {
        match self {
            Self::Resource(t) => Attributes {
                verb: t.verb.to_owned(),
                resource: t.plural.clone(),
                subresource: t.subresource.clone(),
                group: t.group.clone(),
                namespace: t.namespace.clone(),
                name: if t.name.is_empty() { t.selected.clone() } else { t.name.clone() },
                path: String::new(),
                fields: t.fields.to_vec(),
            },
            Self::Path(path) => {
                Attributes { verb: method.as_str().to_lowercase(), path: path.clone(), ..Default::default() }
            }
        }
    }
}

fn target(method: &Method, path: &str, query: &Query) -> Option<Target> {
    // As a whole: an encoded slash parts names like any other, and never becomes part of one.
    let path = percent_decode(path, false);
    let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
    let group = match parts.next()?.as_str() {
        "api" => String::new(),
        "apis" => parts.next()?,
        _ => return None,
    };
    let version = parts.next()?;
    let mut rest: Vec<String> = parts.collect();
    if rest.first().is_none_or(String::is_empty) {
        return None;
    }
    // The old way to ask for a watch, also of one object.
    let watches = rest[0] == "watch" && rest.len() > 1;
    if watches {
        rest.remove(0);
    }
    let mut namespace = String::new();
    // `namespaces/x/pods` is about pods; `namespaces/x` and its own subresources are about the namespace.
    let own = |sub: &str| matches!(sub, "status" | "finalize");
    if rest[0] == "namespaces" && rest.len() > 2 && !own(&rest[2]) {
        namespace.clone_from(&rest[1]);
        rest.drain(..2);
    }
    let mut rest = rest.into_iter();
    let plural = rest.next()?;
    let name = rest.next().unwrap_or_default();
    if plural == "namespaces" && group.is_empty() {
        // A namespace lies in itself, so that roles within it can name it.
        namespace.clone_from(&name);
    }
    let subresource = rest.next().unwrap_or_default();
    let rest = rest.collect::<Vec<_>>().join("/");
    let verb = match watches {
        true if matches!(*method, Method::GET | Method::HEAD) => "watch",
        true => "",
        false => verb(method, &name, query),
    };
    let over_many = matches!(verb, "list" | "watch" | "deletecollection");
    let fields = query.get("fieldSelector").filter(|_| over_many).unwrap_or_default();
    let fields: Box<[(String, String)]> = fields.split(',').filter_map(equality).collect();
    let selected = fields.iter().find(|(field, _)| field == "metadata.name");
    let selected = selected.map(|(_, name)| name.clone()).unwrap_or_default();
    Some(Target { group, version, plural, namespace, name, selected, fields, subresource, rest, verb })
}

/// `field=value` or `field==value`; what a field must not be limits nothing.
pub fn equality(requirement: &str) -> Option<(String, String)> {
    let (field, value) = requirement.split_once('=')?;
    (!field.ends_with('!')).then(|| (field.to_owned(), value.trim_start_matches('=').to_owned()))
}

fn verb(method: &Method, name: &str, query: &Query) -> &'static str {
    let named = !name.is_empty();
    let watching = query.flag("watch");
    match *method {
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD if watching => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, uri: &str, expected: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let shown = match Asked::parse(&method, path, &Query::parse(query)) {
            Asked::Resource(t) => {
                format!(
                    "{} {}/{} {} ns={} name={} sub={} {}",
                    t.verb, t.group, t.version, t.plural, t.namespace, t.name, t.subresource, t.rest
                )
            }
            Asked::Path(path) => path,
        };
        assert_eq!(shown.trim(), expected);
    }

    #[test]
    fn paths_are_read_as_the_api_means_them() {
        check(Method::GET, "/api/v1/namespaces/a/pods/p/log?follow=true", "get /v1 pods ns=a name=p sub=log");
        check(Method::GET, "/api/v1/pods?watch=1", "watch /v1 pods ns= name= sub=");
        check(Method::GET, "/api/v1/namespaces/a/pods/p?watch=1", "get /v1 pods ns=a name=p sub=");
        check(Method::GET, "/api/v1/watch/namespaces/a/pods/p", "watch /v1 pods ns=a name=p sub=");
        check(Method::GET, "/apis/apps/v1/watch/deployments", "watch apps/v1 deployments ns= name= sub=");
        check(Method::POST, "/api/v1/watch/pods", "/v1 pods ns= name= sub=");
        check(Method::GET, "/api/v1/namespaces/a/configmaps/x%2Fy", "get /v1 configmaps ns=a name=x sub=y");
        check(
            Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab",
            "get rbac.authorization.k8s.io/v1 clusterroles ns= name=a:b sub=",
        );
        check(Method::GET, "/api/v1/namespaces/a", "get /v1 namespaces ns=a name=a sub=");
        check(Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 namespaces ns=a name=a sub=finalize");
        check(
            Method::POST,
            "/apis/apps/v1/namespaces/a/deployments",
            "create apps/v1 deployments ns=a name= sub=",
        );
        check(
            Method::DELETE,
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 deployments ns=a name= sub=",
        );
        check(
            Method::GET,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
            "get rbac.authorization.k8s.io/v1 clusterroles ns= name=system:node sub=",
        );
        check(Method::GET, "/apis/apps/v1", "/apis/apps/v1");
        check(Method::GET, "/healthz", "/healthz");
        check(Method::GET, "/api/v1/nodes/n/proxy/metrics/x", "get /v1 nodes ns= name=n sub=proxy metrics/x");
    }
}
