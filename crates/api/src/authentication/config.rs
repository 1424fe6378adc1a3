//! The file, and what is wrong with it. A configuration with a fault is refused as a whole: what is half read lets the
//! wrong people in.

use std::sync::LazyLock;

use cel::{Env, Program, Type};
use serde::Deserialize;

use super::{Anonymous, ClaimRule, Configuration, Expressed, Issuer, Mapping};
use crate::expressions::library;

/// Issuers of one configuration.
const ISSUERS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousFile {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathFile>,
}

#[derive(Deserialize)]
struct PathFile {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerFile,
    #[serde(default)]
    claim_validation_rules: Vec<RuleFile>,
    claim_mappings: MappingsFile,
    #[serde(default)]
    user_validation_rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFile {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MappingsFile {
    username: MappingFile,
    groups: Option<MappingFile>,
    uid: Option<MappingFile>,
    #[serde(default)]
    extra: Vec<ExtraFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MappingFile {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtraFile {
    key: String,
    value_expression: String,
}

const GROUP: &str = "apiserver.config.k8s.io/";

/// Reads a configuration; the error names the field.
pub fn parse(text: &str, own_issuer: &str) -> Result<Configuration, String> {
    let value = crate::yaml::parse_one(text).map_err(|e| e.to_string())?;
    let file: File = serde_json::from_value(value).map_err(|e| e.to_string())?;
    let version = file.api_version.strip_prefix(GROUP).unwrap_or_default();
    if file.kind != "AuthenticationConfiguration" || !matches!(version, "v1" | "v1beta1" | "v1alpha1") {
        return Err(format!("{} of {} is no AuthenticationConfiguration", file.kind, file.api_version));
    }
    if file.jwt.len() > ISSUERS_MAX {
        return Err(format!("jwt: Too many: {}: must have at most {ISSUERS_MAX} items", file.jwt.len()));
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for (i, jwt) in file.jwt.into_iter().enumerate() {
        let at = format!("jwt[{i}]");
        let made = issuer(&at, jwt, own_issuer)?;
        if issuers.iter().any(|other| other.url == made.url) {
            return Err(format!("{at}.issuer.url: Duplicate value: {:?}", made.url));
        }
        issuers.push(made);
    }
    let anonymous = file.anonymous.map(|a| match (a.enabled, a.conditions.is_empty()) {
        (true, true) => Ok(Anonymous::Everywhere),
        (true, false) => Ok(Anonymous::At(a.conditions.into_iter().map(|c| c.path).collect())),
        (false, true) => Ok(Anonymous::Nowhere),
        (false, false) => Err(
            "anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined",
        ),
    });
    Ok(Configuration { issuers, anonymous: anonymous.transpose()? })
}

fn check_url(at: &str, url: &str) -> Result<(), String> {
    let fault = |why: &str| Err(format!("{at}: Invalid value: {url:?}: {why}"));
    let Some(rest) = url.strip_prefix("https://") else { return fault("URL scheme must be https") };
    let authority = rest.split('/').next().unwrap_or_default();
    match () {
        () if authority.is_empty() => fault("URL has no host"),
        () if authority.contains('@') => fault("URL must not contain a username or password"),
        () if rest.contains('?') => fault("URL must not contain a query"),
        () if rest.contains('#') => fault("URL must not contain a fragment"),
        () => Ok(()),
    }
}

fn issuer(at: &str, jwt: Jwt, own_issuer: &str) -> Result<Issuer, String> {
    let of = jwt.issuer;
    let place = format!("{at}.issuer");
    check_url(&format!("{place}.url"), &of.url)?;
    if of.url == own_issuer {
        return Err(format!(
            "{place}.url: Invalid value: {:?}: URL must not overlap with disallowed issuers: [{own_issuer}]",
            of.url
        ));
    }
    if let Some(discovery) = &of.discovery_url {
        check_url(&format!("{place}.discoveryURL"), discovery)?;
        if *discovery == of.url {
            return Err(format!(
                "{place}.discoveryURL: Invalid value: {discovery:?}: discoveryURL must be different from URL"
            ));
        }
    }
    if of.audiences.is_empty() || of.audiences.iter().any(String::is_empty) {
        return Err(format!("{place}.audiences: Required value: at least one {place}.audiences is required"));
    }
    match (of.audiences.len(), of.audience_match_policy.as_str()) {
        (1, "" | "MatchAny") | (_, "MatchAny") => {}
        _ => {
            return Err(format!(
                "{place}.audienceMatchPolicy: Invalid value: {:?}: audienceMatchPolicy must be MatchAny for multiple audiences",
                of.audience_match_policy
            ));
        }
    }
    let mut rules = Vec::new();
    for (i, rule) in jwt.claim_validation_rules.into_iter().enumerate() {
        rules.push(claim_rule(&format!("{at}.claimValidationRules[{i}]"), rule)?);
    }
    let mappings = jwt.claim_mappings;
    let place = format!("{at}.claimMappings");
    let username = mapping(&format!("{place}.username"), mappings.username, true)?;
    let groups = mappings.groups.map(|m| mapping(&format!("{place}.groups"), m, true)).transpose()?;
    let uid = mappings.uid.map(|m| mapping(&format!("{place}.uid"), m, false)).transpose()?;
    let mut extra = Vec::new();
    for (i, one) in mappings.extra.into_iter().enumerate() {
        let place = format!("{place}.extra[{i}]");
        let domain = one.key.split('/').next().unwrap_or_default();
        let reserved = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|d| domain.strip_suffix(d).is_some_and(|p| p.is_empty() || p.ends_with('.')));
        if !one.key.contains('/') || one.key != one.key.to_lowercase() || reserved {
            return Err(format!(
                "{place}.key: Invalid value: {:?}: must be a lowercase domain-prefixed path outside of k8s.io and kubernetes.io",
                one.key
            ));
        }
        extra.push((one.key, compile(&format!("{place}.valueExpression"), &one.value_expression, false)?));
    }
    let mut user_rules = Vec::new();
    for (i, rule) in jwt.user_validation_rules.into_iter().enumerate() {
        let place = format!("{at}.userValidationRules[{i}].expression");
        let program = holds(&place, compile(&place, &rule.expression, true)?)?;
        user_rules.push(Expressed { program, message: message(rule.message, &rule.expression) });
    }
    let IssuerFile { url, discovery_url, certificate_authority: authority, audiences, .. } = of;
    Ok(Issuer { url, discovery_url, authority, audiences, rules, username, groups, uid, extra, user_rules })
}

fn message(given: String, expression: &str) -> String {
    if given.is_empty() { format!("validation expression '{expression}' failed") } else { given }
}

fn claim_rule(at: &str, rule: RuleFile) -> Result<ClaimRule, String> {
    match (rule.claim.is_empty(), rule.expression.is_empty()) {
        (false, false) => {
            Err(format!("{at}: Invalid value: {:?}: claim and expression can't both be set", rule.claim))
        }
        (true, true) => Err(format!("{at}: Required value: claim or expression is required")),
        (false, true) => Ok(ClaimRule::Claim { name: rule.claim, required: rule.required_value }),
        (true, false) => {
            let place = format!("{at}.expression");
            let program = holds(&place, compile(&place, &rule.expression, false)?)?;
            Ok(ClaimRule::Expressed(Expressed { program, message: message(rule.message, &rule.expression) }))
        }
    }
}

fn mapping(at: &str, given: MappingFile, prefixed: bool) -> Result<Mapping, String> {
    match (given.claim.is_empty(), given.expression.is_empty(), given.prefix) {
        (false, false, _) => {
            Err(format!("{at}: Invalid value: \"\": claim and expression can't both be set"))
        }
        (true, true, _) => Err(format!("{at}: Required value: claim or expression is required")),
        (true, false, Some(prefix)) => Err(format!(
            "{at}.prefix: Invalid value: {prefix:?}: may not be specified when expression is set"
        )),
        (true, false, None) => {
            Ok(Mapping::Expression(compile(&format!("{at}.expression"), &given.expression, false)?))
        }
        (false, true, None) if prefixed => Err(format!(
            "{at}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
        )),
        (false, true, prefix) => Ok(Mapping::Claim { name: given.claim, prefix: prefix.unwrap_or_default() }),
    }
}

fn compile(at: &str, expression: &str, of_user: bool) -> Result<Program, String> {
    static CLAIMS: LazyLock<Env> = LazyLock::new(|| {
        Env::new(library().clone()).variable("claims", Type::Map(Type::String.into(), Type::Dyn.into()))
    });
    static USER: LazyLock<Env> = LazyLock::new(|| Env::new(library().clone()).variable("user", Type::Dyn));
    if expression.is_empty() {
        return Err(format!("{at}: Required value"));
    }
    let env: &Env = if of_user { &USER } else { &CLAIMS };
    Program::compile(env, expression)
        .map_err(|issues| format!("{at}: Invalid value: {expression:?}: compilation failed: {issues}"))
}

fn holds(at: &str, program: Program) -> Result<Program, String> {
    match program.output() {
        Type::Bool | Type::Dyn => Ok(program),
        other => Err(format!("{at}: Invalid value: must evaluate to bool but got {other}")),
    }
}
