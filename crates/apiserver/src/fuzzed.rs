//! What reads what others send, as functions of bytes: for fuzzers, and for the test that runs what they have kept.

use ::http::Method;

use crate::audit::policy::Policy;
use crate::auth::jwk::Jwt;
use crate::cipher;
use crate::health;
use crate::http::accept::{Form, Offer};
use crate::http::options::ListOptions;
use crate::http::query::Query;
use crate::http::request::Asked;
use crate::proxy;
use crate::verbs::list::Continue;

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] =
    &[("request", request), ("token", token), ("configuration", configuration), ("sealed", sealed)];

/// A path, a query and what is accepted, a line each.
fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let (path, query) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let accept = lines.next();
    let query = Query::parse(query);
    for watch in [true, false] {
        drop(ListOptions::parse(&query, watch));
        let offer = Offer { protobuf: true, shapes: true, stream: watch, list: !watch, routed: true };
        drop(Form::parse(accept, offer));
    }
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let asked = Asked::parse(&method, path, &query);
        asked.attributes(&method);
    }
    drop(health::Probe::parse(path, &query));
    let cleaned = proxy::cleaned(path);
    assert!(cleaned.starts_with('/') && !cleaned.split('/').any(|part| part == ".."), "{cleaned}");
    assert_eq!(proxy::cleaned(&cleaned), cleaned, "clean is clean");
}

/// A bearer token, and where a list goes on.
fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(token) = Jwt::parse(text) {
        assert!(!token.is_signed_by(&serde_json::json!({"kty": "EC", "crv": "P-256", "x": "", "y": ""})));
    }
    drop(Continue::decode(text));
}

/// The files that a server is started with.
fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    drop(cipher::config::parse(text, cipher::kms::Times::default()));
    drop(Policy::parse(text));
    drop(api::authentication::parse(text, "https://kubernetes.default.svc"));
}

/// What was stored sealed with a key that a plugin keeps.
fn sealed(data: &[u8]) {
    drop(cipher::kms::envelope::read(data));
}
