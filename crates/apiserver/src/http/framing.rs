//! What a request of HTTP/1.1 says of its own form, where that could be understood in two ways: a proxy in front that reads it
//! otherwise would take a part of one user's request for another's. The HTTP library refuses what it cannot read itself; what
//! it reads and the original refuses is refused here, and the connection ends.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::body::{Body, full};

/// Why a request is not looked at any further.
pub fn refused<B>(request: &Request<B>) -> Option<Response<Body>> {
    let target = (request.method(), request.uri());
    let (status, why) = nowhere(target).or_else(|| fault(request.version(), request.headers()))?;
    let mut answer = Response::new(full(why));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

/// A host without a path is a place to connect to, and for nothing else.
fn nowhere((method, uri): (&Method, &Uri)) -> Option<(StatusCode, &'static str)> {
    let is_bare = uri.scheme().is_none() && uri.authority().is_some();
    (is_bare && method != Method::CONNECT).then_some((StatusCode::BAD_REQUEST, "400 Bad Request"))
}

fn fault(version: Version, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    if version > Version::HTTP_11 {
        return None;
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Some((StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding"));
    }
    let mut hosts = headers.get_all(HOST).iter();
    match hosts.next() {
        None if version == Version::HTTP_11 => {
            return Some((StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header"));
        }
        Some(host) if !host.as_bytes().iter().all(|byte| may_be_in_host(*byte)) => {
            return Some((StatusCode::BAD_REQUEST, "400 Bad Request: malformed Host header"));
        }
        _ => {}
    }
    if hosts.next().is_some() {
        return Some((StatusCode::BAD_REQUEST, "400 Bad Request: too many Host headers"));
    }
    let expected = headers.get(EXPECT).map(HeaderValue::as_bytes).unwrap_or_default();
    let known = expected.is_empty() || expected.eq_ignore_ascii_case(b"100-continue");
    (!known).then_some((StatusCode::EXPECTATION_FAILED, ""))
}

/// As RFC 3986 has it of a host with a port.
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As heard from kube-apiserver v1.36.2.
    #[test]
    fn one_reading_or_none() {
        let check = |version: Version, given: &[(&str, &str)], expected: u16| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.append(
                    http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                    HeaderValue::from_str(value).expect("a value"),
                );
            }
            let found = fault(version, &headers).map_or(200, |(status, _)| status.as_u16());
            assert_eq!(found, expected, "{version:?} {given:?}");
        };
        let (host, one) = (("host", "a:6443"), Version::HTTP_11);
        for encoding in ["chunked", "Chunked", "CHUNKED"] {
            check(one, &[host, ("transfer-encoding", encoding)], 200);
        }
        let odd = ["gzip, chunked", "gzip", "chunked, chunked", "identity, chunked", "chunked;q=1", ""];
        for encoding in odd.into_iter().chain(["xchunked", ", chunked", "chunked,", "\"chunked\""]) {
            check(one, &[host, ("transfer-encoding", encoding)], 501);
        }
        check(one, &[host, ("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], 501);
        check(one, &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], 501);
        check(one, &[], 400);
        check(Version::HTTP_10, &[], 200);
        check(Version::HTTP_2, &[], 200);
        check(one, &[host, host], 400);
        for (name, code) in [("a/b@c d", 400), ("[::1]:6443", 200), ("", 200), ("a_b~", 200), ("a\"", 400)] {
            check(one, &[("host", name)], code);
        }
        check(one, &[host, ("expect", "100-Continue")], 200);
        check(one, &[host, ("expect", "x")], 417);
    }
}
