//! The `proxy` subresources: what a node, a pod or a service serves, below the API's own address. A pod or a service is
//! named with the scheme and port that are meant: `name`, `name:port`, `http:name:port`.

use std::net::SocketAddr;

use ::http::header::{HOST, HeaderName, HeaderValue, LOCATION};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use api::meta;
use api::status::ApiError;
use serde_json::Value;

use crate::http::body::{Body, full};
use crate::http::respond::Answer;
use crate::proxy::unreachable_service;
use crate::{ApiServer, Context};

/// Where a pod that names no port is asked.
const PORT_DEFAULT: u16 = 80;

/// `scheme:name:port`, with either end left out.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Place<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Self { scheme, name, port })
    }
}

pub async fn proxy(
    server: &ApiServer,
    context: &Context,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    let (below, inner) = split_path(request.uri().path(), context.kind.namespaced);
    let (below, inner) = (below.to_owned(), inner.to_owned());
    let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
    if &*context.kind.plural == "nodes" {
        let address = server.0.node_address(&context.target.name).await?;
        let inner = if inner.is_empty() { "/" } else { &inner };
        return server.0.nodes.forward(address, &format!("{inner}{query}"), request).await;
    }
    let name = &context.target.name;
    let place = Place::parse(name).ok_or_else(|| {
        ApiError::bad_request(format!("invalid {} request {name:?}", context.kind.singular))
    })?;
    let address = match &*context.kind.plural {
        "services" => service_address(server, context, &place).await?,
        _ => pod_address(server, context, &place).await?,
    };
    if place.scheme == "https" {
        return Err(unreachable_service("https backends are not supported"));
    }
    // What is served takes its own paths for relative to here.
    if inner.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) {
        return moved(&format!("{}/{query}", request.uri().path()));
    }
    let inner = if inner.is_empty() { "/" } else { &inner };
    let mut request = request;
    said_of(request.headers_mut(), &below, inner);
    let mut answer = server.0.nodes.forward_plain(address, &format!("{inner}{query}"), request).await?;
    relocate(&mut answer, address, &below);
    Ok(answer)
}

/// The path up to the subresource's name, and what follows it, as it came.
fn split_path(path: &str, namespaced: bool) -> (&str, &str) {
    let slashes = if namespaced { 7 } else { 5 };
    match path.match_indices('/').nth(slashes) {
        Some((at, _)) => path.split_at(at),
        None => (path, ""),
    }
}

fn moved(place: &str) -> Result<Answer, ApiError> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let place = HeaderValue::from_str(place).map_err(ApiError::internal)?;
    answer.headers_mut().insert(LOCATION, place);
    Ok(answer)
}

