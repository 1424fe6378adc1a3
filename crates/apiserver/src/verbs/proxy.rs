//! The `proxy` subresources: what a node, a pod or a service serves, below the API's own address. A pod or a service is
//! named with the scheme and port that are meant: `name`, `name:port`, `https:name:port`. A certificate is not looked at:
//! what pods serve is signed by whomever.

use std::net::{IpAddr, SocketAddr};

use ::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST, HeaderName, HeaderValue, LOCATION, UPGRADE,
};
use ::http::{Method, Request, Response, StatusCode};
use api::meta;
use api::status::ApiError;
use serde_json::Value;

use crate::audit::Peer;
use crate::http::body::{Body, full};
use crate::http::respond::Answer;
use crate::proxy::{Links, cleaned, links_changed, unreachable_service};
use crate::{ApiServer, Context};

/// Where a pod that names no port is asked.
const PORT_DEFAULT: u16 = 80;
const PORT_DEFAULT_SECURE: u16 = 443;

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
    let name = &context.target.name;
    let place = Place::parse(name).ok_or_else(|| {
        ApiError::bad_request(format!("invalid {} request {name:?}", context.kind.singular))
    })?;
    let secure = place.scheme == "https";
    // The agent of a node is asked as itself, and known by its certificate.
    let mut agent = false;
    let address = match &*context.kind.plural {
        "services" => service_address(server, context, &place).await?,
        "nodes" => {
            let own = server.0.node_address(place.name).await?;
            let unknown =
                |_| unreachable_service(&format!("dial tcp: lookup tcp/{}: unknown port", place.port));
            let port =
                if place.port.is_empty() { own.port() } else { place.port.parse().map_err(unknown)? };
            agent = port == own.port();
            allowed(SocketAddr::new(own.ip(), port))?
        }
        _ => pod_address(server, context, &place).await?,
    };
    // What is served takes its own paths for relative to here.
    let is_upgrade = request.headers().contains_key(UPGRADE);
    if inner.is_empty() && matches!(*request.method(), Method::GET | Method::HEAD) && !is_upgrade {
        return moved(&format!("{}/{query}", request.uri().path()));
    }
    let inner = &cleaned(&inner);
    let asked = request.headers().get(HOST).cloned();
    let authority = || request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    let asked = asked.or_else(authority);
    let mut request = request;
    said_of(&mut request, &below, inner);
    let (nodes, path) = (&server.0.nodes, format!("{inner}{query}"));
    let answer = match agent {
        true => nodes.forward(address, &path, request).await?,
        false => {
            let own = HeaderValue::from_str(&address.to_string()).map_err(ApiError::internal)?;
            nodes.forward_to((address, secure), asked.clone().unwrap_or(own), &path, request).await?
        }
    };
    Ok(as_from_here(answer, &links(below, address, secure || agent, asked.as_ref())))
}

/// How what is served may name itself.
fn links(below: String, address: SocketAddr, secure: bool, asked: Option<&HeaderValue>) -> Links {
    let mut own = vec![address.to_string()];
    if address.port() == if secure { PORT_DEFAULT_SECURE } else { PORT_DEFAULT } {
        let text = address.to_string();
        own.extend(text.rsplit_once(':').map(|(host, _)| host.to_owned()));
    }
    Links::new(below, own, asked.and_then(|host| host.to_str().ok()).map(str::to_owned))
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

/// Tells what is behind how it was reached, and nothing that proves or claims who asks.
fn said_of(request: &mut Request<Body>, below: &str, inner: &str) {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string());
    let headers = request.headers_mut();
    let claims = |name: &HeaderName| {
        let name = name.as_str();
        name == AUTHORIZATION || name.starts_with("x-remote-") || name.starts_with("impersonate-")
    };
    for name in headers.keys().filter(|name| claims(name)).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    if let Ok(uri) = HeaderValue::from_str(&format!("{below}{inner}")) {
        headers.insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let before = headers.get_all(FOR).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned);
    let way: Vec<String> = before.chain(peer).collect();
    if let Some(way) = HeaderValue::from_str(&way.join(", ")).ok().filter(|way| !way.is_empty()) {
        headers.insert(FOR, way);
    }
}

/// What another server says of who may read it from elsewhere is not said of this one.
const CROSS_ORIGIN: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Redirects and links within what is served lead to it through here.
fn as_from_here(mut answer: Answer, links: &Links) -> Answer {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    for name in CROSS_ORIGIN {
        answer.headers_mut().remove(name);
    }
    let Some(place) = answer.headers().get(LOCATION) else { return links_changed(answer, links) };
    let place = place.to_str().ok().and_then(|place| links.through(place));
    if let Some(place) = place.and_then(|place| HeaderValue::from_str(&place).ok()) {
        answer.headers_mut().insert(LOCATION, place);
    }
    answer
}

