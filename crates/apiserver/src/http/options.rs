//! The options of a request, read from its query and checked before anything is done: what may not stand together is
//! refused in the words of the original's validation.

use api::schema::FieldProblem;
use api::status::{ApiError, FieldError, Problem};
use serde_json::{Value, json};

use super::query::Query;

const META: &str = "meta.k8s.io";
const MANAGER_LENGTH_MAX: usize = 128;
pub const EXACT: &str = "Exact";
pub const NOT_OLDER_THAN: &str = "NotOlderThan";

fn refused(kind: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    match errors {
        [] => Ok(()),
        errors => Err(ApiError::invalid(META, kind, "", errors)),
    }
}

/// In the order given, which the original does not sort here.
fn not_supported(field: &str, value: impl Into<Value>, supported: &[&str]) -> FieldError {
    let supported = supported.iter().map(|s| (*s).to_owned()).collect();
    FieldError { field: field.into(), problem: Problem::NotSupported(value.into(), supported) }
}

/// How a list or a watch is to be made, selectors aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub limit: usize,
    pub continue_token: String,
    pub resource_version: String,
    pub version_match: String,
    pub timeout_seconds: Option<i64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
        let limit = query.number("limit")?.unwrap_or(0);
        let options = Self {
            // A negative limit is none, as zero is.
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: text("continue"),
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            timeout_seconds: query.number("timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.option_flag("sendInitialEvents"),
        };
        let options = if watch { options.with_initial_events() } else { options };
        refused("ListOptions", &if watch { options.watch_faults() } else { options.list_faults() })?;
        Ok(options)
    }

    /// A watch from any version, or from none, begins with what there is, as it always has, and says so.
    fn with_initial_events(self) -> Self {
        let unsaid = self.send_initial_events.is_none() && self.version_match.is_empty();
        match unsaid && self.bookmarks && matches!(&*self.resource_version, "" | "0") {
            true => Self { send_initial_events: Some(true), version_match: NOT_OLDER_THAN.into(), ..self },
            false => self,
        }
    }

    /// The original answers from its cache to whoever takes any version, and all at once: of a cache there are no pages.
    pub fn as_cached(self) -> Self {
        let limit = if self.resource_version == "0" { 0 } else { self.limit };
        Self { limit, ..self }
    }

    fn list_faults(&self) -> Vec<FieldError> {
        const FIELD: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        if !self.version_match.is_empty() {
            if self.resource_version.is_empty() {
                let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(FieldError::forbidden(FIELD, detail));
            }
            if !self.continue_token.is_empty() {
                let detail = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(FIELD, detail));
            }
            if !matches!(&*self.version_match, EXACT | NOT_OLDER_THAN) {
                let supported = [EXACT, NOT_OLDER_THAN, ""];
                errors.push(not_supported(FIELD, self.version_match.as_str(), &supported));
            }
            if self.version_match == EXACT && self.resource_version == "0" {
                let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(FieldError::forbidden(FIELD, detail));
            }
        }
        if self.send_initial_events.is_some() {
            errors
                .push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        errors
    }

    fn watch_faults(&self) -> Vec<FieldError> {
        const FIELD: &str = "resourceVersionMatch";
        let mut errors = Vec::new();
        if self.send_initial_events.is_some() && self.version_match != NOT_OLDER_THAN {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(FIELD, detail));
        }
        if !self.version_match.is_empty() {
            if self.send_initial_events.is_none() {
                let detail =
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(FieldError::forbidden(FIELD, detail));
            }
            if self.version_match != NOT_OLDER_THAN {
                errors.push(not_supported(FIELD, self.version_match.as_str(), &[NOT_OLDER_THAN]));
            }
            if !self.continue_token.is_empty() {
                let detail = "resourceVersionMatch is forbidden when continue is provided";
                errors.push(FieldError::forbidden(FIELD, detail));
            }
        }
        errors
    }

    /// The revision asked for; `None` where none is, and zero where any will do.
    pub fn revision(&self) -> Result<Option<u64>, ApiError> {
        revision(&self.resource_version)
    }
}

