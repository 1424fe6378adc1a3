//! What a definition's status says: which of the names that it asks for are its own, whether its objects are served, and
//! that it goes. Names belong to who had them first, within a group.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition as Definition, CustomResourceDefinitionCondition as Condition,
    CustomResourceDefinitionNames as Names, CustomResourceDefinitionStatus as Status,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::names::Approval;
use super::stored::is_established;

/// Holds a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether the objects of a definition are served.
pub fn is_served(definition: &Definition) -> bool {
    has(definition, "NamesAccepted") || is_established(definition)
}

fn has(definition: &Definition, type_: &str) -> bool {
    let conditions = definition.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// The status of a definition beside the others of its group.
pub fn settled(definition: &Definition, others: &[&Definition], now: Timestamp) -> Status {
    let mut status = definition.status.clone().unwrap_or_default();
    let wanted = &definition.spec.names;
    let held = status.accepted_names.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    if *wanted != held {
        let (accepted, conflict) = accepted(wanted, &held, &Taken::by(definition, others));
        match &conflict {
            None => set(conditions, now, ("NamesAccepted", "True", "NoConflicts", "no conflicts found")),
            Some((reason, why)) => set(conditions, now, ("NamesAccepted", "False", reason, why)),
        }
        let is_new = !conditions.iter().any(|c| c.type_ == "Established");
        if conflict.is_some() && is_new {
            set(conditions, now, ("Established", "False", "NotAccepted", "not all names are accepted"));
        }
        status.accepted_names = Some(accepted);
    }
    let conditions = status.conditions.get_or_insert_default();
    let is_true = |conditions: &[Condition], type_: &str| {
        conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
    };
    if is_true(conditions, "NamesAccepted") && !is_true(conditions, "Established") {
        let message = "the initial names have been accepted";
        set(conditions, now, ("Established", "True", "InitialNamesAccepted", message));
    }
    if let Some((approval, message)) = Approval::of(definition) {
        let (state, reason) = match approval {
            Approval::Missing => ("False", "MissingAnnotation"),
            Approval::Invalid => ("False", "InvalidAnnotation"),
            Approval::Approved => ("True", "ApprovedAnnotation"),
            Approval::Bypassed => ("False", "UnapprovedAnnotation"),
        };
        set(conditions, now, ("KubernetesAPIApprovalPolicyConformant", state, reason, &message));
    }
    status
}

/// What others of the group have.
#[derive(Default)]
struct Taken<'a> {
    resources: HashSet<&'a str>,
    kinds: HashSet<&'a str>,
}

