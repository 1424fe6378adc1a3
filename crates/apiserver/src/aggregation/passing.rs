//! Passing a request on: the path as it is, who asks in headers, and nothing of how they proved it.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Request, StatusCode};
use api::status::ApiError;

use super::Remote;
use crate::Server;
use crate::auth::Identity;
use crate::http::body::{Body, boxed};
use crate::http::query::percent_encode;
use crate::http::respond::{self, Answer};
use crate::proxy;

impl Server {
    pub(crate) async fn pass_on(
        &self,
        remote: &Remote,
        who: &Identity,
        request: Request<Body>,
    ) -> Result<Answer, ApiError> {
        let unavailable = |why: &dyn std::fmt::Display| {
            let text = format!("error trying to reach service: {why}");
            respond::bytes(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text)
        };
        let backend = match (&remote.backend, self.aggregation.heard(remote).available) {
            (Ok(backend), true) => backend,
            (Err(error), _) => return Ok(unavailable(error)),
            (Ok(_), false) => {
                let form = "text/plain; charset=utf-8";
                return Ok(respond::bytes(StatusCode::SERVICE_UNAVAILABLE, form, "service unavailable\n"));
            }
        };
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() =
            path.parse().map_err(|_| ApiError::bad_request("the path cannot be passed on"))?;
        *outgoing.headers_mut() = headers(&parts.headers, who)?;
        match backend.send(self, outgoing).await {
            Ok(answer) => proxy::through(answer.map(boxed), upgrade),
            Err(error) => Ok(unavailable(&error)),
        }
    }
}

/// The client's headers without those that prove or claim who it is, and with those by which we vouch for it.
fn headers(given: &HeaderMap, who: &Identity) -> Result<HeaderMap, ApiError> {
    let mut headers = given.clone();
    let claims: Vec<HeaderName> = given
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name.starts_with("x-remote-") || name.starts_with("impersonate-")
        })
        .cloned()
        .collect();
    for name in claims.iter().chain([&header::AUTHORIZATION, &header::HOST]) {
        headers.remove(name);
    }
    let value = |text: &str| {
        HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| ApiError::bad_request("the user's name cannot be passed on"))
    };
    headers.insert("x-remote-user", value(&who.username)?);
    if !who.uid.is_empty() {
        headers.insert("x-remote-uid", value(&who.uid)?);
    }
    for group in &who.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &who.extra {
        let name = format!("x-remote-extra-{}", percent_encode(&key.to_lowercase()));
        let name = HeaderName::try_from(name)
            .map_err(|_| ApiError::bad_request("the user's extra fields cannot be passed on"))?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_vouches_for_themselves() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "root"),
            ("authorization", "Bearer secret"),
            ("accept", "application/json"),
        ] {
            given.insert(name, HeaderValue::from_static(value));
        }
        let mut who = Identity::new("jane", &["devs"]);
        who.extra.insert("example.com/Team".into(), vec!["a".into(), "b".into()]);
        let sent = headers(&given, &who).expect("headers");
        let all =
            |name: &str| sent.get_all(name).iter().map(|v| v.to_str().expect("text")).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-group"), ["devs", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2Fteam"), ["a", "b"]);
        assert_eq!(all("accept"), ["application/json"]);
        for gone in ["authorization", "impersonate-user", "x-remote-extra-scopes"] {
            assert!(all(gone).is_empty(), "{gone}");
        }
    }
}