/// A resource version as a revision of the store, where a list asks for it.
pub fn revision(text: &str) -> Result<Option<u64>, ApiError> {
    parse_revision(text).map_err(|fault| ApiError::bad_request(format!("invalid resource version: {fault}")))
}

/// The same where a watch does, or somebody who reads one object, which the original does not explain.
pub fn revision_of_cache(text: &str) -> Result<Option<u64>, ApiError> {
    parse_revision(text).map_err(|fault| ApiError::unexplained(fault.to_string()))
}

fn parse_revision(text: &str) -> Result<Option<u64>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let problem = if digits { "value out of range" } else { "invalid syntax" };
    let detail = format!("strconv.ParseUint: parsing {text:?}: {problem}");
    text.parse().map(Some).map_err(|_| FieldError::invalid("resourceVersion", text, detail))
}

fn dry_run_faults<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|v| *v != "All") {
        errors.push(not_supported("dryRun", json!(values), &["All"]));
    }
}

/// Checks what the query says of a write; `verb` is `create`, `update`, `patch`, or one of deletion's, whose body has
/// options too and is checked with them.
pub fn check_write(verb: &str, query: &Query, applies: bool) -> Result<(), ApiError> {
    let kind = match verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => return Ok(()),
    };
    let mut errors = Vec::new();
    let manager = query.get("fieldManager").unwrap_or_default();
    if verb == "patch" {
        match applies {
            true if manager.is_empty() => {
                errors.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            false if query.option_flag("force").is_some() => {
                errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
            _ => {}
        }
    }
    manager_faults(manager, &mut errors);
    dry_run_faults(query.all("dryRun"), &mut errors);
    let validation = query.get("fieldValidation").unwrap_or_default();
    if !matches!(validation, "" | "Ignore" | "Warn" | "Strict") {
        errors.push(not_supported("fieldValidation", validation, &["", "Ignore", "Strict", "Warn"]));
    }
    refused(kind, &errors)
}

fn manager_faults(manager: &str, errors: &mut Vec<FieldError>) {
    if manager.len() > MANAGER_LENGTH_MAX {
        let problem = Problem::TooLong(MANAGER_LENGTH_MAX);
        errors.push(FieldError { field: "fieldManager".into(), problem });
    }
    // The position is the byte's, as Go counts in text.
    for (at, letter) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
        errors.push(FieldError::invalid("fieldManager", manager, detail));
    }
}

/// How something is to be deleted. `ignoreStoreReadErrorWithClusterBreakingPotential` is let drop, as the original does
/// unless its gate is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: Vec<String>,
}

impl DeleteOptions {
    pub fn of_query(query: &Query) -> Result<Self, ApiError> {
        Ok(Self {
            grace_period_seconds: query.number("gracePeriodSeconds")?,
            propagation_policy: query.get("propagationPolicy").map(str::to_owned),
            orphan_dependents: query.option_flag("orphanDependents"),
            uid: None,
            resource_version: None,
            dry_run: query.all("dryRun").filter(|v| !v.is_empty()).map(str::to_owned).collect(),
        })
    }

