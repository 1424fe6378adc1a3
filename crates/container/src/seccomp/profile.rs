//! Profiles from a file, in the JSON form of Docker and OCI.
//!
//! A filter of ours has one answer for what it lists and one for the rest, a profile has many. It becomes one filter
//! that lets every listed call through (the rest gets the default answer), and one more for each stricter answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use serde::Deserialize;

use super::{Programs, Rules, SeccompError, profile_error, program, syscalls};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

impl Condition {
    fn has_any(list: &[String], wanted: impl Fn(&str) -> bool) -> bool {
        list.iter().any(|item| wanted(item))
    }
}

pub fn programs(path: &Path, capabilities: &[String]) -> Result<Programs, SeccompError> {
    let text = fs::read(path).map_err(|source| SeccompError::Read { path: path.to_owned(), source })?;
    let profile: Profile = serde_json::from_slice(&text)
        .map_err(|source| SeccompError::Decode { path: path.to_owned(), source })?;
    compile(path, &profile, capabilities)
}

fn compile(path: &Path, profile: &Profile, capabilities: &[String]) -> Result<Programs, SeccompError> {
    let default = action(path, &profile.default_action, profile.default_errno_ret)?;
    let mut listed = Rules::new();
    let mut stricter: BTreeMap<u32, (SeccompAction, Rules)> = BTreeMap::new();
    for entry in profile.syscalls.iter().filter(|entry| applies(entry, capabilities)) {
        let answer = action(path, &entry.action, entry.errno_ret)?;
        for number in entry.names.iter().filter_map(|name| syscalls::number(name)) {
            let rule = rule(path, entry.args.as_deref().unwrap_or_default())?;
            if default != SeccompAction::Allow {
                add(&mut listed, number, rule.clone());
            }
            if answer != SeccompAction::Allow {
                let key = u32::from(answer.clone());
                add(
                    &mut stricter.entry(key).or_insert_with(|| (answer.clone(), Rules::new())).1,
                    number,
                    rule,
                );
            }
        }
    }
    let mut programs = Programs::new();
    if default != SeccompAction::Allow {
        programs.push(program(listed, default, SeccompAction::Allow)?);
    }
    for (answer, rules) in stricter.into_values() {
        programs.push(program(rules, SeccompAction::Allow, answer)?);
    }
    Ok(programs)
}

fn applies(entry: &Entry, capabilities: &[String]) -> bool {
    let held = |name: &str| capabilities.iter().any(|held| held == name);
    let arch =
        |name: &str| matches!((name, std::env::consts::ARCH), ("amd64", "x86_64") | ("arm64", "aarch64"));
    let includes = &entry.includes;
    (includes.caps.is_empty() || Condition::has_any(&includes.caps, held))
        && (includes.arches.is_empty() || Condition::has_any(&includes.arches, arch))
        && !Condition::has_any(&entry.excludes.caps, held)
        && !Condition::has_any(&entry.excludes.arches, arch)
}

/// An unconditional rule is an empty list, and stays one whatever is added.
fn add(rules: &mut Rules, number: i64, rule: Option<SeccompRule>) {
    match (rules.get_mut(&number), rule) {
        (Some(present), Some(rule)) if !present.is_empty() => present.push(rule),
        (Some(present), None) => present.clear(),
        (Some(_), Some(_)) => {}
        (None, rule) => {
            rules.insert(number, rule.into_iter().collect());
        }
    }
}

fn rule(path: &Path, arguments: &[Argument]) -> Result<Option<SeccompRule>, SeccompError> {
    let mut conditions = Vec::new();
    for argument in arguments {
        let (operator, value) = match argument.op.as_str() {
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, argument.value),
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, argument.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, argument.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, argument.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, argument.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, argument.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(argument.value), argument.value_two),
            other => return Err(profile_error(path, format!("unknown comparison {other:?}"))),
        };
        let condition = SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, operator, value);
        conditions.push(condition.map_err(SeccompError::Compile)?);
    }
    match conditions.is_empty() {
        true => Ok(None),
        false => SeccompRule::new(conditions).map(Some).map_err(SeccompError::Compile),
    }
}

fn action(path: &Path, name: &str, errno: Option<u32>) -> Result<SeccompAction, SeccompError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno.unwrap_or(0)),
        other => return Err(profile_error(path, format!("unsupported action {other:?}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(json: &str) -> Result<usize, String> {
        let profile: Profile = serde_json::from_str(json).expect("a profile");
        compile(Path::new("p.json"), &profile, &[]).map(|p| p.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_stricter_answer_gets_a_filter_of_its_own() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","write","no_such_call"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]}]}"#;
        assert_eq!(count(json), Ok(2));
        assert_eq!(count(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#), Ok(0));
        let denies =
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_KILL"}]}"#;
        assert_eq!(count(denies), Ok(1));
    }

    #[test]
    fn unknown_words_are_errors() {
        let message = count(r#"{"defaultAction":"SCMP_ACT_PRAY"}"#).expect_err("refused");
        assert_eq!(message, "profile \"p.json\": unsupported action \"SCMP_ACT_PRAY\"");
    }
}