/// Tells what is behind how it was reached, and nothing of who asks.
fn said_of(headers: &mut HeaderMap, below: &str, inner: &str) {
    headers.remove(::http::header::AUTHORIZATION);
    let host = headers.get(HOST).cloned();
    if let Ok(uri) = HeaderValue::from_str(&format!("{below}{inner}")) {
        headers.insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
    if let Some(host) = host {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
}

/// A redirect within what is served leads to it through here.
fn relocate(answer: &mut Answer, address: SocketAddr, below: &str) {
    let Some(place) = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
    let own = format!("http://{address}");
    let inner = match place.strip_prefix(&own) {
        Some(inner) => inner,
        None if place.starts_with('/') && !place.starts_with("//") => place,
        None => return,
    };
    if let Ok(place) = HeaderValue::from_str(&format!("{below}{inner}")) {
        answer.headers_mut().insert(LOCATION, place);
    }
}

async fn pod_address(
    server: &ApiServer,
    context: &Context,
    place: &Place<'_>,
) -> Result<SocketAddr, ApiError> {
    let found = server.0.objects.get(&context.kind, &context.target.namespace, place.name).await?;
    let (_, pod) = found.ok_or_else(|| ApiError::not_found(&context.resource(), place.name))?;
    let ports = || {
        pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|c| c["ports"].as_array().into_iter().flatten())
    };
    let number = |port: &Value| port["containerPort"].as_u64().and_then(|p| u16::try_from(p).ok());
    let port = match place.port {
        "" => ports().find_map(number).unwrap_or(PORT_DEFAULT),
        text => text
            .parse()
            .ok()
            .or_else(|| ports().find(|p| p["name"] == text).and_then(number))
            .ok_or_else(|| ApiError::bad_request(format!("pod {} has no port {text:?}", place.name)))?,
    };
    let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    Ok(SocketAddr::new(ip, port))
}

async fn service_address(
    server: &ApiServer,
    context: &Context,
    place: &Place<'_>,
) -> Result<SocketAddr, ApiError> {
    let namespace = &context.target.namespace;
    let found = server.0.objects.get(&context.kind, namespace, place.name).await?;
    let (_, service) = found.ok_or_else(|| ApiError::not_found(&context.resource(), place.name))?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    // A number is that of the service; endpoints know the port by its name.
    let name = match place.port.parse::<u64>() {
        Ok(number) => {
            let port = ports.iter().find(|p| p["port"] == number);
            let none = || {
                ApiError::unavailable(format!("no service port {number} found for service {:?}", place.name))
            };
            port.ok_or_else(none)?["name"].as_str().unwrap_or_default().to_owned()
        }
        Err(_) => place.port.to_owned(),
    };
    let kinds = server.0.catalog.snapshot();
    let slices = kinds.find("discovery.k8s.io", "v1", "endpointslices").ok_or_else(ApiError::no_such_path)?;
    let slices: Vec<Value> = server.0.objects.all(slices).await?;
    let own = slices.iter().filter(|slice| {
        let label =
            meta::metadata(slice).get("labels").and_then(|l| l.get(base::constants::labels::SERVICE_NAME));
        meta::namespace(slice) == namespace && label.and_then(Value::as_str) == Some(place.name)
    });
    let addresses: Vec<SocketAddr> = own.flat_map(|slice| ready(slice, &name)).collect();
    let none =
        || ApiError::unavailable(format!("no endpoints available for service {:?}", context.target.name));
    let chosen = usize::from(u16::from_le_bytes(base::id::random_bytes())) % addresses.len().max(1);
    addresses.get(chosen).copied().ok_or_else(none)
}

/// The addresses of a slice that take traffic at the port of this name.
fn ready(slice: &Value, port: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let mut ports = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port);
    let port = ports.find_map(|p| p["port"].as_u64().and_then(|p| u16::try_from(p).ok()));
    let Some(port) = port else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let endpoints = endpoints.filter(|e| e["conditions"]["ready"].as_bool() != Some(false));
    let addresses = endpoints.filter_map(|e| e["addresses"][0].as_str()?.parse().ok());
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_and_paths() {
        for (text, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:http", Some(("", "web", "http"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("http:web:", Some(("http", "web", ""))),
            ("ftp:web:1", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            let place = Place::parse(text).map(|p| (p.scheme, p.name, p.port));
            assert_eq!(place, expected, "{text}");
        }
        let pod = "/api/v1/namespaces/n/pods/p:80/proxy";
        assert_eq!(split_path(&format!("{pod}/a%2Fb/c"), true), (pod, "/a%2Fb/c"));
        assert_eq!(split_path(pod, true), (pod, ""));
        assert_eq!(split_path("/api/v1/nodes/n/proxy/healthz", false), ("/api/v1/nodes/n/proxy", "/healthz"));
    }

    #[test]
    fn only_ready_endpoints_of_the_port() {
        let slice = json!({"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}]});
        assert_eq!(ready(&slice, "b"), ["10.0.0.2:2".parse().expect("an address")]);
        assert_eq!(ready(&slice, "c"), []);
    }

    #[test]
    fn redirects_stay_below() {
        let told = |place: &'static str| {
            let mut answer = Response::new(full(""));
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static(place));
            relocate(&mut answer, "10.0.0.1:80".parse().expect("an address"), "/below");
            answer.headers()[LOCATION].to_str().unwrap_or_default().to_owned()
        };
        assert_eq!(told("/x"), "/below/x");
        assert_eq!(told("http://10.0.0.1:80/y"), "/below/y");
        assert_eq!(told("https://example.com/"), "https://example.com/");
        assert_eq!(told("z"), "z");
    }
}
