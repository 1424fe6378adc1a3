//! What a ResourceQuota counts: how much of which resource an object uses, and which objects a quota's scopes choose.
//! Admission adds up what is asked for, the controller what is there; both ask here.

mod pod;
mod scopes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuotaSpec, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

use crate::quantity::Quantity;
use crate::status::Resource;

pub use pod::{missing, most_of_containers, uses_nothing};
pub use scopes::{needs_pods, scopes_choose};

/// Amounts by the name of the resource (`requests.cpu`, `count/deployments.apps`).
pub type Amounts = BTreeMap<String, Quantity>;

const STORAGE_CLASS: &str = "storageclass.storage.k8s.io";
const STORAGE_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The names by which kinds of the core group are counted beside `count/…`.
pub const OBJECTS: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// Amounts as an object holds them.
pub fn read(given: Option<&BTreeMap<String, Text>>) -> Amounts {
    let parse = |(name, text): (&String, &Text)| Some((name.clone(), Quantity::parse(&text.0).ok()?));
    given.into_iter().flatten().filter_map(parse).collect()
}

pub fn write(amounts: &Amounts) -> BTreeMap<String, Text> {
    amounts.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))).collect()
}

/// `count/pods`, `count/deployments.apps`.
pub fn count_name(resource: &Resource<'_>) -> String {
    format!("count/{resource}")
}

/// What one object of a resource uses. Nothing is counted of a pod that has ended but that it is there.
pub fn usage(resource: &Resource<'_>, object: &Value) -> Amounts {
    let mut used = Amounts::from([(count_name(resource), Quantity::from_units(1))]);
    if !resource.group.is_empty() {
        return used;
    }
    match resource.plural {
        "pods" => used.extend(typed::<Pod>(object).map(|pod| pod::usage(&pod)).unwrap_or_default()),
        "services" => used.extend(typed::<Service>(object).map(|s| service(&s)).unwrap_or_default()),
        "persistentvolumeclaims" => {
            used.extend(typed::<PersistentVolumeClaim>(object).map(|c| claim(&c)).unwrap_or_default());
        }
        plural if OBJECTS.contains(&plural) => {
            used.insert(plural.to_owned(), Quantity::from_units(1));
        }
        _ => {}
    }
    used
}

fn typed<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

fn service(service: &Service) -> Amounts {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = i64::try_from(spec.ports.iter().flatten().count()).unwrap_or(i64::MAX);
    let one = Quantity::from_units(1);
    let mut used = Amounts::from([("services".to_owned(), one)]);
    let balanced = spec.type_.as_deref() == Some("LoadBalancer");
    if balanced {
        used.insert("services.loadbalancers".into(), one);
    }
    let on_nodes = spec.type_.as_deref() == Some("NodePort")
        || balanced && spec.allocate_load_balancer_node_ports != Some(false);
    if on_nodes {
        used.insert("services.nodeports".into(), Quantity::from_units(ports));
    }
    used
}

fn claim(claim: &PersistentVolumeClaim) -> Amounts {
    let one = Quantity::from_units(1);
    let spec = claim.spec.clone().unwrap_or_default();
    let mut used = Amounts::from([("persistentvolumeclaims".to_owned(), one)]);
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get(STORAGE_CLASS_ANNOTATION));
    let class = annotated.or(spec.storage_class_name.as_ref()).filter(|class| !class.is_empty());
    if let Some(class) = class {
        used.insert(format!("{class}.{STORAGE_CLASS}/persistentvolumeclaims"), one);
    }
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    if let Some(storage) = read(requests).get("storage") {
        used.insert("requests.storage".into(), *storage);
        if let Some(class) = class {
            used.insert(format!("{class}.{STORAGE_CLASS}/requests.storage"), *storage);
        }
    }
    used
}

/// Whether a quota counts any object of a resource; `hard` names what it limits.
pub fn concerns(resource: &Resource<'_>, hard: &str) -> bool {
    if hard == count_name(resource) {
        return true;
    }
    if !resource.group.is_empty() {
        return false;
    }
    match resource.plural {
        "pods" => pod::is_of_pods(hard),
        "services" => matches!(hard, "services" | "services.loadbalancers" | "services.nodeports"),
        "persistentvolumeclaims" => {
            matches!(hard, "persistentvolumeclaims" | "requests.storage") || hard.contains(STORAGE_CLASS)
        }
        plural => OBJECTS.contains(&plural) && hard == plural,
    }
}

