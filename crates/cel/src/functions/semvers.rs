//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Opaque, Value};

pub const ROWS: &[Row] = &[
    Row("semver(string): kubernetes.Semver", Cost::Scan(1.0), semver),
    Row("semver(string, bool): kubernetes.Semver", Cost::Scan(1.0), semver),
    Row("isSemver(string): bool", Cost::Scan(1.0), is_semver),
    Row("isSemver(string, bool): bool", Cost::Scan(1.0), is_semver),
    Row("kubernetes.Semver::isGreaterThan(kubernetes.Semver): bool", Cost::One, is_greater_than),
    Row("kubernetes.Semver::isLessThan(kubernetes.Semver): bool", Cost::One, is_less_than),
    Row("kubernetes.Semver::compareTo(kubernetes.Semver): int", Cost::One, compare_to),
    Row("kubernetes.Semver::major(): int", Cost::One, major),
    Row("kubernetes.Semver::minor(): int", Cost::One, minor),
    Row("kubernetes.Semver::patch(): int", Cost::One, patch),
];

#[derive(Debug, Clone)]
struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl Version {
    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            // A release comes after all that led to it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

impl Opaque for Version {
    fn type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.order(other).is_eq())
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn parse(text: &str) -> Result<Version, String> {
    if text.is_empty() {
        return Err("Version string empty".to_owned());
    }
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    let [major, minor, rest] = parts.as_slice() else {
        return Err("No Major.Minor.Patch elements found".to_owned());
    };
    let (rest, build) = rest.split_once('+').map_or((*rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
    let number = |name: &str, digits: &str| {
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
            return Err(format!("Invalid character(s) found in {name} number {digits:?}"));
        }
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(format!("{name} number must not contain leading zeroes {digits:?}"));
        }
        digits
            .parse::<u64>()
            .map_err(|_| format!("strconv.ParseUint: parsing {digits:?}: value out of range"))
    };
    let numbers = [number("Major", major)?, number("Minor", minor)?, number("Patch", patch)?];
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let mut pre_parts = Vec::new();
    for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
        if part.is_empty() {
            return Err("Prerelease is empty".to_owned());
        }
        if part.chars().all(|c| c.is_ascii_digit()) {
            if part.len() > 1 && part.starts_with('0') {
                return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
            }
            let number = part.parse().map_err(|_| format!("Invalid prerelease version {part:?}"))?;
            pre_parts.push(Part::Number(number));
        } else if plain(part) {
            pre_parts.push(Part::Text(part.to_owned()));
        } else {
            return Err(format!("Invalid character(s) found in prerelease {part:?}"));
        }
    }
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        if part.is_empty() {
            return Err("Build meta data is empty".to_owned());
        }
        if !plain(part) {
            return Err(format!("Invalid character(s) found in build meta data {part:?}"));
        }
    }
    Ok(Version { numbers, pre: pre_parts })
}

/// `v1.2` as `1.2.0`, `01.2.3` as `1.2.3`.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            let stripped = part.trim_start_matches('0');
            let starts_with_digit = stripped.starts_with(|c: char| c.is_ascii_digit());
            match part.len() {
                0 | 1 => part.to_owned(),
                _ if starts_with_digit => stripped.to_owned(),
                _ => format!("0{stripped}"),
            }
        })
        .collect();
    // What stands behind the last number stays behind it.
    if parts.len() < 3
        && let Some(last) = parts.pop()
    {
        if last.contains(['+', '-']) {
            parts.push(last);
            return parts.join(".");
        }
        parts.push(last);
        while parts.len() < 3 {
            parts.push("0".to_owned());
        }
    }
    parts.join(".")
}

fn parse_args(args: &[Value<'_>]) -> Result<Result<Version, String>, Fault> {
    let [Value::String(text), rest @ ..] = args else { return Err(Fault::no_overload()) };
    Ok(match rest {
        [Value::Bool(true)] => parse(&normalized(text)),
        _ => parse(text),
    })
}

fn semver<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    meter.text(64)?;
    parse_args(args)?.map(|version| Value::Opaque(Arc::new(version))).map_err(Fault::Failed)
}

fn is_semver<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(parse_args(args)?.is_ok()))
}

fn held<'t>(args: &'t [Value<'_>], at: usize) -> Result<&'t Version, Fault> {
    match args.get(at) {
        Some(Value::Opaque(value)) => value.as_any().downcast_ref().ok_or_else(Fault::no_overload),
        _ => Err(Fault::no_overload()),
    }
}

fn is_greater_than<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(held(args, 0)?.order(held(args, 1)?).is_gt()))
}

fn is_less_than<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(held(args, 0)?.order(held(args, 1)?).is_lt()))
}

fn compare_to<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Int(held(args, 0)?.order(held(args, 1)?) as i64))
}

fn number<'a>(args: &[Value<'a>], at: usize) -> Result<Value<'a>, Fault> {
    let numbers = held(args, 0)?.numbers;
    Ok(Value::Int(numbers.get(at).and_then(|n| i64::try_from(*n).ok()).unwrap_or(i64::MAX)))
}

fn major<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    number(args, 0)
}

fn minor<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    number(args, 1)
}

fn patch<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    number(args, 2)
}
