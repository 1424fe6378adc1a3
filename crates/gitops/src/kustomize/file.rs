//! The kustomization file itself. A field that is not known is an error: silently leaving out what somebody wrote is
//! how wrong things get deployed.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::BuildError;
use crate::files::Files;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KustomizationFile {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub metadata: Option<Value>,
    pub resources: Vec<String>,
    pub bases: Vec<String>,
    pub components: Vec<String>,
    pub namespace: Option<String>,
    pub name_prefix: Option<String>,
    pub name_suffix: Option<String>,
    pub common_labels: BTreeMap<String, String>,
    pub labels: Vec<Labels>,
    pub common_annotations: BTreeMap<String, String>,
    pub patches: Vec<PatchEntry>,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Vec<PatchEntry>,
    pub images: Vec<Image>,
    pub replicas: Vec<Replicas>,
    pub config_map_generator: Vec<Generator>,
    pub secret_generator: Vec<Generator>,
    pub generator_options: GeneratorOptions,
    pub sort_options: Option<Value>,
    pub build_metadata: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Labels {
    pub pairs: BTreeMap<String, String>,
    pub include_selectors: bool,
    pub include_templates: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PatchEntry {
    /// A file, in a kustomization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The patch itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Names and namespaces are regular expressions that must match as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotation_selector: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replicas {
    pub name: String,
    pub count: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Generator {
    pub name: String,
    pub namespace: Option<String>,
    pub behavior: Option<String>,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: Option<String>,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub options: GeneratorOptions,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GeneratorOptions {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub disable_name_suffix_hash: Option<bool>,
    pub immutable: Option<bool>,
}

/// What a folder's kustomization may be called.
pub const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

pub fn find(files: &Files, folder: &str) -> Option<String> {
    let at = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    NAMES.iter().map(|name| at(name)).find(|path| files.get(path).is_some())
}

pub fn read(files: &Files, path: &str) -> Result<KustomizationFile, BuildError> {
    let text = String::from_utf8_lossy(files.get(path).unwrap_or_default());
    let yaml = |e: api::yaml::YamlError| BuildError::Yaml {
        path: path.to_owned(),
        line: e.line,
        message: e.message,
    };
    let value = api::yaml::parse_one(&text).map_err(yaml)?;
    let wrong = |message: String| BuildError::Kustomization { path: path.to_owned(), message };
    // One that says nothing is more likely a slip than a wish to have everything pruned.
    let says_something = |fields: &serde_json::Map<String, Value>| {
        fields.keys().any(|field| !["apiVersion", "kind"].contains(&field.as_str()))
    };
    if value.is_null() || value.as_object().is_some_and(|fields| !says_something(fields)) {
        return Err(wrong("kustomization.yaml is empty".into()));
    }
    serde_json::from_value(value).map_err(|e| wrong(e.to_string()))
}
