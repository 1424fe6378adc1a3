//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources are encrypted, and with which keys. The
//! first entry that is about a resource is the one that counts; its first provider writes, all of them read. Pure: who keeps
//! keys is named here and asked elsewhere. What is wrong is told in the original's words, the first of it.

use std::sync::Arc;
use std::time::Duration;

use api::kinds::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::kms::{Config, Kms, Times};
use super::provider::{Provider, Scheme};
use crate::http::query::percent_decode;

const KMS_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("it is not YAML: {0}")]
    Yaml(String),
    #[error("it is no EncryptionConfiguration of apiserver.config.k8s.io/v1")]
    Type,
    #[error("{field}: {problem}")]
    Field { field: String, problem: String },
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), problem: problem.into() }
}

/// Which resources an entry is about: `secrets`, `deployments.apps`, `*.apps`, `*.` (all of the core group), `*.*`.
struct Pattern {
    resource: String,
    /// `None`: of any group.
    group: Option<String>,
}

pub struct Rule {
    patterns: Vec<Pattern>,
    pub providers: Vec<Arc<Provider>>,
}

impl Rule {
    /// What holds without a file.
    pub fn of_secrets(providers: Vec<Arc<Provider>>) -> Self {
        Self { patterns: vec![Pattern { resource: "secrets".into(), group: Some(String::new()) }], providers }
    }

    pub fn is_about(&self, kind: &Kind) -> bool {
        // As a resource is stored, whichever group or version it was asked for in.
        let group = kind.stored_as().0;
        self.patterns.iter().any(|pattern| {
            let fits = pattern.resource == "*" || *pattern.resource == *kind.plural;
            fits && pattern.group.as_deref().is_none_or(|wanted| wanted == group)
        })
    }
}

pub fn parse(text: &str, times: Times) -> Result<Vec<Rule>, ConfigError> {
    let value = api::yaml::parse_one(text).map_err(|e| ConfigError::Yaml(e.to_string()))?;
    if value["kind"] != "EncryptionConfiguration" || value["apiVersion"] != "apiserver.config.k8s.io/v1" {
        return Err(ConfigError::Type);
    }
    only(&value, "", &["kind", "apiVersion", "resources"])?;
    let entries = list(&value["resources"], "resources", "resources")?;
    let mut parser = Parser { times, kms_names: Vec::new(), wildcards: Vec::new() };
    entries
        .iter()
        .enumerate()
        .map(|(index, entry)| parser.rule(entry, &format!("resources[{index}]")))
        .collect()
}

/// What entries of a file have to do with one another.
struct Parser {
    times: Times,
    kms_names: Vec<String>,
    /// Groups all of which, and whether all of all of them, an earlier entry is about.
    wildcards: Vec<Option<String>>,
}

fn only(value: &Value, at: &str, known: &[&str]) -> Result<(), ConfigError> {
    let fields = value.as_object().ok_or_else(|| wrong(at, "Invalid value: an object is wanted"))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) if at.is_empty() => Err(wrong(name.as_str(), "unknown field")),
        Some(name) => Err(wrong(format!("{at}.{name}"), "unknown field")),
        None => Ok(()),
    }
}

fn list<'a>(value: &'a Value, at: &str, what: &str) -> Result<&'a [Value], ConfigError> {
    match value.as_array() {
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(wrong(at, format!("Required value: at least one {what} is required"))),
    }
}

impl Parser {
    fn rule(&mut self, entry: &Value, at: &str) -> Result<Rule, ConfigError> {
        only(entry, at, &["resources", "providers"])?;
        let (of_resources, of_providers) = (format!("{at}.resources"), format!("{at}.providers"));
        let resources = list(&entry["resources"], &of_resources, &of_resources)?;
        let patterns: Vec<Pattern> = resources
            .iter()
            .enumerate()
            .map(|(i, name)| pattern(name, format!("{of_resources}[{i}]")))
            .collect::<Result<_, _>>()?;
        if let Some(why) = overlap(&patterns) {
            return Err(wrong(of_resources, format!("Invalid value: {}: {why}", entry["resources"])));
        }
        let mut providers = Vec::new();
        for (index, given) in list(&entry["providers"], &of_providers, &of_providers)?.iter().enumerate() {
            self.provider(given, &format!("{of_providers}[{index}]"), &mut providers)?;
        }
        for pattern in &patterns {
            // A wildcard of before would be asked first, and this never.
            let masks = |group: &&Option<String>| group.is_none() || **group == pattern.group;
            if let Some(mask) = self.wildcards.iter().find(masks) {
                let mask = shown("*", mask.as_deref());
                let name = shown(&pattern.resource, pattern.group.as_deref());
                return Err(wrong(
                    of_resources,
                    format!("resource {name:?} is masked by earlier rule {mask:?}"),
                ));
            }
        }
        let wildcards = patterns.iter().filter(|pattern| pattern.resource == "*");
        self.wildcards.extend(wildcards.map(|pattern| pattern.group.clone()));
        Ok(Rule { patterns, providers })
    }

