//! What holds of the metadata of every kind. The original looks at it several times over, by kind, and tells of each fault as
//! often: [`Passes`] says how often that is.

use std::collections::HashSet;

use serde_json::Value;

use super::names::{self, Rule};
use super::{Errors, Kind};
use crate::meta;
use crate::status::{FieldError, Problem};

/// One look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// As if the object were new.
    Whole,
    /// As something that may have changed: not its name, and no finalizers but for those of an object that goes.
    Change,
}

/// How often a kind itself looks, beyond what is done for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Whether at birth it is looked at with the rest of the object, or only when there is no other fault.
    pub with_the_rest: bool,
    pub update: &'static [Pass],
    pub status: &'static [Pass],
}

impl Default for Passes {
    fn default() -> Self {
        Self { with_the_rest: true, update: &[Pass::Change], status: &[Pass::Change] }
    }
}

/// In bytes, names and values together.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Of a new object.
pub fn check_new(kind: &Kind, object: &Value, errors: &mut Errors) {
    check_whole(object, kind.namespaced, kind.name_rule, errors);
    if kind.custom.is_none() && !kind.rules.any_finalizer {
        check_own_finalizers(object, errors);
    }
}

/// Finalizers without a domain are the API's own, of which there are few.
fn check_own_finalizers(object: &Value, errors: &mut Errors) {
    const STANDARD: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];
    for (i, finalizer) in meta::finalizers(object).into_iter().enumerate() {
        if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), finalizer, detail));
        }
    }
}

/// Of an object that takes the place of another; `passes` are the kind's own.
pub fn check_update(kind: &Kind, passes: &[Pass], new: &Value, old: &Value, errors: &mut Errors) {
    // For all kinds alike any name that fits in a path will do.
    check_whole(new, kind.namespaced, Rule::PathSegment, errors);
    check_change(new, old, errors);
    for pass in passes {
        match pass {
            Pass::Whole => check_whole(new, kind.namespaced, kind.name_rule, errors),
            Pass::Change => check_change(new, old, errors),
        }
    }
}

/// Of an object that stands by itself.
pub fn check_whole(object: &Value, namespaced: bool, rule: Rule, errors: &mut Errors) {
    match meta::name(object) {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => {
            if let Some(fault) = names::fault(rule, name) {
                errors.push(FieldError::invalid("metadata.name", name, fault));
            }
        }
    }
    if namespaced && meta::namespace(object).is_empty() {
        errors.push(FieldError::required("metadata.namespace", ""));
    }
    check_common(object, errors);
    check_finalizers(object, errors);
}

fn check_change(new: &Value, old: &Value, errors: &mut Errors) {
    check_new_finalizers(new, old, errors);
    check_common(new, errors);
}

fn check_common(object: &Value, errors: &mut Errors) {
    names::check_labels("metadata.labels", meta::pairs(object, "labels"), errors);
    let mut total = 0;
    for (key, value) in meta::pairs(object, "annotations") {
        total += key.len() + value.len();
        for fault in names::key_faults(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", key, fault));
        }
    }
    if total > ANNOTATIONS_LIMIT {
        let problem = Problem::TooLong(ANNOTATIONS_LIMIT);
        errors.push(FieldError { field: "metadata.annotations".into(), problem });
    }
    check_owners(object, errors);
}

