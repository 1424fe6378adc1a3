//! Whether there is anything behind the service of an APIService, as far as the API itself tells. Told in the words of the
//! original, by which people find what is missing.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::availability::Fault;

/// The label by which slices name their service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What is missing of a service's way to its pods; `port` is the one that is asked for.
pub fn missing(service: &Service, slices: &[EndpointSlice], port: i32) -> Option<Fault> {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let place = format!("service/{name} in {namespace:?}");
    let spec = service.spec.as_ref()?;
    // Of others the service itself says where they are.
    if spec.type_.as_deref().is_some_and(|kind| kind != "ClusterIP") {
        return None;
    }
    let Some(port_name) = spec.ports.iter().flatten().find(|p| p.port == port).map(|p| p.name.as_deref())
    else {
        let message = format!("{place} is not listening on port {port}");
        return Some(Fault { reason: "ServicePortError", message });
    };
    let port_name = port_name.unwrap_or_default();
    let of_service = |slice: &&EndpointSlice| {
        slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME)).is_some_and(|of| of == name)
    };
    let own: Vec<&EndpointSlice> = slices.iter().filter(of_service).collect();
    if own.is_empty() {
        let message = format!("cannot find endpointslices for {place}");
        return Some(Fault { reason: "EndpointsNotFound", message });
    }
    if own.iter().any(|slice| leads_somewhere(slice, port_name)) {
        return None;
    }
    let message = format!("endpointslices for {place} have no addresses with port name {port_name:?}");
    Some(Fault { reason: "MissingEndpoints", message })
}

fn leads_somewhere(slice: &EndpointSlice, port_name: &str) -> bool {
    let ready =
        slice.endpoints.iter().flatten().any(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    let mut ports = slice.ports.iter().flatten();
    ready && ports.any(|p| p.port.is_some() && p.name.as_deref().unwrap_or_default() == port_name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(kind: &str, ports: Value, slices: Value, expected: &str) {
        let service =
            json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": kind, "ports": ports}});
        let service: Service = serde_json::from_value(service).expect("a service");
        let slices: Vec<EndpointSlice> = serde_json::from_value(slices).expect("slices");
        let found = missing(&service, &slices, 443).map_or("", |fault| fault.reason);
        assert_eq!(found, expected, "{service:?} {slices:?}");
    }

    #[test]
    fn what_is_missing_is_told() {
        let https = || json!([{"name": "https", "port": 443}]);
        let slice = |service: &str, port: Value, ready: Value| {
            json!([{"metadata": {"labels": {SERVICE_NAME: service}}, "addressType": "IPv4", "ports": [port],
                "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": ready}}]}])
        };
        let port = || json!({"name": "https", "port": 8443});
        check("ClusterIP", json!([{"port": 80}]), json!([]), "ServicePortError");
        check("ClusterIP", https(), json!([]), "EndpointsNotFound");
        check("ClusterIP", https(), slice("other", port(), json!(true)), "EndpointsNotFound");
        check(
            "ClusterIP",
            https(),
            slice("s", json!({"name": "http", "port": 1}), json!(true)),
            "MissingEndpoints",
        );
        check("ClusterIP", https(), slice("s", port(), json!(false)), "MissingEndpoints");
        check("ClusterIP", https(), slice("s", port(), Value::Null), "");
        check("ExternalName", json!([]), json!([]), "");
    }
}
