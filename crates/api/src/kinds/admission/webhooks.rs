//! `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration`: servers that are asked over HTTPS. The two kinds
//! differ in one field, so they share one form here.

use std::collections::HashSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::columns::{age_cell, name_cell};
use crate::kinds::metadata::Pass::Whole;
use crate::kinds::names::{self, Rule};
use crate::kinds::validate::{json, label_selector};
use crate::kinds::{Build, Errors, Kind};
use crate::policy::Declared;
use crate::status::FieldError;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const VERSIONS: &[&str] = &["v1", "v1beta1"];
const LONGEST_SECONDS: i32 = 30;

pub fn mutating() -> Kind {
    Build::<MutatingWebhookConfiguration>::new("mutatingwebhookconfigurations", false)
        .metadata_on_update(&[Whole])
        .rules(|r| r.update_needs_version = true)
        .category("api-extensions")
        .generation()
        .default(|c| {
            for hook in c.webhooks.iter_mut().flatten() {
                hook.reinvocation_policy.get_or_insert_with(|| "Never".into());
                default(hook.into());
            }
        })
        .validate(|c, errors| {
            let hooks = c.webhooks.as_deref().unwrap_or_default();
            check(hooks.iter().map(Hook::from).collect(), errors);
            for (i, hook) in hooks.iter().enumerate() {
                let policy = hook.reinvocation_policy.as_deref();
                let at = format!("webhooks[{i}].reinvocationPolicy");
                errors.one_of(at, policy, &["IfNeeded", "Never"]);
            }
        })
        .row(|c| {
            let count = c.webhooks.as_ref().map_or(0, Vec::len);
            vec![name_cell(&c.metadata), count.into(), age_cell(&c.metadata)]
        })
        .done()
}

pub fn validating() -> Kind {
    Build::<ValidatingWebhookConfiguration>::new("validatingwebhookconfigurations", false)
        .metadata_on_update(&[Whole])
        .rules(|r| r.update_needs_version = true)
        .category("api-extensions")
        .generation()
        .default(|c| c.webhooks.iter_mut().flatten().for_each(|hook| default(hook.into())))
        .validate(|c, errors| {
            let hooks = c.webhooks.as_deref().unwrap_or_default();
            check(hooks.iter().map(Hook::from).collect(), errors);
        })
        .row(|c| {
            let count = c.webhooks.as_ref().map_or(0, Vec::len);
            vec![name_cell(&c.metadata), count.into(), age_cell(&c.metadata)]
        })
        .done()
}

/// What both have, to be filled in.
struct Draft<'a> {
    failure_policy: &'a mut Option<String>,
    match_policy: &'a mut Option<String>,
    namespace_selector: &'a mut Option<LabelSelector>,
    object_selector: &'a mut Option<LabelSelector>,
    timeout_seconds: &'a mut Option<i32>,
    client_config: &'a mut WebhookClientConfig,
    rules: &'a mut Option<Vec<RuleWithOperations>>,
}

/// What both have, to be looked at.
struct Hook<'a> {
    name: &'a str,
    versions: &'a [String],
    client_config: &'a WebhookClientConfig,
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
    rules: &'a [RuleWithOperations],
    conditions: &'a [MatchCondition],
}

macro_rules! forms {
    ($hook:ident) => {
        impl<'a> From<&'a mut $hook> for Draft<'a> {
            fn from(hook: &'a mut $hook) -> Self {
                Self {
                    failure_policy: &mut hook.failure_policy,
                    match_policy: &mut hook.match_policy,
                    namespace_selector: &mut hook.namespace_selector,
                    object_selector: &mut hook.object_selector,
                    timeout_seconds: &mut hook.timeout_seconds,
                    client_config: &mut hook.client_config,
                    rules: &mut hook.rules,
                }
            }
        }

        impl<'a> From<&'a $hook> for Hook<'a> {
            fn from(hook: &'a $hook) -> Self {
                Self {
                    name: &hook.name,
                    versions: &hook.admission_review_versions,
                    client_config: &hook.client_config,
                    failure_policy: hook.failure_policy.as_deref(),
                    match_policy: hook.match_policy.as_deref(),
                    side_effects: &hook.side_effects,
                    timeout_seconds: hook.timeout_seconds,
                    selectors: [
                        ("namespaceSelector", hook.namespace_selector.as_ref()),
                        ("objectSelector", hook.object_selector.as_ref()),
                    ],
                    rules: hook.rules.as_deref().unwrap_or_default(),
                    conditions: hook.match_conditions.as_deref().unwrap_or_default(),
                }
            }
        }
    };
}

forms!(MutatingWebhook);
forms!(ValidatingWebhook);

