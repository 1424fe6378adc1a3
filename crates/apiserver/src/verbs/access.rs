//! What somebody may do: the four access reviews. What is asked wrongly is refused in the original's words; why something
//! is allowed or not is told as it tells it.

use api::kinds::{Errors, names};
use api::meta;
use api::selector::{FieldSelector, Selector};
use api::status::{ApiError, FieldError};
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, NonResourceRule,
    ResourceAttributes, ResourceRule, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
    SubjectRulesReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use crate::auth::rbac::Attributes;
use crate::auth::{AUTHENTICATED, Identity, node};
use crate::{ApiServer, Context};

const ATTRIBUTES: &str = "spec.resourceAttributes";
const OTHER_ATTRIBUTES: &str = "spec.nonResourceAttributes";

/// Whom a review is about, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Whoever asks.
    Oneself,
    Anybody,
    /// Anybody, in the namespace of the request.
    AnybodyHere,
}

/// One of the three that ask whether a single thing is allowed.
pub async fn review(
    server: &ApiServer,
    context: &Context,
    about: About,
    review: &Value,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    let placed = meta::namespace(review);
    if about == About::AnybodyHere && !placed.is_empty() && placed != context.target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let spec: SubjectAccessReviewSpec = serde_json::from_value(review["spec"].clone())
        .map_err(|error| ApiError::bad_request(format!("spec: {error}")))?;
    let mut errors = Errors::default();
    check(&spec, about, &mut errors);
    check_metadata(review, about, &mut errors);
    if about == About::AnybodyHere {
        check_place(&spec, &context.target.namespace, &mut errors);
    }
    if !errors.0.is_empty() {
        // It names no kind.
        return Err(ApiError::invalid("authorization.k8s.io", "", "", &errors.0));
    }
    let somebody;
    let who = match about {
        About::Oneself => &context.who,
        About::Anybody | About::AnybodyHere => {
            somebody = Identity {
                username: spec.user.clone().unwrap_or_default(),
                uid: spec.uid.clone().unwrap_or_default(),
                groups: spec.groups.clone().unwrap_or_default(),
                extra: spec.extra.clone().unwrap_or_default(),
            };
            &somebody
        }
    };
    let (what, fault) = asked(&spec);
    let verdict = server.0.verdict(who, &what).await?;
    let told = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(SubjectAccessReviewStatus {
        allowed: verdict.is_allowed,
        denied: None,
        reason: told(verdict.reason),
        evaluation_error: told(fault),
    })
}

fn check(spec: &SubjectAccessReviewSpec, about: About, errors: &mut Errors) {
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (None, None) => errors.push(FieldError::invalid(
            ATTRIBUTES,
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        (Some(_), Some(other)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid(OTHER_ATTRIBUTES, shown(other), detail));
        }
        _ => {}
    }
    let is_named = !spec.user.as_deref().unwrap_or_default().is_empty()
        || spec.groups.as_ref().is_some_and(|groups| !groups.is_empty());
    if about != About::Oneself && !is_named {
        errors.push(FieldError::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    let Some(resource) = &spec.resource_attributes else { return };
    if let Some(selector) = &resource.field_selector {
        let all = selector.requirements.as_deref().unwrap_or_default();
        check_selector("fieldSelector", selector.raw_selector.as_deref(), all.is_empty(), errors);
        for (i, one) in all.iter().enumerate() {
            let at = format!("{ATTRIBUTES}.fieldSelector.requirements[{i}]");
            check_values(&at, &one.operator, one.values.as_deref(), errors);
            if one.key.is_empty() {
                errors.push(FieldError::required(format!("{at}.key"), "must be specified"));
            }
        }
    }
    if let Some(selector) = &resource.label_selector {
        let all = selector.requirements.as_deref().unwrap_or_default();
        check_selector("labelSelector", selector.raw_selector.as_deref(), all.is_empty(), errors);
        for (i, one) in all.iter().enumerate() {
            let at = format!("{ATTRIBUTES}.labelSelector.requirements[{i}]");
            check_values(&at, &one.operator, one.values.as_deref(), errors);
            for fault in names::key_faults(&one.key) {
                errors.push(FieldError::invalid(format!("{at}.key"), one.key.as_str(), fault));
            }
        }
    }
}

/// Either the text that a request would carry, or requirements.
fn check_selector(name: &str, raw: Option<&str>, has_none: bool, errors: &mut Errors) {
    let field = format!("{ATTRIBUTES}.{name}");
    let raw = raw.unwrap_or_default();
    if !raw.is_empty() && !has_none {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{field}.rawSelector"), raw, detail));
    }
    if raw.is_empty() && has_none {
        let detail = format!("when {field} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(format!("{field}.requirements"), detail));
    }
}

/// An operator that there is not is no fault: it is left out, and that is told with the answer.
fn check_values(at: &str, operator: &str, values: Option<&[String]>, errors: &mut Errors) {
    let has_none = values.is_none_or(<[String]>::is_empty);
    match operator {
        "In" | "NotIn" if has_none => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(format!("{at}.values"), detail));
        }
        "Exists" | "DoesNotExist" if !has_none => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(format!("{at}.values"), detail));
        }
        _ => {}
    }
}

