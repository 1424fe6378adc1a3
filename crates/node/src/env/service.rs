//! The variables that tell a container of the services that exist when it starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

/// Variables of the services of `namespace` (if `links`) and always of the API server's.
pub fn variables(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // The pod's own namespace last: its `kubernetes` service, if it has one, would win.
    for own in [false, true] {
        for service in services {
            let (name, in_namespace) =
                (service.metadata.name.as_deref(), service.metadata.namespace.as_deref());
            let master = name == Some("kubernetes") && in_namespace == Some("default");
            let wanted = if own { links && in_namespace == Some(namespace) } else { master };
            if wanted {
                add(&mut all, service);
            }
        }
    }
    all
}

fn add(all: &mut BTreeMap<String, String>, service: &Service) {
    let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let prefix = name.to_uppercase().replace('-', "_");
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let mut set = |suffix: String, value: String| all.insert(format!("{prefix}_{suffix}"), value);
    set("SERVICE_HOST".into(), ip.to_owned());
    set("SERVICE_PORT".into(), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")), port.port.to_string());
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            set("PORT".into(), url.clone());
        }
        let stem = format!("PORT_{}_{}", port.port, protocol.to_uppercase());
        set(stem.clone(), url);
        set(format!("{stem}_PROTO"), protocol.to_lowercase());
        set(format!("{stem}_PORT"), port.port.to_string());
        set(format!("{stem}_ADDR"), ip.to_owned());
    }
}
