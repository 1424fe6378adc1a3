//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one. All of it is
//! an iteration over the kinds table.

use std::net::SocketAddr;

use ::http::header::HeaderValue;
use ::http::{HeaderMap, StatusCode, header};
use api::kinds::{Kind, Subresource};
use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::auth::tokens::ISSUER;
use crate::catalog::Kinds;
use crate::http::accept::{Encoding, Offer};
use crate::http::respond::{self, Answer, Form};

pub fn version() -> Value {
    let minor = base::constants::KUBERNETES_MINOR;
    json!({
        "major": "1", "minor": minor, "gitVersion": format!("{}+kedge", base::constants::KUBERNETES_VERSION),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": format!("linux/{}", platform()),
        "emulationMajor": "1", "emulationMinor": minor, "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
    })
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn openid() -> Value {
    json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The encoding of the aggregated form that is asked for, if it is: whatever else is, and however much.
fn aggregated(accept: &str) -> Option<Encoding> {
    const WANTED: [&str; 3] = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
    accept.split(',').find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let encoding = Encoding::of_media_type(parts.next()?)?;
        let parameters: Vec<&str> = parts.collect();
        WANTED.iter().all(|wanted| parameters.contains(wanted)).then_some(encoding)
    })
}

/// Whether a path is one of discovery's.
pub fn is_known(kinds: &Kinds, path: &str) -> bool {
    document(kinds, path).is_some()
}

/// `address` is where this server is found, which the oldest list tells.
pub fn answer(
    kinds: &Kinds,
    path: &str,
    headers: &HeaderMap,
    address: SocketAddr,
) -> Result<Option<Answer>, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let is_root = matches!(path, "/api" | "/apis");
    if let Some(encoding) = aggregated(accept.unwrap_or_default()).filter(|_| is_root) {
        return aggregated_answer(kinds, encoding, path == "/api", headers).map(Some);
    }
    let Some(mut value) = document(kinds, path) else {
        // A group that there is answers for its versions that there are not.
        let mut parts = path.split('/').skip(1);
        return match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("api"), Some(_), None, _) => Err(ApiError::no_such_path()),
            (Some("apis"), Some(group), Some(_), None)
                if kinds.all().iter().any(|kind| kind.group == group) =>
            {
                Err(ApiError::no_such_path())
            }
            _ => Ok(None),
        };
    };
    if path == "/api" {
        value["serverAddressByClientCIDRs"] =
            json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}]);
    }
    let form = match path {
        // Paths alone are no object.
        "" => Form::JSON,
        _ => Form::parse(accept, Offer { routed: is_routed(path), protobuf: true, ..Offer::NOTHING })?,
    };
    if form.encoding == Encoding::Protobuf && value.get("apiVersion").is_none() {
        // Our envelope has a version always.
        value["apiVersion"] = "v1".into();
    }
    Ok(Some(respond::object(StatusCode::OK, form, &value)))
}

/// Whether the original's router looks at what is accepted before its negotiation does: the lists of groups and of one
/// group's versions do not go through it.
fn is_routed(path: &str) -> bool {
    path.starts_with("/api/") || path == "/api" || path.matches('/').count() > 2
}