/// A question has no name, and is not kept.
fn check_metadata(review: &Value, about: About, errors: &mut Errors) {
    let Some(metadata) = review["metadata"].as_object() else { return };
    let is_own = |(name, value): (&String, &Value)| {
        let is_place = name == "namespace" && about == About::AnybodyHere;
        let is_made = ["creationTimestamp", "managedFields", "uid"].contains(&name.as_str());
        !(is_place || is_made || value.is_null())
    };
    if metadata.iter().any(is_own) {
        let detail =
            if about == About::AnybodyHere { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", Value::Object(metadata.clone()), detail));
    }
}

fn check_place(spec: &SubjectAccessReviewSpec, namespace: &str, errors: &mut Errors) {
    if let Some(resource) = &spec.resource_attributes {
        let asked = resource.namespace.as_deref().unwrap_or_default();
        if asked != namespace {
            errors.push(FieldError::invalid(
                format!("{ATTRIBUTES}.namespace"),
                asked,
                "must match metadata.namespace",
            ));
        }
    }
    if let Some(other) = &spec.non_resource_attributes {
        errors.push(FieldError::invalid(
            OTHER_ATTRIBUTES,
            shown(other),
            "disallowed on this kind of request",
        ));
    }
}

/// As the original writes it, which has other names for its own.
fn shown(other: &NonResourceAttributes) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({"Path": text(&other.path), "Verb": text(&other.verb)})
}

/// What is asked, and what of it could not be understood.
fn asked(spec: &SubjectAccessReviewSpec) -> (Attributes, String) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let Some(resource) = &spec.resource_attributes else {
        let other = spec.non_resource_attributes.clone().unwrap_or_default();
        let what = Attributes { verb: text(&other.verb), path: text(&other.path), ..Attributes::default() };
        return (what, String::new());
    };
    let (fields, faults) = selected(resource);
    let what = Attributes {
        verb: text(&resource.verb),
        resource: text(&resource.resource),
        subresource: text(&resource.subresource),
        group: text(&resource.group),
        namespace: text(&resource.namespace),
        name: text(&resource.name),
        fields,
        path: String::new(),
    };
    let faults: Vec<String> =
        faults.into_iter().map(|name| format!("{ATTRIBUTES}.{name} ignored due to parse error")).collect();
    (what, faults.join(", "))
}

/// The fields a question is limited to, and the selectors that cannot be read.
fn selected(resource: &ResourceAttributes) -> (Vec<(String, String)>, Vec<&'static str>) {
    let (mut fields, mut faults) = (Vec::new(), Vec::new());
    match resource.field_selector.as_ref().map(selected_fields) {
        Some(Some(found)) => fields = found,
        Some(None) => faults.push("fieldSelector"),
        None => {}
    }
    if resource.label_selector.as_ref().is_some_and(|selector| !is_readable(selector)) {
        faults.push("labelSelector");
    }
    (fields, faults)
}

/// Nothing where it cannot be read: fields are compared with one value each.
fn selected_fields(selector: &FieldSelectorAttributes) -> Option<Vec<(String, String)>> {
    let raw = selector.raw_selector.as_deref().unwrap_or_default();
    if !raw.is_empty() {
        FieldSelector::parse(raw).ok()?;
        return Some(raw.split(',').filter_map(crate::http::request::equality).collect());
    }
    let mut fields = Vec::new();
    for one in selector.requirements.iter().flatten() {
        match (one.operator.as_str(), one.values.as_deref().unwrap_or_default()) {
            ("In", [value]) => fields.push((one.key.clone(), value.clone())),
            ("NotIn", [_]) => {}
            _ => return None,
        }
    }
    Some(fields)
}

fn is_readable(selector: &LabelSelectorAttributes) -> bool {
    let raw = selector.raw_selector.as_deref().unwrap_or_default();
    if !raw.is_empty() {
        return Selector::parse(raw).is_ok();
    }
    let match_expressions = selector.requirements.clone();
    Selector::from_object(&LabelSelector { match_expressions, match_labels: None }).is_ok()
}

/// All that whoever asks may do in a namespace, as far as rules tell it.
pub async fn rules(
    server: &ApiServer,
    who: &Identity,
    namespace: &str,
) -> Result<SubjectRulesReviewStatus, ApiError> {
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let rbac = server.0.rbac().await?;
    let mut status = SubjectRulesReviewStatus::default();
    for rule in rbac.rules_of(who, namespace) {
        let (verbs, urls) = (rule.verbs.clone(), rule.non_resource_urls.clone());
        match urls.filter(|u| !u.is_empty()) {
            Some(urls) => {
                status.non_resource_rules.push(NonResourceRule { non_resource_urls: Some(urls), verbs })
            }
            None => status.resource_rules.push(ResourceRule {
                api_groups: rule.api_groups.clone(),
                resources: rule.resources.clone(),
                resource_names: rule.resource_names.clone(),
                verbs,
            }),
        }
    }
    // What a node may do follows from what it has to do, not from rules.
    if who.is_in(AUTHENTICATED) && node::name_of(who).is_some() {
        status.incomplete = true;
        status.evaluation_error = Some("node authorizer does not support user rule resolution".into());
    }
    Ok(status)
}
