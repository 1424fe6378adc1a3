//! What a definition calls itself and its objects, and whether it may be in a group that is not its author's to give.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
};

use crate::kinds::{Errors, names};
use crate::schema::formats::is_full_address;
use crate::status::FieldError;

pub const APPROVED: &str = "api-approved.kubernetes.io";
const PROPOSAL: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

pub fn group(spec: &CustomResourceDefinitionSpec, errors: &mut Errors) {
    let group = spec.group.as_str();
    if group.is_empty() {
        return errors.required("spec.group", true);
    }
    if let Some(fault) = names::fault(names::Rule::Subdomain, group) {
        errors.push(FieldError::invalid("spec.group", group, fault));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
}

/// A definition is known by what its objects are called.
pub fn own_name(definition: &CustomResourceDefinition, errors: &mut Errors) {
    let spec = &definition.spec;
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    // That there is none is said of all kinds.
    if !name.is_empty() && name != format!("{}.{}", spec.names.plural, spec.group) {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", name, detail));
    }
}

/// The names that a definition asks for.
pub fn asked_for(given: &CustomResourceDefinitionNames, errors: &mut Errors) {
    let is_empty = |name: &Option<String>| name.as_deref().unwrap_or_default().is_empty();
    errors.required("spec.names.plural", given.plural.is_empty());
    errors.required("spec.names.singular", is_empty(&given.singular));
    errors.required("spec.names.kind", given.kind.is_empty());
    errors.required("spec.names.listKind", is_empty(&given.list_kind));
    forms("spec.names", given, errors);
}

/// All that is wrong with a name.
pub fn fault(name: &str) -> Option<String> {
    const LIMIT: usize = 63;
    let too_long = (name.len() > LIMIT).then(|| format!("must be no more than {LIMIT} characters"));
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let formed = bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(|b| allowed(*b))
        && bytes.iter().all(|b| allowed(*b) || *b == b'-');
    let form = if formed { None } else { names::fault(names::Rule::Label1035, "-") };
    let faults: Vec<String> = too_long.into_iter().chain(form).collect();
    (!faults.is_empty()).then(|| faults.join(","))
}

/// The forms of names that were asked for or accepted; those that are empty are no names.
pub fn forms(field: &str, given: &CustomResourceDefinitionNames, errors: &mut Errors) {
    let singular = given.singular.as_deref().unwrap_or_default();
    let list_kind = given.list_kind.as_deref().unwrap_or_default();
    for (part, name) in [("plural", given.plural.as_str()), ("singular", singular)] {
        if let Some(fault) = fault(name).filter(|_| !name.is_empty()) {
            errors.push(FieldError::invalid(format!("{field}.{part}"), name, fault));
        }
    }
    for (part, name) in [("kind", given.kind.as_str()), ("listKind", list_kind)] {
        if let Some(fault) = fault(&name.to_lowercase()).filter(|_| !name.is_empty()) {
            let detail = format!("may have mixed case, but should otherwise match: {fault}");
            errors.push(FieldError::invalid(format!("{field}.{part}"), name, detail));
        }
    }
    each(&format!("{field}.shortNames"), given.short_names.iter().flatten(), errors);
    if !given.kind.is_empty() && given.kind == list_kind {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(format!("{field}.listKind"), list_kind, detail));
    }
    each(&format!("{field}.categories"), given.categories.iter().flatten(), errors);
}

fn each<'a>(field: &str, given: impl Iterator<Item = &'a String>, errors: &mut Errors) {
    for (i, name) in given.enumerate() {
        if let Some(fault) = fault(name) {
            errors.push(FieldError::invalid(format!("{field}[{i}]"), name.as_str(), fault));
        }
    }
}

/// What an annotation says of a definition in one of the community's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    Missing,
    Invalid,
    /// Named, where it was approved.
    Approved,
    /// Said not to be.
    Bypassed,
}

impl Approval {
    /// What is said of it; nothing where the group is anybody's.
    pub fn of(definition: &CustomResourceDefinition) -> Option<(Self, String)> {
        let group = definition.spec.group.as_str();
        let protected = ["k8s.io", "kubernetes.io"];
        if !protected.iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}"))) {
            return None;
        }
        let given = annotation(definition);
        Some(match given {
            "" => (
                Self::Missing,
                format!("protected groups must have approval annotation {APPROVED:?}, {PROPOSAL}"),
            ),
            given if given.starts_with("unapproved") => (Self::Bypassed, format!("not approved: {given:?}")),
            given if is_full_address(given) => (Self::Approved, format!("approved in {given}")),
            _ => (
                Self::Invalid,
                format!(
                    "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
                     \"unapproved\", {PROPOSAL}"
                ),
            ),
        })
    }
}

fn annotation(definition: &CustomResourceDefinition) -> &str {
    let annotations = definition.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(APPROVED)).map(String::as_str).unwrap_or_default()
}

/// Whoever changes what is said of it says something that counts.
pub fn approval(new: &CustomResourceDefinition, old: Option<&CustomResourceDefinition>, errors: &mut Errors) {
    let Some((state, reason)) = Approval::of(new) else { return };
    if old.and_then(Approval::of).is_some_and(|(before, _)| before == state) {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match state {
        Approval::Missing => errors.push(FieldError::required(field, reason)),
        Approval::Invalid => errors.push(FieldError::invalid(field, annotation(new), reason)),
        Approval::Approved | Approval::Bypassed => {}
    }
}