/// Pods and nodes are proxied to, and not what this machine has for itself.
fn allowed(address: SocketAddr) -> Result<SocketAddr, ApiError> {
    let ip = address.ip().to_canonical();
    let own = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if own || link_local {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(address)
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
        "" if place.scheme == "https" => ports().find_map(number).unwrap_or(PORT_DEFAULT_SECURE),
        "" => ports().find_map(number).unwrap_or(PORT_DEFAULT),
        text => text
            .parse()
            .ok()
            .or_else(|| ports().find(|p| p["name"] == text).and_then(number))
            .ok_or_else(|| ApiError::bad_request(format!("pod {} has no port {text:?}", place.name)))?,
    };
    let ip = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.ok_or_else(|| ApiError::bad_request("address not allowed"))?;
    allowed(SocketAddr::new(ip, port))
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
    let mut addresses: Vec<Ready> = own.flat_map(|slice| ready(slice, &name)).collect();
    while !addresses.is_empty() {
        let chosen = usize::from(u16::from_le_bytes(base::id::random_bytes())) % addresses.len();
        let Ready { address, pod } = addresses.swap_remove(chosen);
        if is_of_pod(server, namespace, &pod, address.ip()).await? {
            return allowed(address);
        }
    }
    Err(ApiError::unavailable(format!("no endpoints available for service {:?}", context.target.name)))
}

/// Whether the pod really has the address: whoever may write endpoints may not lead this server anywhere.
async fn is_of_pod(server: &ApiServer, namespace: &str, pod: &str, ip: IpAddr) -> Result<bool, ApiError> {
    let kinds = server.0.catalog.snapshot();
    let pods = kinds.find("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
    let Some((_, pod)) = server.0.objects.get(pods, namespace, pod).await? else { return Ok(false) };
    let own = pod["status"]["podIPs"].as_array().into_iter().flatten().map(|own| &own["ip"]);
    Ok(own.filter_map(Value::as_str).any(|own| own.parse() == Ok(ip)))
}

/// Where traffic is taken, and the pod that is said to take it.
#[derive(Debug, PartialEq, Eq)]
struct Ready {
    address: SocketAddr,
    pod: String,
}

/// The addresses of a slice that take traffic at the port of this name.
fn ready(slice: &Value, port: &str) -> Vec<Ready> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let mut ports = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port);
    let port = ports.find_map(|p| p["port"].as_u64().and_then(|p| u16::try_from(p).ok()));
    let Some(port) = port else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let endpoints = endpoints.filter(|e| e["conditions"]["ready"].as_bool() != Some(false));
    let endpoints = endpoints.filter(|e| {
        let namespace = e["targetRef"]["namespace"].as_str();
        namespace.is_some_and(|own| own == meta::namespace(slice))
    });
    let ready = endpoints.filter_map(|e| {
        let address = SocketAddr::new(e["addresses"][0].as_str()?.parse().ok()?, port);
        Some(Ready { address, pod: e["targetRef"]["name"].as_str()?.to_owned() })
    });
    ready.collect()
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
    fn only_ready_pods_of_the_port() {
        let pod =
            |name: &str, ip: &str| json!({"addresses": [ip], "targetRef": {"name": name, "namespace": "n"}});
        let mut unready = pod("a", "10.0.0.1");
        unready["conditions"]["ready"] = false.into();
        let mut elsewhere = pod("d", "10.0.0.4");
        elsewhere["targetRef"]["namespace"] = "m".into();
        let endpoints = json!([unready, pod("b", "10.0.0.2"), {"addresses": ["10.0.0.3"]}, elsewhere]);
        let slice = json!({"metadata": {"namespace": "n"}, "endpoints": endpoints,
            "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
        let address = "10.0.0.2:2".parse().expect("an address");
        assert_eq!(ready(&slice, "b"), [Ready { address, pod: "b".to_owned() }]);
        assert_eq!(ready(&slice, "c"), []);
    }

    #[test]
    fn redirects_stay_below() {
        let told = |place: &'static str| {
            let mut answer = Response::new(full(""));
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static(place));
            let address = "10.0.0.1:80".parse().expect("an address");
            let answer = as_from_here(answer, &links("/below".to_owned(), address, false, None));
            answer.headers()[LOCATION].to_str().unwrap_or_default().to_owned()
        };
        assert_eq!(told("/x"), "/below/x");
        assert_eq!(told("http://10.0.0.1:80/y"), "/below/y");
        assert_eq!(told("http://10.0.0.1/y"), "/below/y");
        assert_eq!(told("https://example.com/"), "https://example.com/");
        assert_eq!(told("z"), "z");
    }

    #[test]
    fn this_machine_is_not_proxied_to() {
        for (address, expected) in [
            ("10.42.0.5:80", true),
            ("[fd00::5]:80", true),
            ("127.0.0.1:80", false),
            ("[::1]:80", false),
            ("[::ffff:127.0.0.1]:80", false),
            ("0.0.0.0:80", false),
            ("169.254.169.254:80", false),
            ("[fe80::1]:80", false),
            ("224.0.0.1:80", false),
            ("255.255.255.255:80", false),
        ] {
            assert_eq!(allowed(address.parse().expect("an address")).is_ok(), expected, "{address}");
        }
    }
}