impl<'a> Taken<'a> {
    fn by(definition: &Definition, others: &[&'a Definition]) -> Self {
        let others = others.iter().copied().filter(|other| {
            other.metadata.name != definition.metadata.name && other.spec.group == definition.spec.group
        });
        let mut taken = Self::default();
        for names in others.filter_map(|other| other.status.as_ref()?.accepted_names.as_ref()) {
            let short = names.short_names.iter().flatten().map(String::as_str);
            taken.resources.extend([names.plural.as_str(), text(&names.singular)].into_iter().chain(short));
            taken.kinds.extend([names.kind.as_str(), text(&names.list_kind)]);
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }
}

fn text(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

/// The names that a definition may have, and the last that it may not: the reason, and what is said of it.
fn accepted(wanted: &Names, held: &Names, taken: &Taken<'_>) -> (Names, Option<(&'static str, String)>) {
    let mut accepted = held.clone();
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut judge = |reason: &'static str, name: &str, held: &str, taken: &HashSet<&str>| {
        let free = name == held || !taken.contains(name);
        if !free {
            conflict = Some((reason, in_use(name)));
        }
        free
    };
    if judge("PluralConflict", &wanted.plural, &held.plural, &taken.resources) {
        accepted.plural.clone_from(&wanted.plural);
    }
    if judge("SingularConflict", text(&wanted.singular), text(&held.singular), &taken.resources) {
        accepted.singular.clone_from(&wanted.singular);
    }
    let own: HashSet<&String> = held.short_names.iter().flatten().collect();
    let short = wanted.short_names.iter().flatten();
    let faults: Vec<String> = short
        .filter(|name| !own.contains(name) && taken.resources.contains(name.as_str()))
        .map(|name| in_use(name))
        .collect();
    match faults.as_slice() {
        [] => accepted.short_names.clone_from(&wanted.short_names),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    let mut judge = |reason: &'static str, name: &str, held: &str| {
        let free = name == held || !taken.kinds.contains(name);
        if !free {
            conflict = Some((reason, in_use(name)));
        }
        free
    };
    if judge("KindConflict", &wanted.kind, &held.kind) {
        accepted.kind.clone_from(&wanted.kind);
    }
    if judge("ListKindConflict", text(&wanted.list_kind), text(&held.list_kind)) {
        accepted.list_kind.clone_from(&wanted.list_kind);
    }
    accepted.categories.clone_from(&wanted.categories);
    (accepted, conflict)
}

/// Says that a definition goes, once its objects are gone.
pub fn begin_to_go(definition: &mut Definition, now: Timestamp) {
    definition.metadata.deletion_timestamp = Some(Time(now));
    let finalizers = definition.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let conditions = definition.status.get_or_insert_default().conditions.get_or_insert_default();
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(conditions, now, ("Terminating", "True", "InstanceDeletionPending", message));
}

/// Says that its objects are being deleted.
pub fn going(mut status: Status, now: Timestamp) -> Status {
    let message = "CustomResource deletion is in progress";
    let conditions = status.conditions.get_or_insert_default();
    set(conditions, now, ("Terminating", "True", "InstanceDeletionInProgress", message));
    status
}

fn set(
    conditions: &mut Vec<Condition>,
    now: Timestamp,
    (type_, status, reason, message): (&str, &str, &str, &str),
) {
    let known = conditions.iter().position(|c| c.type_ == type_);
    let old = known.map(|at| conditions[at].clone());
    let since = old.as_ref().filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: old.and_then(|c| c.observed_generation),
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(plural: &str, names: serde_json::Value) -> Definition {
        let mut all = json!({"plural": plural, "singular": plural, "kind": plural, "listKind": format!("{plural}List")});
        all.as_object_mut().expect("names").extend(names.as_object().expect("names").clone());
        serde_json::from_value(json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com",
            "scope": "Cluster", "names": all, "versions": [{"name": "v1", "served": true, "storage": true}]}}))
        .expect("a definition")
    }

    fn told(status: &Status) -> Vec<(String, String, String)> {
        let conditions = status.conditions.clone().unwrap_or_default();
        conditions.into_iter().map(|c| (c.type_, c.status, c.reason.unwrap_or_default())).collect()
    }

    #[test]
    fn names_go_to_who_came_first() {
        let now = Timestamp::UNIX_EPOCH;
        let mut first = definition("firsts", json!({"shortNames": ["f"]}));
        first.status = Some(settled(&first, &[], now));
        let told_first = told(first.status.as_ref().expect("a status"));
        assert_eq!(told_first[1], ("Established".into(), "True".into(), "InitialNamesAccepted".into()));
        assert!(is_served(&first));
        let later = now + jiff::SignedDuration::from_secs(9);
        assert_eq!(Some(settled(&first, &[], later)), first.status, "it settles");

        let mut second = definition("seconds", json!({"kind": "firsts", "shortNames": ["f", "s"]}));
        second.status = Some(settled(&second, &[&first], now));
        let status = second.status.clone().expect("a status");
        assert_eq!(told(&status)[0], ("NamesAccepted".into(), "False".into(), "KindConflict".into()));
        assert_eq!(told(&status)[1].1, "False");
        let accepted = status.accepted_names.expect("some of them");
        assert_eq!(
            (accepted.plural.as_str(), accepted.kind.as_str(), accepted.short_names),
            ("seconds", "", None)
        );
        assert!(!is_served(&second));
        // What becomes free is taken.
        let status = settled(&second, &[], later);
        assert_eq!(told(&status)[1].1, "True");
    }
}