fn document(kinds: &Kinds, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    Some(match parts.as_slice() {
        [""] => json!({"paths": all_paths(kinds)}),
        ["api"] => {
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
        }
        ["apis"] => {
            let groups = kinds.groups().into_iter().filter(|(g, _)| !g.is_empty());
            let groups: Vec<Value> = groups.map(|(group, versions)| api_group(&group, &versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["api", version] => resource_list(kinds, "", version)?,
        ["apis", group] => {
            let (group, versions) = kinds.groups().into_iter().find(|(g, _)| g == group)?;
            let mut value = api_group(&group, &versions);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        ["apis", group, version] if !group.is_empty() => resource_list(kinds, group, version)?,
        _ => return None,
    })
}

fn all_paths(kinds: &Kinds) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.map(str::to_owned).to_vec();
    for (group, versions) in kinds.groups() {
        let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.iter().map(|version| format!("{root}/{version}")));
        if !group.is_empty() {
            paths.push(root);
        }
    }
    paths.sort();
    paths
}

fn api_group(group: &str, versions: &[String]) -> Value {
    let entry = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let entries: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": group, "versions": entries, "preferredVersion": entries.first()})
}

fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for kind in kinds.of_version(group, version) {
        let mut entry = json!({"name": &*kind.plural, "singularName": &*kind.singular, "namespaced": kind.namespaced,
            "kind": &*kind.kind, "verbs": kind.verbs});
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        if !kind.is_virtual() {
            entry["storageVersionHash"] = version_hash(kind).into();
        }
        resources.push(entry);
        for sub in &kind.subresources {
            let (group, version, name) = body_kind(kind, sub);
            let mut entry = json!({"name": format!("{}/{}", kind.plural, sub.name), "singularName": "",
                "namespaced": kind.namespaced, "kind": name, "verbs": sub.verbs});
            if (group, version) != (&*kind.group, &*kind.version) {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    resources.sort_by_cached_key(|entry| entry["name"].as_str().unwrap_or_default().to_owned());
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    // The oldest group's list has never said of which version it is.
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// Group, version and kind of a subresource's body; a custom kind's status is the kind itself.
pub fn body_kind<'a>(kind: &'a Kind, sub: &'a Subresource) -> (&'a str, &'a str, &'a str) {
    match sub.gvk {
        ("", "", "") => (&kind.group, &kind.version, &kind.kind),
        gvk => gvk,
    }
}

/// What tells clients that two resources are stored as the same kind.
fn version_hash(kind: &Kind) -> String {
    let (group, mut version, name) = kind.stored_as();
    if let Some(custom) = &kind.custom {
        version = &custom.storage_version;
    } else if !kind.rules.told_stored_in.is_empty() {
        version = kind.rules.told_stored_in;
    }
    let hash = base::id::sha256(format!("{group}/{version}/{name}").as_bytes());
    STANDARD.encode(&hash[..8])
}

fn aggregated_answer(
    kinds: &Kinds,
    encoding: Encoding,
    core: bool,
    headers: &HeaderMap,
) -> Result<Answer, ApiError> {
    let groups = kinds.groups().into_iter().filter(|(g, _)| g.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let mut of_version: Vec<_> = kinds.of_version(&group, version).collect();
                    of_version.sort_by_key(|kind| kind.plural.as_ref());
                    let resources: Vec<Value> = of_version.iter().map(|k| aggregated_resource(k)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    let content_type = match encoding {
        Encoding::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Encoding::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        Encoding::Protobuf => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
    };
    let body = respond::encode(Form { encoding, ..Form::JSON }, &list).map_err(ApiError::internal)?;
    let tag = base::id::sha256_hex(&body).to_uppercase();
    let mut answer = respond::tagged(respond::bytes(StatusCode::OK, content_type, body), &tag, headers);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    Ok(answer)
}

fn aggregated_resource(kind: &Kind) -> Value {
    // What is of the group and version around it need not say so; custom kinds do all the same.
    let gvk = |(group, version, name): (&str, &str, &str)| {
        let is_own = kind.custom.is_none() && (group, version) == (&*kind.group, &*kind.version);
        let (group, version) = if is_own { ("", "") } else { (group, version) };
        json!({"group": group, "version": version, "kind": name})
    };
    let mut entry = json!({
        "resource": &*kind.plural,
        "responseKind": gvk((&kind.group, &kind.version, &kind.kind)),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": &*kind.singular,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    if !kind.subresources.is_empty() {
        let mut subs: Vec<&Subresource> = kind.subresources.iter().collect();
        subs.sort_by_key(|sub| sub.name);
        let subs = subs.into_iter().map(|sub| {
            json!({"subresource": sub.name, "responseKind": gvk(body_kind(kind, sub)), "verbs": sub.verbs})
        });
        entry["subresources"] = subs.collect();
    }
    entry
}
