//! Selectors of nodes and of other pods, tolerations of taints: the small questions that filters are made of.

use std::collections::BTreeMap;

use api::selector::Selector;
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::snapshot::{NodeInfo, PodInfo};

pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().filter(|e| !e.is_empty());
    let key = toleration.key.as_deref().filter(|k| !k.is_empty());
    let value = taint.value.as_deref().unwrap_or_default();
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    effect.is_none_or(|e| e == taint.effect)
        && key.is_none_or(|k| k == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            Some("Gt") => matches!((number(value), number(wanted)), (Some(v), Some(w)) if v > w),
            Some("Lt") => matches!((number(value), number(wanted)), (Some(v), Some(w)) if v < w),
            _ => key.is_some() && wanted == value,
        }
}

pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
}

/// The first taint of one of `effects` that a pod does not tolerate.
pub fn untolerated<'a>(pod: &Pod, node: &'a NodeInfo, effects: &[&str]) -> Option<&'a Taint> {
    let tolerated = |taint: &Taint| tolerations(pod).iter().any(|t| tolerates(t, taint));
    node.taints().find(|taint| effects.contains(&taint.effect.as_str()) && !tolerated(taint))
}

/// Whether a node is one that `nodeSelector` and required node affinity name.
pub fn wants_node(pod: &Pod, node: &NodeInfo) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| node_selected(required, node))
}

/// Any of the terms must hold; no terms select nothing.
pub fn node_selected(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| term_holds(term, node))
}

pub fn term_holds(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let (labels, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then(|| node.name());
    labels.iter().all(|r| requirement_holds(r, node.label(&r.key)))
        && fields.iter().all(|r| requirement_holds(r, field(&r.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = || value?.parse::<i64>().ok();
    let bound = || values.first()?.parse::<i64>().ok();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((number(), bound()), (Some(n), Some(b)) if n > b),
        "Lt" => matches!((number(), bound()), (Some(n), Some(b)) if n < b),
        _ => false,
    }
}

/// A term about other pods, made ready to ask many.
#[derive(Clone, Debug)]
pub struct PodTerm {
    pub topology_key: String,
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Option<Selector>,
}

impl PodTerm {
    /// As `owner` means it: without namespaces named, its own is meant.
    pub fn new(term: &PodAffinityTerm, owner: &PodInfo) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        // An unreadable selector selects nothing: validation does not let it in.
        let selector = |object: Option<&LabelSelector>| {
            Selector::from_optional(object).unwrap_or_else(|_| Selector::nothing())
        };
        let namespace_selector = term.namespace_selector.as_ref().map(|s| selector(Some(s)));
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(owner.namespace().to_owned());
        }
        let own =
            with_label_keys(term.label_selector.as_ref(), term.match_label_keys.as_deref(), owner.labels());
        Self {
            topology_key: term.topology_key.clone(),
            selector: selector(own.as_ref()),
            namespaces,
            namespace_selector,
        }
    }

    pub fn matches(&self, pod: &PodInfo, namespaces: &dyn NamespaceLabels) -> bool {
        let there = self.namespaces.iter().any(|n| n == pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|s| {
                s.is_everything() || s.matches(&namespaces.namespace_labels(pod.namespace()))
            });
        there && self.selector.matches(pod.labels())
    }
}

/// Adds equality with a pod's own value of each of `keys`.
pub fn with_label_keys(
    selector: Option<&LabelSelector>,
    keys: Option<&[String]>,
    own: &BTreeMap<String, String>,
) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    for key in keys.unwrap_or_default() {
        if let Some(value) = own.get(key) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    Some(selector)
}

pub trait NamespaceLabels {
    fn namespace_labels(&self, name: &str) -> BTreeMap<String, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = |effect: &str| Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: effect.into(),
            time_added: None,
        };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| Toleration {
            key: Some(key.into()),
            operator: Some(operator.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
            toleration_seconds: None,
        };
        let cases = [
            (toleration("k", "Equal", "v", "NoSchedule"), true),
            (toleration("k", "Equal", "w", "NoSchedule"), false),
            (toleration("k", "Exists", "", ""), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("k", "Exists", "", "NoExecute"), false),
            (toleration("x", "Exists", "", ""), false),
        ];
        for (toleration, expected) in cases {
            assert_eq!(tolerates(&toleration, &taint("NoSchedule")), expected, "{toleration:?}");
        }
    }
}
