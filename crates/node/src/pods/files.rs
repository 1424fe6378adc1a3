//! `/etc/hosts` and `/etc/resolv.conf` of a pod, as the kubelet writes them. Pure.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use super::context::uses_host_network;
use crate::config::NodeConfig;

const HOSTNAME_MAX: usize = 63;
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

/// The short host name of a pod.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let chosen = spec.and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = chosen.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.truncate(HOSTNAME_MAX);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// The full name, if the pod has a subdomain.
pub fn full_name(pod: &Pod, domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{}.{subdomain}.{namespace}.svc.{domain}", hostname(pod)))
}

/// What the pod's UTS namespace is told.
pub fn sandbox_hostname(pod: &Pod, domain: &str) -> String {
    let as_fqdn = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or(false);
    full_name(pod, domain).filter(|_| as_fqdn).unwrap_or_else(|| hostname(pod))
}

/// `of_host` is the host's own file, for pods on its network.
pub fn hosts(pod: &Pod, pod_ip: &str, domain: &str, of_host: &str) -> String {
    let mut text = if uses_host_network(pod) {
        format!("# Kubernetes-managed hosts file (host network).\n{of_host}")
    } else {
        let names = full_name(pod, domain).map(|name| format!("{name}\t")).unwrap_or_default();
        format!(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             {pod_ip}\t{names}{}\n",
            hostname(pod)
        )
    };
    let aliases = pod.spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten());
    let lines: Vec<String> = aliases
        .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")))
        .collect();
    if !lines.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        text.extend(lines);
    }
    text
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    pub fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => all.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => all.searches = words.map(str::to_owned).collect(),
                Some("options") => all.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        all
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }

    fn add(&mut self, config: &PodDNSConfig) {
        let append = |to: &mut Vec<String>, more: &Option<Vec<String>>, max: usize| {
            for item in more.iter().flatten() {
                if !to.contains(item) {
                    to.push(item.clone());
                }
            }
            to.truncate(max);
        };
        append(&mut self.nameservers, &config.nameservers, NAMESERVERS_MAX);
        append(&mut self.searches, &config.searches, SEARCHES_MAX);
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let value = option.value.as_ref().filter(|value| !value.is_empty());
            let text = value.map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
            self.options.retain(|old| old != name && !old.starts_with(&format!("{name}:")));
            self.options.push(text);
        }
    }
}

/// What the pod's policy makes of the cluster's DNS, the host's resolver and the pod's own wishes.
pub fn resolver(pod: &Pod, config: &NodeConfig, of_host: &str) -> Resolver {
    let spec = pod.spec.as_ref();
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let cluster =
        policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !uses_host_network(pod));
    let mut resolver = if policy == "None" {
        Resolver::default()
    } else if cluster {
        let (namespace, domain) =
            (pod.metadata.namespace.as_deref().unwrap_or_default(), &config.cluster_domain);
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        if !config.dns_upstreams.is_empty() {
            searches.extend(Resolver::parse(of_host).searches);
        }
        Resolver {
            nameservers: vec![config.dns_address.to_string()],
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        Resolver::parse(of_host)
    };
    if let Some(own) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        resolver.add(own);
    }
    resolver
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "ns"}, "spec": spec}))
            .expect("a pod")
    }

    fn config() -> NodeConfig {
        NodeConfig::new("n", "c", "/d".into(), "/r".into(), net::namespace::Namespace::host())
    }

    #[test]
    fn resolvers_follow_the_policy() {
        let host = "nameserver 9.9.9.9\nsearch corp.example\noptions timeout:1\n";
        let cases = [
            (
                json!({}),
                "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n",
            ),
            (json!({"dnsPolicy": "Default"}), "search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n"),
            (json!({"hostNetwork": true}), "search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n"),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(resolver(&pod(spec.clone()), &config(), host).text(), expected, "{spec}");
        }
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let pod =
            pod(json!({"subdomain": "web", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts(&pod, "10.42.0.5", "cluster.local", "");
        assert!(text.contains("10.42.0.5\tweb-0.web.ns.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