    fn provider(
        &mut self,
        given: &Value,
        at: &str,
        into: &mut Vec<Arc<Provider>>,
    ) -> Result<(), ConfigError> {
        only(given, at, &["identity", "aesgcm", "aescbc", "secretbox", "kms"])?;
        let named: Vec<&String> = given.as_object().into_iter().flatten().map(|(name, _)| name).collect();
        let [name] = named.as_slice() else {
            // Without what stands there, which may be keys.
            let why = match named.is_empty() {
                true => {
                    "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
                }
                false => {
                    "more than one provider specified in a single element, should split into different list elements"
                }
            };
            return Err(wrong(at, format!("Invalid value: {why}")));
        };
        let (at, given) = (format!("{at}.{name}"), &given[name.as_str()]);
        match name.as_str() {
            "identity" => into.push(Arc::new(Provider::identity())),
            "aesgcm" => keys(Scheme::AesGcm, given, &at, into)?,
            "aescbc" => keys(Scheme::AesCbc, given, &at, into)?,
            "secretbox" => keys(Scheme::Secretbox, given, &at, into)?,
            _ => {
                let config = kms(given, &at)?;
                let name = &config.name;
                if self.kms_names.contains(name) {
                    let problem = format!(
                        "Invalid value: {name:?}: duplicate KMS provider name {name}, names must be unique"
                    );
                    return Err(wrong(format!("{at}.name"), problem));
                }
                self.kms_names.push(name.clone());
                into.push(Arc::new(Provider::of_kms(Arc::new(Kms::new(config, self.times)))));
            }
        }
        Ok(())
    }
}

fn pattern(name: &Value, field: String) -> Result<Pattern, ConfigError> {
    let name =
        name.as_str().filter(|name| !name.is_empty()).ok_or_else(|| wrong(&field, "Required value"))?;
    let invalid = |why: &str| wrong(&field, format!("Invalid value: {name:?}: {why}"));
    if name.chars().any(char::is_uppercase) {
        return Err(invalid("resource name should not contain capital letters"));
    }
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    if name == "*" {
        let why = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources";
        return Err(invalid(why));
    }
    if matches!(name, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
        return Err(invalid("resources which do not have REST API/s cannot be encrypted"));
    }
    if group == "events.k8s.io" {
        let why = "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file";
        return Err(invalid(why));
    }
    if group == "extensions" {
        return Err(invalid("'extensions' group has been removed and cannot be used for encryption"));
    }
    if group == "*" && resource != "*" {
        return Err(invalid("encrypting the same resource across groups is not supported"));
    }
    if resource.contains('*') && resource != "*" || group.contains('*') && group != "*" {
        return Err(invalid("a star stands for a whole name"));
    }
    let group = (group != "*").then(|| group.to_owned());
    Ok(Pattern { resource: resource.to_owned(), group })
}

/// What an entry must not say twice, or beside a wildcard that says it as well.
fn overlap(patterns: &[Pattern]) -> Option<&'static str> {
    let pairs = || {
        patterns.iter().enumerate().flat_map(|(i, one)| patterns[..i].iter().map(move |other| (one, other)))
    };
    let same = |(a, b): (&Pattern, &Pattern)| (&a.resource, &a.group) == (&b.resource, &b.group);
    if pairs().any(same) {
        return Some("the same resource cannot be specified multiple times");
    }
    let all = |pattern: &Pattern| pattern.resource == "*" && pattern.group.is_none();
    let masks = |(a, b): (&Pattern, &Pattern)| {
        all(a) || all(b) || a.group == b.group && (a.resource == "*" || b.resource == "*")
    };
    let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
    pairs().any(masks).then_some(why)
}

/// As it is written in a file.
fn shown(resource: &str, group: Option<&str>) -> String {
    match (resource, group) {
        (_, None) => "*.*".into(),
        ("*", Some("")) => "*.".into(),
        (resource, Some("")) => resource.to_owned(),
        (resource, Some(group)) => format!("{resource}.{group}"),
    }
}

