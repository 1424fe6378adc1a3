//! What a namespace's labels ask for. Without labels everything is privileged.

use std::collections::BTreeMap;

use super::{Level, Standard, Version};
use crate::status::FieldError;

/// The standards of the three modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Standard,
    pub audit: Standard,
    pub warn: Standard,
}

const PREFIX: &str = "pod-security.kubernetes.io/";
const OPEN: Standard = Standard { level: Level::Privileged, version: Version::Latest };

/// The policy, and what is wrong with the labels. A level to enforce that cannot be read is the strictest, one to warn or
/// tell of the most lenient.
pub fn policy(labels: &BTreeMap<String, String>) -> (Policy, Vec<FieldError>) {
    let mut errors = Vec::new();
    let mut mode = |name: &str, otherwise: Level| {
        let key = format!("{PREFIX}{name}");
        let mut standard = OPEN;
        let mut readable = false;
        if let Some(text) = labels.get(&key) {
            match level(text) {
                Some(level) => (standard.level, readable) = (level, true),
                None => {
                    standard.level = otherwise;
                    errors.push(fault(&key, text, "must be one of privileged, baseline, restricted"));
                }
            }
        }
        let key = format!("{PREFIX}{name}-version");
        if let Some(text) = labels.get(&key) {
            standard.version = version(text).unwrap_or_else(|| {
                errors.push(fault(&key, text, "must be \"latest\" or \"v1.x\""));
                Version::Latest
            });
        }
        (standard, readable)
    };
    let (enforce, readable) = mode("enforce", Level::Restricted);
    let (audit, _) = mode("audit", Level::Privileged);
    let (mut warn, _) = mode("warn", Level::Privileged);
    // What is enforced is warned of where a workload is made that would run into it.
    if !labels.contains_key(&format!("{PREFIX}warn")) && readable && enforce.level > warn.level {
        warn.level = enforce.level;
        if !labels.contains_key(&format!("{PREFIX}warn-version")) {
            warn.version = enforce.version;
        }
    }
    (Policy { enforce, audit, warn }, errors)
}

fn fault(key: &str, value: &str, detail: &str) -> FieldError {
    FieldError::invalid(format!("metadata.labels[{key}]"), value, detail)
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

fn version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version::Latest);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    minor.parse().ok().filter(|_| plain).map(Version::Minor)
}