/// Whom an object belongs to. The faults are laid to the list, not to its entries.
fn check_owners(object: &Value, errors: &mut Errors) {
    const FIELD: &str = "metadata.ownerReferences";
    let owners = meta::metadata(object).get("ownerReferences").and_then(Value::as_array);
    let mut controller: Option<String> = None;
    for owner in owners.into_iter().flatten() {
        let text = |part: &str| owner.get(part).and_then(Value::as_str).unwrap_or_default();
        let version = text("apiVersion");
        if version.rsplit('/').next().unwrap_or_default().is_empty() {
            let detail = "version must not be empty";
            errors.push(FieldError::invalid(format!("{FIELD}.apiVersion"), version, detail));
        }
        for part in ["kind", "name", "uid"] {
            if text(part).is_empty() {
                errors.push(FieldError::invalid(format!("{FIELD}.{part}"), "", "must not be empty"));
            }
        }
        if (version, text("kind")) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            let problem =
                Problem::Worded("FieldValueInvalid", format!("Invalid value: {}: {detail}", shown(owner)));
            errors.push(FieldError { field: FIELD.into(), problem });
        }
        if owner.get("controller").and_then(Value::as_bool) != Some(true) {
            continue;
        }
        let this = format!("{}/{}", text("kind"), text("name"));
        let Some(first) = &controller else {
            controller = Some(this);
            continue;
        };
        let all: Vec<String> = owners.into_iter().flatten().map(shown).collect();
        let message = format!(
            "Invalid value: [{}]: Only one reference can have Controller set to true. Found \"true\" in references for \
             {first} and {this}",
            all.join(",")
        );
        errors
            .push(FieldError { field: FIELD.into(), problem: Problem::Worded("FieldValueInvalid", message) });
    }
}

/// An owner, its parts in the order of their type.
fn shown(owner: &Value) -> String {
    let required = ["apiVersion", "kind", "name", "uid"].into_iter().map(|part| (part, true));
    let parts = required.chain([("controller", false), ("blockOwnerDeletion", false)]);
    let parts = parts.filter_map(|(part, required)| match owner.get(part) {
        None | Some(Value::Null) => required.then(|| format!("{part:?}:\"\"")),
        Some(value) => Some(format!("{part:?}:{value}")),
    });
    format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
}

fn check_finalizers(object: &Value, errors: &mut Errors) {
    let finalizers = meta::finalizers(object);
    for finalizer in &finalizers {
        for fault in names::key_faults(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", *finalizer, fault));
        }
    }
    const ORPHAN: &str = "orphan";
    const FOREGROUND: &str = "foregroundDeletion";
    if finalizers.contains(&ORPHAN) && finalizers.contains(&FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errors.push(FieldError::invalid("metadata.finalizers", finalizers, detail));
    }
}

/// An object on its way out takes no new finalizers.
fn check_new_finalizers(new: &Value, old: &Value, errors: &mut Errors) {
    if !meta::is_deleting(old) {
        return;
    }
    let before: HashSet<&str> = meta::finalizers(old).into_iter().collect();
    let added: HashSet<&str> = meta::finalizers(new).into_iter().filter(|f| !before.contains(f)).collect();
    if !added.is_empty() {
        let mut added: Vec<&str> = added.into_iter().collect();
        added.sort_unstable();
        let quoted: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            quoted.join(", ")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(check: impl Fn(&mut Errors)) -> Vec<String> {
        let mut errors = Errors::default();
        check(&mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_owner_controls() {
        let owner = |name: &str, controls: bool| json!({"apiVersion": "v1", "kind": "A", "name": name, "uid": "u", "controller": controls});
        let object = |owners: Value| json!({"metadata": {"name": "n", "ownerReferences": owners}});
        assert!(told(|e| check_common(&object(json!([owner("a", true), owner("b", false)])), e)).is_empty());
        assert_eq!(
            told(|e| check_common(&object(json!([owner("a", true), owner("b", true)])), e)),
            [
                "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"A\",\"name\":\"a\",\"uid\":\"u\",\
              \"controller\":true},{\"apiVersion\":\"v1\",\"kind\":\"A\",\"name\":\"b\",\"uid\":\"u\",\"controller\":true}]: \
              Only one reference can have Controller set to true. Found \"true\" in references for A/a and A/b"
            ]
        );
        assert_eq!(told(|e| check_common(&object(json!([{}])), e)).len(), 4);
    }

    #[test]
    fn what_goes_takes_no_new_finalizers() {
        let object = |finalizers: &[&str]| json!({"metadata": {"name": "n", "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": finalizers}});
        let check = |old: &[&str], new: &[&str]| told(|e| check_change(&object(new), &object(old), e));
        assert!(check(&["a.b/c"], &["a.b/c"]).is_empty());
        assert_eq!(
            check(&["a.b/c"], &["a.b/c", "e.b/c", "d.b/c"]),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
              finalizers []string{\"d.b/c\", \"e.b/c\"}"
            ]
        );
    }
}