/// The resource whose objects alone are counted under a name: its plural and group.
pub fn counted(hard: &str) -> Option<(&str, &str)> {
    match hard.strip_prefix("count/") {
        Some(resource) => Some(resource.split_once('.').unwrap_or((resource, ""))),
        None if OBJECTS.contains(&hard) => Some((hard, "")),
        None => None,
    }
}

/// What of `used` a quota limits, when its scopes choose the object.
pub fn limited(spec: &ResourceQuotaSpec, resource: &Resource<'_>, object: &Value, used: &Amounts) -> Amounts {
    if !scopes_choose(spec, resource, object) {
        return Amounts::new();
    }
    let hard = read(spec.hard.as_ref());
    used.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(n, a)| (n.clone(), *a)).collect()
}

/// Amounts by which `new` is more than `old`; what became less is no reason to refuse.
pub fn increase(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &Quantity)| {
        let before = old.get(name).copied().unwrap_or(Quantity::ZERO);
        (*amount > before).then(|| (name.clone(), *amount - before))
    };
    new.iter().filter_map(more).collect()
}

/// `cpu=1,pods=2`, as refusals list amounts.
pub fn listed(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// Why a quota does not allow an increase, in the words that clients know; nothing when it does.
pub fn exceeded(name: &str, increase: &Amounts, used: &Amounts, hard: &Amounts) -> Option<String> {
    let zero = Quantity::ZERO;
    let over = |resource: &String, more: &Quantity| {
        hard.get(resource).is_some_and(|limit| used.get(resource).copied().unwrap_or(zero) + *more > *limit)
    };
    let over: Vec<&String> = increase.iter().filter(|(r, more)| over(r, more)).map(|(r, _)| r).collect();
    if over.is_empty() {
        return None;
    }
    let of = |amounts: &Amounts| -> Amounts {
        over.iter().map(|r| ((*r).clone(), amounts.get(*r).copied().unwrap_or(zero))).collect()
    };
    let (requested, used, limited) = (listed(&of(increase)), listed(&of(used)), listed(&of(hard)));
    Some(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(plural: &str, group: &str, object: Value, expected: &str) {
        let resource = Resource { group, plural };
        assert_eq!(listed(&usage(&resource, &object)), expected);
    }

    #[test]
    fn each_kind_uses_what_it_asks_for() {
        check("configmaps", "", json!({}), "configmaps=1,count/configmaps=1");
        check("deployments", "apps", json!({}), "count/deployments.apps=1");
        let service = |spec: Value| json!({"spec": spec});
        check("services", "", service(json!({"type": "ClusterIP"})), "count/services=1,services=1");
        check(
            "services",
            "",
            service(json!({"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]})),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2",
        );
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        check(
            "persistentvolumeclaims",
            "",
            claim,
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
        );
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi",
            "example.com/gpu": "2"}, "limits": {"cpu": "2"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "3Gi"}}}]}});
        check(
            "pods",
            "",
            pod.clone(),
            "count/pods=1,cpu=1500m,limits.cpu=2,memory=3Gi,pods=1,requests.cpu=1500m,requests.example.com/gpu=2,requests.memory=3Gi",
        );
        let mut ended = pod;
        ended["status"] = json!({"phase": "Succeeded"});
        check("pods", "", ended, "count/pods=1");
    }

    #[test]
    fn a_quota_says_what_is_too_much() {
        let amounts = |pairs: &[(&str, &str)]| -> Amounts {
            pairs.iter().map(|(n, q)| ((*n).to_owned(), Quantity::parse(q).expect("a quantity"))).collect()
        };
        let hard = amounts(&[("pods", "2"), ("requests.cpu", "1")]);
        let used = amounts(&[("pods", "2"), ("requests.cpu", "500m")]);
        let more = amounts(&[("pods", "1"), ("requests.cpu", "500m")]);
        assert_eq!(
            exceeded("q", &more, &used, &hard).as_deref(),
            Some("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2")
        );
        assert_eq!(exceeded("q", &amounts(&[("requests.cpu", "500m")]), &used, &hard), None);
        assert_eq!(
            listed(&increase(&amounts(&[("a", "3"), ("b", "1")]), &amounts(&[("a", "1"), ("b", "2")]))),
            "a=2"
        );
        assert_eq!(counted("count/deployments.apps"), Some(("deployments", "apps")));
        assert_eq!(counted("secrets"), Some(("secrets", "")));
        assert_eq!(counted("requests.cpu"), None);
        let pods = Resource { group: "", plural: "pods" };
        assert!(concerns(&pods, "requests.nvidia.com/gpu") && !concerns(&pods, "requests.storage"));
    }
}
