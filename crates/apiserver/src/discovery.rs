//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one. All of it is
//! an iteration over the kinds table.

use ::http::header::HeaderValue;
use ::http::{HeaderMap, StatusCode, header};
use api::kinds::{Kind, Subresource};
use api::status::ApiError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::auth::tokens::ISSUER;
use crate::catalog::Kinds;
use crate::http::accept::Offer;
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

/// The version of the aggregated form that is asked for, if it is.
fn aggregated(accept: &str) -> Option<&'static str> {
    accept.split(',').find_map(|media| {
        let wanted = media.contains("as=APIGroupDiscoveryList");
        match (wanted, media.contains("v=v2beta1"), media.contains("v=v2")) {
            (true, true, _) => Some("v2beta1"),
            (true, false, true) => Some("v2"),
            _ => None,
        }
    })
}

/// Whether a path is one of discovery's.
pub fn is_known(kinds: &Kinds, path: &str) -> bool {
    document(kinds, path).is_some()
}

pub fn answer(kinds: &Kinds, path: &str, headers: &HeaderMap) -> Result<Option<Answer>, ApiError> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if let Some(version) = aggregated(accept.unwrap_or_default()).filter(|_| matches!(path, "/api" | "/apis"))
    {
        return Ok(Some(aggregated_answer(kinds, version, path == "/api", headers)));
    }
    let Some(value) = document(kinds, path) else { return Ok(None) };
    let form = match path {
        // Paths alone are no object.
        "" => Form::JSON,
        _ => Form::parse(accept, Offer { protobuf: true, shapes: false, stream: false, list: false })?,
    };
    let mut answer = respond::object(StatusCode::OK, form, &value);
    if matches!(path, "/api" | "/apis") {
        answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    Ok(Some(answer))
}

fn document(kinds: &Kinds, path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    Some(match parts.as_slice() {
        [""] => json!({"paths": all_paths(kinds)}),
        ["api"] => {
            json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []})
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
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
    )
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
    }
    let hash = base::id::sha256(format!("{group}/{version}/{name}").as_bytes());
    STANDARD.encode(&hash[..8])
}

fn aggregated_answer(kinds: &Kinds, form: &'static str, core: bool, headers: &HeaderMap) -> Answer {
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
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"), "metadata": {}, "items": items});
    let content_type = match form {
        "v2beta1" => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    };
    let body = list.to_string();
    let tag = base::id::sha256_hex(body.as_bytes()).to_uppercase();
    respond::tagged(respond::bytes(StatusCode::OK, content_type, body), &tag, headers)
}

fn aggregated_resource(kind: &Kind) -> Value {
    let gvk = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "version": version, "kind": kind});
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
