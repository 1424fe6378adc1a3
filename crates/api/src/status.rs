//! Errors as clients see them: `Status` objects whose reason, message and causes client code matches on.
//! The wording is the API's own; what the log says of the same failure is the log's business.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use serde_json::Value;

/// A refusal, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    pub code: u16,
    pub reason: Cow<'static, str>,
    pub message: String,
    pub details: Option<Box<StatusDetails>>,
    /// Where a list that has expired may go on, inconsistently.
    pub continue_token: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

/// Which resource a message is about: `deployments.apps`, or `pods` for the core group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub plural: &'a str,
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    /// The same with a cause beside the message.
    pub fn caused_by(mut self, cause: StatusCause) -> Self {
        self.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
        self
    }

    fn about(mut self, resource: &Resource<'_>, name: &str) -> Self {
        self.details = Some(Box::new(StatusDetails {
            name: (!name.is_empty()).then(|| name.to_owned()),
            group: (!resource.group.is_empty()).then(|| resource.group.to_owned()),
            kind: (!resource.plural.is_empty()).then(|| resource.plural.to_owned()),
            ..Default::default()
        }));
        self
    }

    pub fn not_found(resource: &Resource<'_>, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// The path leads to nothing that is served.
    pub fn no_such_path() -> Self {
        let mut error = Self::new(404, "NotFound", "the server could not find the requested resource");
        error.details = Some(Box::default());
        error
    }

    pub fn already_exists(resource: &Resource<'_>, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).about(resource, name)
    }

    pub fn conflict(resource: &Resource<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    pub fn modified(resource: &Resource<'_>, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// Server-side apply met fields that others own.
    pub fn apply_conflict(message: String, causes: Vec<StatusCause>) -> Self {
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(Box::new(StatusDetails { causes: Some(causes), ..Default::default() }));
        error
    }

    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let subject = Resource { group, plural: kind };
        // What is wrong in several ways alike is said once, and told of as a cause each time.
        let mut seen = HashSet::new();
        let texts = errors.iter().map(FieldError::to_string);
        let texts: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let mut error =
            Self::new(422, "Invalid", format!("{subject} {name:?} is invalid: {list}")).about(&subject, name);
        let causes = errors.iter().map(FieldError::cause).collect();
        if let Some(details) = &mut error.details {
            details.causes = Some(causes);
        }
        error
    }

    pub fn forbidden(resource: &Resource<'_>, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { resource.to_string() } else { format!("{resource} {name:?}") };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(resource, name)
    }

    pub fn forbidden_path(message: String) -> Self {
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(Box::default());
        error
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// What the original answers where it has no word for the fault.
    pub fn unexplained(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The media type is none that this path takes at all.
    pub fn wrong_media_type() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
        }
    }

    /// A patch that does not fit the object it is for.
    pub fn patch_does_not_fit() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self { details: Some(Box::default()), ..Self::new(422, "Invalid", message) }
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// What is there does not answer to this method.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut error = Self::new(405, "MethodNotAllowed", message);
        error.details = Some(Box::default());
        error
    }

    /// A verb that the kind itself refuses.
    pub fn verb_not_supported(resource: &Resource<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", resource.to_string());
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    /// Every generated name was taken.
    pub fn generated_name_conflict(resource: &Resource<'_>, name: &str) -> Self {
        let message = format!(
            "{resource} {name:?} already exists, the server was not able to generate a unique name for the object"
        );
        let mut error = Self::new(409, "AlreadyExists", message).about(resource, name);
        if let Some(details) = &mut error.details {
            details.retry_after_seconds = Some(1);
        }
        error
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// A list's version has been compacted away.
    pub fn expired_list() -> Self {
        Self::expired("The resourceVersion for the provided list is too old.")
    }

    /// A list cannot go on as it began; `token` is where it may go on with what there is now.
    pub fn expired_continue(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                       list without the continue parameter, or use the continue token in this response to retrieve the \
                       remainder of the results. Continuing with the provided token results in an inconsistent list - \
                       objects that were created, modified, or deleted between the time the first chunk was returned and \
                       now may show up in the list.";
        Self { continue_token: Some(token), ..Self::expired(message) }
    }

    pub fn future_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {requested}, current: {current}");
        let mut error = Self::new(504, "Timeout", message);
        error.details = Some(Box::new(StatusDetails {
            retry_after_seconds: Some(1),
            causes: Some(vec![StatusCause {
                reason: Some("ResourceVersionTooLarge".into()),
                message: Some("Too large resource version".into()),
                field: None,
            }]),
            ..Default::default()
        }));
        error
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// `0` where nobody knows when to come back.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        let retry_after_seconds = (retry_after_seconds > 0).then_some(retry_after_seconds);
        error.details = Some(Box::new(StatusDetails { retry_after_seconds, ..Default::default() }));
        error
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    /// As another server has worded it.
    pub fn worded(code: u16, reason: String, message: String, details: Option<StatusDetails>) -> Self {
        Self { code, reason: reason.into(), message, details: details.map(Box::new), continue_token: None }
    }

    /// Something else is away, for nobody knows how long. As in the original nothing is said of when to come back: clients
    /// that are told ask again by themselves, for minutes.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// This server cannot for a moment; clients come back by themselves.
    pub fn unavailable_for_now(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let details = StatusDetails { retry_after_seconds: Some(retry_after_seconds), ..Default::default() };
        Self { details: Some(Box::new(details)), ..Self::unavailable(message) }
    }

    pub fn to_status(&self) -> Status {
        let continue_ = self.continue_token.clone();
        Status {
            metadata: ListMeta { continue_, ..Default::default() },
            code: Some(i32::from(self.code)),
            reason: (!self.reason.is_empty()).then(|| self.reason.to_string()),
            message: Some(self.message.clone()),
            status: Some("Failure".to_owned()),
            details: self.details.as_deref().cloned(),
        }
    }
}

/// One fault of one field, in the words of the API's validation.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub field: String,
    pub problem: Problem,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    Required(String),
    Invalid(Value, String),
    NotSupported(Value, Vec<String>),
    Duplicate(Value),
    Forbidden(String),
    NotFound(Value),
    TooLong(usize),
    TooMany(usize, usize),
    /// The value has the wrong type.
    Type(Value, String),
    /// Already worded, as CRD validation yields them: reason and full message without the field.
    Worded(&'static str, String),
}

impl FieldError {
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Required(detail.into()) }
    }

    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Invalid(value.into(), detail.into()) }
    }

    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|s| (*s).to_owned()).collect();
        Self { field: field.into(), problem: Problem::NotSupported(value.into(), supported) }
    }

    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { field: field.into(), problem: Problem::Duplicate(value.into()) }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), problem: Problem::Forbidden(detail.into()) }
    }

    pub fn immutable(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::invalid(field, value, "field is immutable")
    }

    /// Whether the value is not of the form that everything else is said of.
    pub fn is_of_form(&self) -> bool {
        matches!(
            self.reason(),
            "FieldValueRequired"
                | "FieldValueNotSupported"
                | "FieldValueTooLong"
                | "FieldValueTooMany"
                | "FieldValueTypeInvalid"
        )
    }

    fn reason(&self) -> &'static str {
        match &self.problem {
            Problem::Required(_) => "FieldValueRequired",
            Problem::Invalid(..) => "FieldValueInvalid",
            Problem::NotSupported(..) => "FieldValueNotSupported",
            Problem::Duplicate(_) => "FieldValueDuplicate",
            Problem::Forbidden(_) => "FieldValueForbidden",
            Problem::NotFound(_) => "FieldValueNotFound",
            Problem::TooLong(_) => "FieldValueTooLong",
            Problem::TooMany(..) => "FieldValueTooMany",
            Problem::Type(..) => "FieldValueTypeInvalid",
            Problem::Worded(reason, _) => reason,
        }
    }

    fn body(&self) -> String {
        let quoted = |list: &[String]| list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        match &self.problem {
            Problem::Required(detail) if detail.is_empty() => "Required value".into(),
            Problem::Required(detail) => format!("Required value: {detail}"),
            Problem::Invalid(value, detail) => format!("Invalid value: {}: {detail}", shown(value)),
            Problem::NotSupported(value, supported) => {
                format!("Unsupported value: {}: supported values: {}", shown(value), quoted(supported))
            }
            Problem::Duplicate(value) => format!("Duplicate value: {}", shown(value)),
            Problem::Forbidden(detail) => format!("Forbidden: {detail}"),
            Problem::NotFound(value) => format!("Not found: {}", shown(value)),
            Problem::TooLong(limit) => too_long(*limit as u64),
            Problem::TooMany(actual, limit) => too_many(*actual as u64, *limit as u64),
            Problem::Type(value, detail) => format!("Invalid value: {}: {detail}", shown(value)),
            Problem::Worded(_, message) => message.clone(),
        }
    }

    fn cause(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()),
            message: Some(self.body()),
            reason: Some(self.reason().to_owned()),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => f.write_str(&self.body()),
            field => write!(f, "{field}: {}", self.body()),
        }
    }
}