/// Who keeps a key.
fn kms(given: &Value, at: &str) -> Result<Config, ConfigError> {
    only(given, at, &["apiVersion", "name", "cachesize", "endpoint", "timeout"])?;
    let field = |name: &str| format!("{at}.{name}");
    let invalid =
        |name: &str, value: &Value, why: &str| wrong(field(name), format!("Invalid value: {value}: {why}"));
    let text = |name: &str| match &given[name] {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text.as_str()),
        other => Err(invalid(name, other, "a text is wanted")),
    };
    let (name, version) = (text("name")?, text("apiVersion")?);
    // As the original takes it that is not told.
    let version = if version.is_empty() { "v1" } else { version };
    if name.is_empty() {
        return Err(wrong(field("name"), "Required value: name is a mandatory field for a provider"));
    }
    if name.contains(':') && version != "v1" {
        let why = format!("invalid KMS provider name {name}, must not contain ':'");
        return Err(invalid("name", &name.into(), &why));
    }
    let timeout = match text("timeout")? {
        "" => KMS_TIMEOUT,
        text => match cel::time::parse_duration(text) {
            None => return Err(invalid("timeout", &text.into(), "it is no duration such as 3s")),
            Some(nanos) if nanos > 0 => Duration::from_nanos(nanos.unsigned_abs()),
            Some(nanos) => {
                let shown = base::time::go_duration(Duration::from_nanos(nanos.unsigned_abs()));
                let shown = if nanos < 0 { format!("-{shown}") } else { shown };
                return Err(invalid("timeout", &shown.into(), "timeout should be a positive value"));
            }
        },
    };
    let path = socket(text("endpoint")?)
        .map_err(|why| invalid("endpoint", &text_or_empty(&given["endpoint"]), &why))?;
    if !given["cachesize"].is_null() && version == "v2" {
        return Err(invalid("cachesize", &given["cachesize"], "cachesize is not supported in v2"));
    }
    match version {
        "v2" => Ok(Config { name: name.to_owned(), path, timeout }),
        "v1" => Err(invalid(
            "apiVersion",
            &"v1".into(),
            "KMSv1 is deprecated and not supported. Use KMSv2 instead (apiVersion: v2).",
        )),
        _ => Err(invalid(
            "apiVersion",
            &version.into(),
            "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
        )),
    }
}

fn text_or_empty(value: &Value) -> Value {
    if value.is_null() { "".into() } else { value.clone() }
}

/// The path in `unix:///path`, or the name in `unix:///@name`.
fn socket(endpoint: &str) -> Result<String, String> {
    if endpoint.is_empty() {
        return Err("endpoint is a mandatory field for a kms".into());
    }
    let scheme = endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
    if !scheme.eq_ignore_ascii_case("unix") {
        return Err(format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported"));
    }
    let rest = endpoint[scheme.len() + 1..].split(['?', '#']).next().unwrap_or_default();
    let path = rest.strip_prefix("//").map_or(rest, |rest| rest.find('/').map_or("", |at| &rest[at..]));
    let path = percent_decode(path, false);
    match path.strip_prefix("/@") {
        _ if path.len() < 2 => Err("invalid endpoint for kms provider, error: it names no socket".into()),
        _ if path.contains('\0') => Err("invalid endpoint for kms provider, error: invalid character".into()),
        Some(name) => Ok(format!("@{name}")),
        None => Ok(path),
    }
}

fn keys(scheme: Scheme, given: &Value, at: &str, into: &mut Vec<Arc<Provider>>) -> Result<(), ConfigError> {
    only(given, at, &["keys"])?;
    let mut names = Vec::new();
    for (index, key) in list(&given["keys"], &format!("{at}.keys"), "keys")?.iter().enumerate() {
        let at = format!("{at}.keys[{index}]");
        only(key, &at, &["name", "secret"])?;
        let name = key["name"].as_str().filter(|n| !n.is_empty()).ok_or_else(|| {
            wrong(format!("{at}.name"), "Required value: name is a mandatory field for a key")
        })?;
        if name.contains(':') || names.contains(&name) {
            return Err(wrong(
                format!("{at}.name"),
                format!("Invalid value: {name:?}: unique, and without a colon"),
            ));
        }
        names.push(name);
        // What is wrong with a key is told, the key is not.
        let secret = key["secret"].as_str().filter(|secret| !secret.is_empty()).ok_or_else(|| {
            wrong(format!("{at}.secret"), "Required value: secret is a mandatory field for a key")
        })?;
        let secret = STANDARD.decode(secret.trim()).map_err(|_| {
            wrong(format!("{at}.secret"), "Invalid value: \"REDACTED\": secrets must be base64 encoded")
        })?;
        let made = Provider::new(scheme, name, &secret).ok_or_else(|| {
            let problem = format!(
                "Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of [{}]",
                secret.len(),
                scheme.lengths().iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
            );
            wrong(format!("{at}.secret"), problem)
        })?;
        into.push(Arc::new(made));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
