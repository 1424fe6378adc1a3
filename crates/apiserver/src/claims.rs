//! What may belong to one object alone, as keys of their own that are created and deleted in the object's own
//! transaction: whoever comes second, on whatever server, finds the key there and his transaction undone. A service's
//! address is claimed by an `IPAddress` object, as the original does it; a node port by a key that only servers see.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use api::meta;
use api::status::ApiError;
use serde_json::{Value, json};
use store::{Change, Entry, Expect, Op, RangeRequest};

use crate::ApiServer;
use crate::allocate::{addresses_of, ports_of};
use crate::objects::store_error;

const SERVICES: &str = "/registry/services/specs/";
const ADDRESSES: &str = "/registry/ipaddresses/";
const PORTS: &str = "/registry/.kedge/nodeports/";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    Address(Ipv4Addr),
    Port(u16),
}

/// What a key claims.
pub fn parse(key: &str) -> Option<Claimed> {
    let address = key.strip_prefix(ADDRESSES).and_then(|text| text.parse().ok());
    let port = key.strip_prefix(PORTS).and_then(|text| text.parse().ok());
    address.map(Claimed::Address).or(port.map(Claimed::Port))
}

pub fn may_be_held_by(key: &str) -> bool {
    key.starts_with(SERVICES)
}

/// The keys of a service's claims and what is stored at them.
fn of(service_key: &str, service: &Value) -> BTreeMap<String, String> {
    let addresses = addresses_of(service)
        .into_iter()
        .map(|address| (format!("{ADDRESSES}{address}"), address_object(address, service)));
    let ports = ports_of(service).into_iter().map(|port| (format!("{PORTS}{port}"), service_key.to_owned()));
    addresses.chain(ports).collect()
}

/// What makes the claims of the old object those of the new one.
pub fn changes(service_key: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<Op> {
    let claims = |object: Option<&Value>| object.map(|o| of(service_key, o)).unwrap_or_default();
    let (old, new) = (claims(old), claims(new));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let gone = gone.map(|key| Op::delete(key.clone(), Expect::Anything));
    let added = new.iter().filter(|(key, _)| !old.contains_key(*key));
    let added = added.map(|(key, value)| Op::create(key.clone(), value.clone()));
    gone.chain(added).collect()
}

/// As the original writes it.
fn address_object(address: Ipv4Addr, service: &Value) -> String {
    let now = base::time::rfc3339_seconds(base::time::now());
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:ipaddress.kubernetes.io/ip-family": {}, "f:ipaddress.kubernetes.io/managed-by": {}}},
        "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
    });
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": base::id::uuid(),
            "creationTimestamp": now,
            "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", MANAGED_BY: MANAGER},
            "managedFields": [{"manager": "kube-apiserver", "operation": "Update", "apiVersion": "networking.k8s.io/v1",
                "time": now, "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {"parentRef": {"resource": "services", "namespace": meta::namespace(service), "name": meta::name(service)}},
    });
    String::from_utf8_lossy(&meta::to_stored(&object)).into_owned()
}

/// Claims for services that were stored without (by other servers, or before there were claims), and none for those
/// that are gone. Done at the start; from then on each write sees to its own.
pub async fn settle(server: &ApiServer) -> Result<(), ApiError> {
    let objects = &server.0.objects;
    let range = |prefix: &str| {
        let request = RangeRequest { prefix: prefix.to_owned(), ..Default::default() };
        async {
            let entries = objects.store.range(request).await.map_err(store_error)?.entries;
            objects.unlock(&entries).await?;
            Ok::<_, ApiError>(entries)
        }
    };
    let mut wanted = BTreeMap::new();
    let mut services = BTreeMap::new();
    for entry in range(SERVICES).await? {
        for (key, value) in of(&entry.key, &objects.decode(&entry)?) {
            wanted.entry(key).or_insert_with(|| (entry.key.to_string(), entry.mod_revision, value));
        }
        services.insert(entry.key.to_string(), entry.mod_revision);
    }
    for prefix in [ADDRESSES, PORTS] {
        for entry in range(prefix).await? {
            if wanted.remove(&*entry.key).is_some() {
                continue;
            }
            let Some(holder) = holder(server, &entry) else { continue };
            // Only if the service is still as it was read.
            let expect = services.get(&holder).map_or(Expect::Absent, |revision| Expect::At(*revision));
            let check = Op { key: holder, expect, change: Change::Nothing };
            let delete = Op::delete(entry.key.to_string(), Expect::At(entry.mod_revision));
            objects.store.txn(vec![check, delete]).await.map_err(store_error)?;
        }
    }
    for (key, (service, revision, value)) in wanted {
        let check = Op { key: service, expect: Expect::At(revision), change: Change::Nothing };
        objects.store.txn(vec![check, Op::create(key, value)]).await.map_err(store_error)?;
    }
    Ok(())
}

/// The key of the service that a claim is for; nothing for addresses that users look after themselves.
fn holder(server: &ApiServer, entry: &Entry) -> Option<String> {
    if entry.key.starts_with(PORTS) {
        return Some(String::from_utf8_lossy(&entry.value).into_owned());
    }
    let object = server.0.objects.decode(entry).ok()?;
    let parent = &object["spec"]["parentRef"];
    let ours = object["metadata"]["labels"][MANAGED_BY] == MANAGER && parent["resource"] == "services";
    let text = |field: &str| parent[field].as_str().unwrap_or_default();
    ours.then(|| format!("{SERVICES}{}/{}", text("namespace"), text("name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str, ports: &[u16]) -> Value {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"nodePort": port})).collect();
        json!({"metadata": {"namespace": "n", "name": "s"}, "spec": {"clusterIP": address, "ports": ports}})
    }

    fn check(old: Option<Value>, new: Option<Value>, expected: &[&str]) {
        let changes = changes("/registry/services/specs/n/s", old.as_ref(), new.as_ref());
        let told: Vec<String> = changes
            .iter()
            .map(|op| match op.change {
                Change::Delete => format!("- {}", op.key),
                _ => format!("+ {}", op.key),
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn claims_follow_the_service() {
        let one = || Some(service("10.43.0.7", &[30000, 30001]));
        check(None, Some(service("None", &[])), &[]);
        check(one(), one(), &[]);
        check(
            None,
            one(),
            &[
                "+ /registry/.kedge/nodeports/30000",
                "+ /registry/.kedge/nodeports/30001",
                "+ /registry/ipaddresses/10.43.0.7",
            ],
        );
        check(one(), Some(service("10.43.0.7", &[30001])), &["- /registry/.kedge/nodeports/30000"]);
        check(Some(service("10.43.0.7", &[])), None, &["- /registry/ipaddresses/10.43.0.7"]);
        assert_eq!(
            parse("/registry/ipaddresses/10.43.0.7"),
            Some(Claimed::Address(Ipv4Addr::new(10, 43, 0, 7)))
        );
        assert_eq!(parse("/registry/.kedge/nodeports/30000"), Some(Claimed::Port(30000)));
        assert_eq!(parse("/registry/pods/a/b"), None);
    }
}