    pub fn of_body(body: &Value) -> Result<Self, ApiError> {
        let schema = api::schema::of_kind("", "v1", "DeleteOptions");
        let problems = schema.map(|schema| schema.check(body)).unwrap_or_default();
        if let Some(problem) = problems.iter().find(|p| matches!(p, FieldProblem::Type { .. })) {
            return Err(ApiError::bad_request(problem.to_string()));
        }
        let options: k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions =
            serde_json::from_value(body.clone()).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            grace_period_seconds: options.grace_period_seconds,
            propagation_policy: options.propagation_policy,
            orphan_dependents: options.orphan_dependents,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run: options.dry_run.unwrap_or_default(),
        })
    }

    pub fn is_dry_run(&self) -> bool {
        !self.dry_run.is_empty()
    }

    pub fn check(&self) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        if let Some(policy) = &self.propagation_policy {
            if self.orphan_dependents.is_some() {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid("propagationPolicy", policy.as_str(), detail));
            }
            if !matches!(policy.as_str(), "Background" | "Foreground" | "Orphan") {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(not_supported("propagationPolicy", policy.as_str(), &supported));
            }
        }
        dry_run_faults(self.dry_run.iter().map(String::as_str), &mut errors);
        refused("DeleteOptions", &errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(result: Result<T, ApiError>) -> String {
        result.err().map(|e| format!("{} {}", e.code, e.message)).unwrap_or_default()
    }

    #[test]
    fn versions_and_matches_of_lists() {
        const INVALID: &str = "422 ListOptions.meta.k8s.io \"\" is invalid: ";
        for (query, expected) in [
            ("", ""),
            ("resourceVersion=5", ""),
            ("resourceVersion=5&resourceVersionMatch=Exact", ""),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", ""),
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersion=0&resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersion=5&resourceVersionMatch=exact",
                "resourceVersionMatch: Unsupported value: \"exact\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "resourceVersion=5&resourceVersionMatch=Exact&continue=x",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ),
            (
                "sendInitialEvents=true",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
        ] {
            let expected = if expected.is_empty() { String::new() } else { format!("{INVALID}{expected}") };
            assert_eq!(told(ListOptions::parse(&Query::parse(query), false)), expected, "{query}");
        }
        assert_eq!(
            told(ListOptions::parse(&Query::parse("limit=abc"), false)),
            "400 strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            told(revision("abc")),
            "400 invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax"
        );
    }

    #[test]
    fn versions_and_matches_of_watches() {
        for (query, expected) in [
            ("", ""),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", ""),
            (
                "sendInitialEvents=true",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        ] {
            let told = told(ListOptions::parse(&Query::parse(query), true));
            assert_eq!(
                told.strip_prefix("422 ListOptions.meta.k8s.io \"\" is invalid: ").unwrap_or_default(),
                expected,
                "{query}"
            );
        }
    }

    #[test]
    fn options_of_writes() {
        for (verb, query, applies, expected) in [
            ("create", "dryRun=All&fieldManager=x&fieldValidation=Strict", false, ""),
            (
                "create",
                "dryRun=Foo",
                false,
                "422 CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Foo\"]: supported values: \"All\"",
            ),
            (
                "update",
                "fieldValidation=x",
                false,
                "422 UpdateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                "patch",
                "force=true",
                false,
                "422 PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                "patch",
                "",
                true,
                "422 PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ),
            (
                "patch",
                "fieldManager=a%01b",
                true,
                "422 PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\x01b\": invalid character U+0001 (at position 1)",
            ),
            ("get", "dryRun=Foo", false, ""),
        ] {
            assert_eq!(told(check_write(verb, &Query::parse(query), applies)), expected, "{verb} {query}");
        }
    }

    #[test]
    fn options_of_deletions() {
        let check = |query: &str| {
            let options = DeleteOptions::of_query(&Query::parse(query)).expect("parses");
            let told = told(options.check());
            told.strip_prefix("422 DeleteOptions.meta.k8s.io \"\" is invalid: ").unwrap_or(&told).to_owned()
        };
        assert_eq!(check("propagationPolicy=Foreground&gracePeriodSeconds=0&dryRun=All"), "");
        assert_eq!(
            check("propagationPolicy=x"),
            "propagationPolicy: Unsupported value: \"x\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
        assert_eq!(
            check("propagationPolicy=Orphan&orphanDependents=true"),
            "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"
        );
        assert_eq!(
            told(DeleteOptions::of_query(&Query::parse("gracePeriodSeconds=x"))),
            "400 strconv.ParseInt: parsing \"x\": invalid syntax"
        );
    }
}
