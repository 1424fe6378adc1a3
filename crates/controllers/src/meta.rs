//! What all controllers ask of metadata: who owns an object, whether it goes away, and whether a set may claim it.

use std::collections::BTreeMap;

use api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

pub fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    meta.labels.as_ref().unwrap_or(&NO_LABELS)
}

pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// When it was created; what has no time yet counts as the youngest.
pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0)
}

/// The one owner that manages this object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == owner_uid)
}

/// The reference by which `owner` manages what it makes.
pub fn controller_ref<T: Resource<DynamicType = ()>>(owner: &T) -> OwnerReference {
    OwnerReference {
        api_version: T::api_version(&()).into_owned(),
        kind: T::kind(&()).into_owned(),
        name: name(owner.meta()).to_owned(),
        uid: uid(owner.meta()).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What a set should do about an object of its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours and matches.
    Keep,
    /// It matches and nobody manages it.
    Adopt,
    /// It is ours and matches no longer.
    Release,
    /// Somebody else's, or none of our business.
    Ignore,
}

pub fn claim(object: &ObjectMeta, owner: &ObjectMeta, selector: &Selector) -> Claim {
    let matches = selector.matches(labels(object));
    match controller_of(object) {
        Some(controller) if controller.uid != uid(owner) => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        // An owner that goes away leaves its objects to the garbage collector as they are.
        Some(_) if is_deleting(owner) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if matches && !is_deleting(owner) && !is_deleting(object) => Claim::Adopt,
        None => Claim::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_claim_only_what_matches_and_is_free() {
        let selector = Selector::from_labels([("app", "a")]);
        let owner = ObjectMeta { uid: Some("1".into()), ..Default::default() };
        let object = |app: &str, controller: Option<&str>| ObjectMeta {
            labels: Some([("app".to_owned(), app.to_owned())].into()),
            owner_references: controller.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]
            }),
            ..Default::default()
        };
        let cases = [
            (object("a", Some("1")), Claim::Keep),
            (object("b", Some("1")), Claim::Release),
            (object("a", Some("2")), Claim::Ignore),
            (object("a", None), Claim::Adopt),
            (object("b", None), Claim::Ignore),
        ];
        for (meta, expected) in cases {
            assert_eq!(claim(&meta, &owner, &selector), expected, "{meta:?}");
        }
    }
}