fn default(hook: Draft<'_>) {
    hook.failure_policy.get_or_insert_with(|| "Fail".into());
    hook.match_policy.get_or_insert_with(|| "Equivalent".into());
    hook.namespace_selector.get_or_insert_default();
    hook.object_selector.get_or_insert_default();
    hook.timeout_seconds.get_or_insert(10);
    if let Some(service) = &mut hook.client_config.service {
        service.port.get_or_insert(443);
    }
    for rule in hook.rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

fn check(hooks: Vec<Hook<'_>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (i, hook) in hooks.iter().enumerate() {
        let at = format!("webhooks[{i}]");
        check_name(&format!("{at}.name"), hook.name, errors);
        if !seen.insert(hook.name) {
            errors.push(FieldError::duplicate(format!("{at}.name"), hook.name));
        }
        check_versions(&format!("{at}.admissionReviewVersions"), hook.versions, errors);
        for (r, rule) in hook.rules.iter().enumerate() {
            check_rule(&format!("{at}.rules[{r}]"), rule, errors);
        }
        errors.one_of(format!("{at}.failurePolicy"), hook.failure_policy, &["Fail", "Ignore"]);
        errors.one_of(format!("{at}.matchPolicy"), hook.match_policy, &["Equivalent", "Exact"]);
        match hook.side_effects {
            "" => {
                let detail = "must specify one of None, NoneOnDryRun";
                errors.push(FieldError::required(format!("{at}.sideEffects"), detail));
            }
            given => errors.one_of(format!("{at}.sideEffects"), Some(given), &["None", "NoneOnDryRun"]),
        }
        if let Some(seconds) = hook.timeout_seconds.filter(|s| !(1..=LONGEST_SECONDS).contains(s)) {
            let detail = format!("the timeout value must be between 1 and {LONGEST_SECONDS} seconds");
            errors.push(FieldError::invalid(format!("{at}.timeoutSeconds"), seconds, detail));
        }
        for (part, selector) in hook.selectors {
            if let Some(selector) = selector {
                label_selector(&format!("{at}.{part}"), selector, errors);
            }
        }
        check_client(&format!("{at}.clientConfig"), hook.client_config, errors);
        check_conditions(&format!("{at}.matchConditions"), hook.conditions, errors);
    }
}

/// When a hook is asked: by expressions, each with a name of its own.
fn check_conditions(field: &str, conditions: &[MatchCondition], errors: &mut Errors) {
    let conditions = conditions.to_vec();
    let declared = Declared { params: false, authorizer: true };
    super::policies::check_conditions(declared, Some(&conditions), field, errors);
}

/// A domain name of at least three parts.
fn check_name(field: &str, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(field, true);
    }
    if let Some(fault) = names::fault(Rule::Subdomain, name) {
        return errors.push(FieldError::invalid(field, name, fault));
    }
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(field, name, detail));
    }
}

fn check_versions(field: &str, versions: &[String], errors: &mut Errors) {
    if versions.is_empty() {
        let detail = "must specify one of v1, v1beta1";
        return errors.push(FieldError::required(field, detail));
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            let at = format!("{field}[{i}]");
            errors.push(FieldError::invalid(at, version.as_str(), "duplicate version"));
            continue;
        }
        if let Some(fault) = names::fault(Rule::Label1035, version) {
            errors.push(FieldError::invalid(format!("{field}[{i}]"), version.as_str(), fault));
        }
    }
    if !versions.iter().any(|v| VERSIONS.contains(&v.as_str())) {
        let detail = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(field, json(&versions), detail));
    }
}

pub(super) fn check_rule(field: &str, rule: &RuleWithOperations, errors: &mut Errors) {
    let operations = rule.operations.as_deref().unwrap_or_default();
    let mut list = |part: &str, values: &[String]| {
        let at = format!("{field}.{part}");
        if values.is_empty() {
            errors.push(FieldError::required(at.as_str(), ""));
        }
        if values.len() > 1 && values.iter().any(|v| v == "*") {
            let detail = "if '*' is present, must not specify other ".to_owned()
                + match part {
                    "apiGroups" => "API groups",
                    "apiVersions" => "API versions",
                    "operations" => "operations",
                    _ => "resources",
                };
            errors.push(FieldError::invalid(at, json(&values), detail));
        }
    };
    list("operations", operations);
    list("apiGroups", rule.api_groups.as_deref().unwrap_or_default());
    list("apiVersions", rule.api_versions.as_deref().unwrap_or_default());
    let resources = rule.resources.as_deref().unwrap_or_default();
    if resources.is_empty() {
        list("resources", &[]);
    }
    let plain = resources.iter().filter(|r| !r.contains('/')).count();
    if plain > 1 && resources.iter().any(|r| r == "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(format!("{field}.resources"), json(&resources), detail));
    }
    for (i, operation) in operations.iter().enumerate() {
        errors.one_of(format!("{field}.operations[{i}]"), Some(operation), OPERATIONS);
    }
    for (i, version) in rule.api_versions.iter().flatten().enumerate() {
        errors.required(format!("{field}.apiVersions[{i}]"), version.is_empty());
    }
    check_resources(&format!("{field}.resources"), resources, errors);
    errors.one_of(format!("{field}.scope"), rule.scope.as_deref(), &["*", "Cluster", "Namespaced"]);
}

