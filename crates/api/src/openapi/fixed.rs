//! Paths that are of no resource: what there is, which version the server is of, and whose tokens it believes.

use serde_json::{Map, Value, json};

use super::names;
use super::operation::{Answer, JSON, OBJECTS, Operation, PROTOBUF, YAML};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
pub(super) const INFO: &str = "io.k8s.apimachinery.pkg.version.Info";

/// A document of one path: its place below `/openapi/v3/`, and what may be done at the path.
#[derive(Debug)]
pub(super) struct Fixed {
    pub document: String,
    pub path: String,
    pub item: Value,
}

impl Fixed {
    fn new(document: String, operation: &Operation<'_>) -> Self {
        let path = format!("/{document}/");
        Self { document, path, item: json!({"get": operation.write()}) }
    }
}

fn discovery<'a>(id: String, description: &str, tag: String, model: &'a str) -> Operation<'a> {
    Operation {
        action: "",
        kind: None,
        id,
        description: description.to_owned(),
        tag,
        consumes: &[JSON, YAML, PROTOBUF],
        produces: &[JSON, YAML, PROTOBUF],
        parameters: Vec::new(),
        answer: Answer::Model(model),
        codes: &[200],
    }
}

/// What the server says of itself, whatever it serves.
pub(super) fn of_server() -> Vec<Fixed> {
    let all = "get available API versions";
    let versions = format!("{META}.APIVersions");
    let list = format!("{META}.APIGroupList");
    let version = Operation {
        consumes: &[JSON],
        produces: &[JSON],
        ..discovery(
            "getCodeVersion".into(),
            "get the version information for this server",
            "version".into(),
            INFO,
        )
    };
    let issuer = |id: &str, description: &str, tag: &str, produces: &'static [&'static str]| Operation {
        consumes: &[],
        produces,
        answer: Answer::Text,
        ..discovery(id.into(), description, tag.into(), "")
    };
    let configuration = issuer(
        "getServiceAccountIssuerOpenIDConfiguration",
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        "WellKnown",
        &[JSON],
    );
    let keys = issuer(
        "getServiceAccountIssuerOpenIDKeyset",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        "openid",
        &["application/jwk-set+json"],
    );
    vec![
        Fixed::new("api".into(), &discovery("getCoreAPIVersions".into(), all, names::tag("", ""), &versions)),
        Fixed::new("apis".into(), &discovery("getAPIVersions".into(), all, "apis".into(), &list)),
        Fixed::new("version".into(), &version),
        Fixed::new(".well-known/openid-configuration".into(), &configuration),
        Fixed::new("openid/v1/jwks".into(), &keys),
    ]
}

/// What it says of a group that is its own.
pub(super) fn of_group(group: &str) -> Fixed {
    let model = format!("{META}.APIGroup");
    let id = format!("get{}APIGroup", names::of_group(group));
    let what = "get information of a group";
    Fixed::new(format!("apis/{group}"), &discovery(id, what, names::tag(group, ""), &model))
}

/// What it says of the resources of one version.
pub(super) fn of_version(group: &str, version: &str) -> (String, Value) {
    let model = format!("{META}.APIResourceList");
    let id = format!("get{}{}APIResources", names::of_group(group), names::title(version));
    let operation = Operation {
        consumes: OBJECTS,
        produces: OBJECTS,
        ..discovery(id, "get available resources", names::tag(group, version), &model)
    };
    let path = format!("/{}/", super::group_version_path(group, version));
    (path, json!({"get": operation.write()}))
}

/// The type of `/version`, which is no kind.
pub(super) fn info(described: bool) -> Value {
    let mut properties = Map::new();
    let required = [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ];
    let optional = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    for name in required.iter().chain(&optional) {
        let mut property = json!({"type": "string"});
        if described && required.contains(name) {
            property["default"] = "".into();
        }
        if let Some(text) = description(name) {
            property["description"] = text.into();
        }
        properties.insert((*name).to_owned(), property);
    }
    let text = "Info contains versioning information. how we'll want to distribute that information.";
    json!({"description": text, "type": "object", "properties": properties, "required": required})
}

fn description(field: &str) -> Option<&'static str> {
    Some(match field {
        "major" => "Major is the major version of the binary version",
        "minor" => "Minor is the minor version of the binary version",
        "emulationMajor" => "EmulationMajor is the major version of the emulation version",
        "emulationMinor" => "EmulationMinor is the minor version of the emulation version",
        "minCompatibilityMajor" => {
            "MinCompatibilityMajor is the major version of the minimum compatibility version"
        }
        "minCompatibilityMinor" => {
            "MinCompatibilityMinor is the minor version of the minimum compatibility version"
        }
        _ => return None,
    })
}
