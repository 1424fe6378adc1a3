//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources are encrypted, and with which keys. The
//! first entry that is about a resource is the one that counts; its first provider writes, all of them read. Pure: who keeps
//! keys is named here and asked elsewhere.

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
    let entries = list(&value["resources"], "resources")?;
    let mut parser = Parser { times, kms_names: Vec::new() };
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
}

fn only(value: &Value, at: &str, known: &[&str]) -> Result<(), ConfigError> {
    let fields = value.as_object().ok_or_else(|| wrong(at, "Invalid value: an object is wanted"))?;
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) if at.is_empty() => Err(wrong(name.as_str(), "unknown field")),
        Some(name) => Err(wrong(format!("{at}.{name}"), "unknown field")),
        None => Ok(()),
    }
}

fn list<'a>(value: &'a Value, at: &str) -> Result<&'a [Value], ConfigError> {
    match value.as_array() {
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(wrong(at, "Required value")),
    }
}

impl Parser {
    fn rule(&mut self, entry: &Value, at: &str) -> Result<Rule, ConfigError> {
        only(entry, at, &["resources", "providers"])?;
        let resources = list(&entry["resources"], &format!("{at}.resources"))?;
        let patterns =
            resources.iter().enumerate().map(|(i, name)| pattern(name, format!("{at}.resources[{i}]")));
        let patterns = patterns.collect::<Result<_, _>>()?;
        let mut providers = Vec::new();
        for (index, given) in list(&entry["providers"], &format!("{at}.providers"))?.iter().enumerate() {
            self.provider(given, &format!("{at}.providers[{index}]"), &mut providers)?;
        }
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
            return Err(wrong(at, "Invalid value: exactly one provider is wanted"));
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
    if name.chars().any(char::is_uppercase) {
        return Err(wrong(field, format!("Invalid value: {name:?}: resource should be lower case")));
    }
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    let starred = resource == "*" || !resource.contains('*');
    if !starred || name == "*" || group != "*" && group.contains('*') || group == "*" && resource != "*" {
        let problem =
            format!("Invalid value: {name:?}: use *.<group> for a group, *. for the core group, *.* for all");
        return Err(wrong(field, problem));
    }
    let group = (group != "*").then(|| group.to_owned());
    Ok(Pattern { resource: resource.to_owned(), group })
}

/// Who keeps a key. The words are the original's.
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
        text => match cel::time::parse_duration(text).map(u64::try_from) {
            None => return Err(invalid("timeout", &text.into(), "it is no duration such as 3s")),
            Some(Ok(nanos)) if nanos > 0 => Duration::from_nanos(nanos),
            Some(_) => return Err(invalid("timeout", &text.into(), "timeout should be a positive value")),
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
    for (index, key) in list(&given["keys"], &format!("{at}.keys"))?.iter().enumerate() {
        let at = format!("{at}.keys[{index}]");
        only(key, &at, &["name", "secret"])?;
        let name = key["name"]
            .as_str()
            .filter(|n| !n.is_empty())
            .ok_or_else(|| wrong(format!("{at}.name"), "Required value"))?;
        if name.contains(':') || names.contains(&name) {
            return Err(wrong(
                format!("{at}.name"),
                format!("Invalid value: {name:?}: unique, and without a colon"),
            ));
        }
        names.push(name);
        // What is wrong with a key is told, the key is not.
        let secret = key["secret"].as_str().ok_or_else(|| wrong(format!("{at}.secret"), "Required value"))?;
        let secret = STANDARD
            .decode(secret.trim())
            .map_err(|_| wrong(format!("{at}.secret"), "Invalid value: not base64"))?;
        let made = Provider::new(scheme, name, &secret).ok_or_else(|| {
            let problem =
                format!("Invalid value: it has {} bytes; {:?} are known", secret.len(), scheme.lengths());
            wrong(format!("{at}.secret"), problem)
        })?;
        into.push(Arc::new(made));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(resources: &str, expected: &str) {
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: {resources}}}"
        );
        let error = parse(&text, Times::default()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with(expected), "{resources}: {error}");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_by_the_name_of_the_field_and_never_with_the_key() {
        refused("[]", "resources: Required value");
        refused("[{providers: [{identity: {}}]}]", "resources[0].resources: Required value");
        refused("[{resources: [secrets]}]", "resources[0].providers: Required value");
        refused(
            "[{resources: [Secrets], providers: [{identity: {}}]}]",
            "resources[0].resources[0]: Invalid value: \"Secrets\"",
        );
        for name in ["'*'", "secrets.*", "'sec*'", "'*.ap*'"] {
            refused(
                &format!("[{{resources: [{name}], providers: [{{identity: {{}}}}]}}]"),
                "resources[0].resources[0]: Invalid value",
            );
        }
        refused(
            "[{resources: [secrets], providers: [{}]}]",
            "resources[0].providers[0]: Invalid value: exactly one",
        );
        refused(
            "[{resources: [secrets], providers: [{identity: {}, aesgcm: {}}]}]",
            "resources[0].providers[0]: Invalid value: exactly one",
        );
        refused(
            "[{resources: [secrets], providers: [{rot13: {}}]}]",
            "resources[0].providers[0].rot13: unknown field",
        );
        refused(
            "[{resources: [secrets], providers: [{aescbc: {keys: []}}]}]",
            "resources[0].providers[0].aescbc.keys: Required value",
        );
        let key = |name: &str, secret: &str| {
            format!(
                "[{{resources: [secrets], providers: [{{secretbox: {{keys: [{{name: '{name}', secret: '{secret}'}}]}}}}]}}]"
            )
        };
        refused(&key("", "AAAA"), "resources[0].providers[0].secretbox.keys[0].name: Required value");
        refused(&key("a:b", "AAAA"), "resources[0].providers[0].secretbox.keys[0].name: Invalid value");
        refused(
            &key("a", "?"),
            "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: not base64",
        );
        refused(
            &key("a", "c2hvcnQ="),
            "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: it has 5 bytes; [32] are known",
        );
        assert_eq!(parse("kind: Secret", Times::default()).err(), Some(ConfigError::Type));
    }