/// `*` stands for all of a level, so that nothing of it stands beside.
fn check_resources(field: &str, resources: &[String], errors: &mut Errors) {
    let (mut of_all, mut whole) = (HashSet::new(), HashSet::new());
    for (i, resource) in resources.iter().enumerate() {
        let at = format!("{field}[{i}]");
        errors.required(at.as_str(), resource.is_empty());
        if resource.is_empty() || resource == "*/*" {
            continue;
        }
        let Some((main, part)) = resource.split_once('/') else { continue };
        let mut clash = |all: String| {
            let detail = format!("if '{all}' is present, must not specify {resource}");
            errors.push(FieldError::invalid(at.as_str(), resource.as_str(), detail));
        };
        if of_all.contains(part) {
            clash(format!("*/{part}"));
        }
        if whole.contains(main) {
            clash(format!("{main}/*"));
        }
        if part == "*" {
            whole.insert(main);
        }
        if main == "*" {
            of_all.insert(part);
        }
    }
    if resources.len() > 1 && resources.iter().any(|resource| resource == "*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(field, json(&resources), detail));
    }
}

fn check_client(field: &str, client: &WebhookClientConfig, errors: &mut Errors) {
    let service = client.service.as_ref();
    let service = service.map(|s| (s.name.as_str(), s.namespace.as_str(), s.path.as_deref(), s.port));
    check_place(field, client.url.as_deref(), service, errors);
}

/// Where a webhook is: by URL, or by the name, namespace, path and port of a Service.
pub fn check_place(
    field: &str,
    url: Option<&str>,
    service: Option<(&str, &str, Option<&str>, Option<i32>)>,
    errors: &mut Errors,
) {
    match (url, service) {
        (Some(_), Some(_)) | (None, None) => {
            errors.push(FieldError::required(field, "exactly one of url or service is required"));
        }
        (Some(url), None) => check_url(&format!("{field}.url"), url, errors),
        (None, Some((name, namespace, path, port))) => {
            errors.required(format!("{field}.service.name"), name.is_empty());
            errors.required(format!("{field}.service.namespace"), namespace.is_empty());
            if let Some(port) = port.filter(|p| !(1..=65_535).contains(p)) {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                errors.push(FieldError::invalid(format!("{field}.service.port"), port, detail));
            }
            if let Some(path) = path.filter(|path| !path.is_empty()) {
                check_service_path(&format!("{field}.service.path"), path, errors);
            }
        }
    }
}

/// A path of names, none of which is empty.
fn check_service_path(field: &str, path: &str, errors: &mut Errors) {
    let mut fault = |detail: String| errors.push(FieldError::invalid(field, path, detail));
    if path == "/" {
        return;
    }
    if path == "//" {
        return fault("segment[0] may not be empty".into());
    }
    if !path.starts_with('/') {
        fault("must start with a '/'".into());
    }
    // The original drops the first character, whatever it is.
    let mut inner = path.chars();
    inner.next();
    let inner = inner.as_str();
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (i, segment) in inner.split('/').enumerate() {
        if segment.is_empty() {
            fault(format!("segment[{i}] may not be empty"));
        } else if let Some(why) = names::fault(Rule::Subdomain, segment) {
            fault(format!("segment[{i}]: {why}"));
        }
    }
}

fn check_url(field: &str, url: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut fault = |value: &str, detail: String| errors.push(FieldError::invalid(field, value, detail));
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        return fault(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    };
    let mut fault = |part: &str, detail: String| errors.push(FieldError::invalid(field, part, detail));
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, fragment)| (rest, fragment));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let place = rest.split('/').next().unwrap_or_default();
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    if host.is_empty() {
        fault("", format!("host must be specified{FORM}"));
    }
    // Each is told with the part that is at fault.
    if let Some(user) = user {
        fault(user, "user information is not permitted in the URL".into());
    }
    if !fragment.is_empty() {
        fault(fragment, "fragments are not permitted in the URL".into());
    }
    if !query.is_empty() {
        fault(query, "query parameters are not permitted in the URL".into());
    }
}