/// More text than there may be.
pub(crate) fn too_long(limit: u64) -> String {
    let unit = if limit == 1 { "byte" } else { "bytes" };
    format!("Too long: may not be more than {limit} {unit}")
}

/// More than there may be of them.
pub(crate) fn too_many(actual: u64, limit: u64) -> String {
    let unit = if limit == 1 { "item" } else { "items" };
    format!("Too many: {actual}: must have at most {limit} {unit}")
}

/// A text in quotes as `%q` writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c != ' ' && (c.is_control() || c.is_whitespace()) => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Strings in quotes, numbers plain, structures as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_that_clients_match() {
        let deployments = Resource { group: "apps", plural: "deployments" };
        assert_eq!(ApiError::not_found(&deployments, "web").message, "deployments.apps \"web\" not found");
        let errors = [
            FieldError::required("spec.selector", ""),
            FieldError::not_supported("spec.strategy.type", "X", &["Recreate", "RollingUpdate"]),
        ];
        let error = ApiError::invalid("apps", "Deployment", "web", &errors);
        assert_eq!(
            error.message,
            "Deployment.apps \"web\" is invalid: [spec.selector: Required value, spec.strategy.type: Unsupported value: \
             \"X\": supported values: \"Recreate\", \"RollingUpdate\"]"
        );
        let status = error.to_status();
        assert_eq!(status.details.and_then(|d| d.causes).map(|c| c.len()), Some(2));
    }
}