    #[test]
    fn who_keeps_keys_is_named_as_the_original_has_it() {
        let kms = |fields: &str, expected: &str| {
            refused(
                &format!("[{{resources: [secrets], providers: [{{kms: {{{fields}}}}}]}}]"),
                &format!("resources[0].providers[0].kms.{expected}"),
            );
        };
        let whole = |fields: &str| format!("apiVersion: v2, name: a, endpoint: 'unix:///a/b', {fields}");
        kms("", "name: Required value: name is a mandatory field for a provider");
        kms(
            "apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'",
            "name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'",
        );
        for timeout in ["0s", "-1s"] {
            kms(
                &whole(&format!("timeout: {timeout}")),
                &format!("timeout: Invalid value: \"{timeout}\": timeout should be a positive value"),
            );
        }
        kms(&whole("timeout: soon"), "timeout: Invalid value: \"soon\": it is no duration");
        kms(&whole("timeout: 3"), "timeout: Invalid value: 3: a text is wanted");
        kms(&whole("cachesize: 10"), "cachesize: Invalid value: 10: cachesize is not supported in v2");
        kms(&whole("proxy: x"), "proxy: unknown field");
        kms(
            "apiVersion: v2, name: a",
            "endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms",
        );
        for (endpoint, scheme) in [("tcp://a:1", "tcp"), ("/a/b", "")] {
            kms(
                &format!("apiVersion: v2, name: a, endpoint: '{endpoint}'"),
                &format!(
                    "endpoint: Invalid value: {endpoint:?}: unsupported scheme {scheme:?} for KMS provider, only unix is supported"
                ),
            );
        }
        kms(
            "apiVersion: v2, name: a, endpoint: 'unix://a'",
            "endpoint: Invalid value: \"unix://a\": invalid endpoint",
        );
        for version in ["", "apiVersion: v1,"] {
            kms(
                &format!("{version} name: 'a:b', endpoint: 'unix:///a'"),
                "apiVersion: Invalid value: \"v1\": KMSv1 is deprecated and not supported. Use KMSv2 instead",
            );
        }
        kms(
            "apiVersion: v3, name: a, endpoint: 'unix:///a'",
            "apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
        );
        let twice = format!("{{kms: {{{}}}}}", whole("timeout: 1s"));
        refused(
            &format!(
                "[{{resources: [secrets], providers: [{twice}]}}, {{resources: ['*.apps'], providers: [{{identity: {{}}}}, {twice}]}}]"
            ),
            "resources[1].providers[1].kms.name: Invalid value: \"a\": duplicate KMS provider name a, names must be unique",
        );
        let config = |fields: &str| {
            let text = format!(
                "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{{kms: {{apiVersion: v2, name: a, {fields}}}}}]}}]}}"
            );
            let rules = parse(&text, Times::default()).unwrap_or_else(|e| panic!("{fields}: {e}"));
            let Config { path, timeout, .. } =
                rules[0].providers[0].kms().expect("a plugin").config().clone();
            (path, timeout)
        };
        assert_eq!(config("endpoint: 'unix:///a/b%20c'"), ("/a/b c".into(), Duration::from_secs(3)));
        assert_eq!(
            config("endpoint: 'unix:///@a', timeout: 1m500ms"),
            ("@a".into(), Duration::from_millis(60_500))
        );
    }

    #[test]
    fn entries_are_about_what_they_name() {
        let kinds = crate::catalog::Catalog::default();
        kinds.rebuild(&[]);
        let kinds = kinds.snapshot();
        let check = |pattern: &str, hits: &[(&str, &str)], misses: &[(&str, &str)]| {
            let text = format!(
                "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: ['{pattern}'], providers: [{{identity: {{}}}}]}}]}}"
            );
            let rules = parse(&text, Times::default()).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            for (list, expected) in [(hits, true), (misses, false)] {
                for (group, plural) in list {
                    let kind = kinds.find(group, "v1", plural).expect(plural);
                    assert_eq!(rules[0].is_about(kind), expected, "{pattern}: {plural}.{group}");
                }
            }
        };
        let (secrets, maps, deployments) = (("", "secrets"), ("", "configmaps"), ("apps", "deployments"));
        check("secrets", &[secrets], &[maps, deployments]);
        check("deployments.apps", &[deployments], &[secrets]);
        check("*.apps", &[deployments, ("apps", "daemonsets")], &[secrets]);
        check("*.", &[secrets, maps], &[deployments]);
        check("*.*", &[secrets, maps, deployments], &[]);
    }
}
