//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources are encrypted, and with which keys. The
//! first entry that is about a resource is the one that counts; its first provider writes, all of them read. Pure.

use std::sync::Arc;

use api::kinds::Kind;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::provider::{Provider, Scheme};

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

pub fn parse(text: &str) -> Result<Vec<Rule>, ConfigError> {
    let value = api::yaml::parse_one(text).map_err(|e| ConfigError::Yaml(e.to_string()))?;
    if value["kind"] != "EncryptionConfiguration" || value["apiVersion"] != "apiserver.config.k8s.io/v1" {
        return Err(ConfigError::Type);
    }
    only(&value, "", &["kind", "apiVersion", "resources"])?;
    let entries = list(&value["resources"], "resources")?;
    entries.iter().enumerate().map(|(index, entry)| rule(entry, &format!("resources[{index}]"))).collect()
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

fn rule(entry: &Value, at: &str) -> Result<Rule, ConfigError> {
    only(entry, at, &["resources", "providers"])?;
    let mut patterns = Vec::new();
    for (index, name) in list(&entry["resources"], &format!("{at}.resources"))?.iter().enumerate() {
        let field = format!("{at}.resources[{index}]");
        let name =
            name.as_str().filter(|name| !name.is_empty()).ok_or_else(|| wrong(&field, "Required value"))?;
        if name.chars().any(char::is_uppercase) {
            return Err(wrong(field, format!("Invalid value: {name:?}: resource should be lower case")));
        }
        let (resource, group) = name.split_once('.').unwrap_or((name, ""));
        let starred = resource == "*" || !resource.contains('*');
        if !starred || name == "*" || group != "*" && group.contains('*') || group == "*" && resource != "*" {
            let problem = format!(
                "Invalid value: {name:?}: use *.<group> for a group, *. for the core group, *.* for all"
            );
            return Err(wrong(field, problem));
        }
        let group = (group != "*").then(|| group.to_owned());
        patterns.push(Pattern { resource: resource.to_owned(), group });
    }
    let mut providers = Vec::new();
    for (index, given) in list(&entry["providers"], &format!("{at}.providers"))?.iter().enumerate() {
        provider(given, &format!("{at}.providers[{index}]"), &mut providers)?;
    }
    Ok(Rule { patterns, providers })
}

fn provider(given: &Value, at: &str, into: &mut Vec<Arc<Provider>>) -> Result<(), ConfigError> {
    only(given, at, &["identity", "aesgcm", "aescbc", "secretbox", "kms"])?;
    let named: Vec<&String> = given.as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let [name] = named.as_slice() else {
        return Err(wrong(at, "Invalid value: exactly one provider is wanted"));
    };
    let scheme = match name.as_str() {
        "identity" => {
            into.push(Arc::new(Provider::identity()));
            return Ok(());
        }
        "aesgcm" => Scheme::AesGcm,
        "aescbc" => Scheme::AesCbc,
        "secretbox" => Scheme::Secretbox,
        _ => {
            return Err(wrong(
                format!("{at}.kms"),
                "Unsupported value: keys of other services are not supported",
            ));
        }
    };
    let at = format!("{at}.{name}");
    only(&given[name.as_str()], &at, &["keys"])?;
    let mut names = Vec::new();
    for (index, key) in list(&given[name.as_str()]["keys"], &format!("{at}.keys"))?.iter().enumerate() {
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
        let error = parse(&text).err().map(|e| e.to_string()).unwrap_or_default();
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
            "[{resources: [secrets], providers: [{kms: {}}]}]",
            "resources[0].providers[0].kms: Unsupported value",
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
        assert_eq!(parse("kind: Secret").err(), Some(ConfigError::Type));
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
            let rules = parse(&text).unwrap_or_else(|e| panic!("{pattern}: {e}"));
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
