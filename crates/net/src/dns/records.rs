//! The snapshot answers come from.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a service record points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub port: u16,
    pub target: String,
}

/// What is known of one name. A name that only has descendants has an empty entry: it exists, with no data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub a: Vec<Ipv4Addr>,
    pub aaaa: Vec<Ipv6Addr>,
    pub srv: Vec<Srv>,
    pub ptr: Vec<String>,
    pub txt: Vec<String>,
    pub cname: Option<String>,
}

/// All names of a domain, and the reverse names that belong to it. Names are fully qualified, without the last dot.
#[derive(Clone, Debug, Default)]
pub struct Records {
    domain: String,
    names: HashMap<String, Entry>,
    /// `a-b-c-d.<any>.<suffix>` is the address a.b.c.d.
    echo: Option<String>,
}

impl Records {
    /// An empty domain, such as `cluster.local`.
    pub fn new(domain: &str) -> Self {
        let domain = normal(domain);
        let names = HashMap::from([(domain.clone(), Entry::default())]);
        Self { domain, names, echo: None }
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.len() <= 1
    }

    /// Adds addresses to a name.
    pub fn add_name(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let entry = self.entry(name);
        for address in addresses {
            match address {
                IpAddr::V4(v4) if !entry.a.contains(&v4) => entry.a.push(v4),
                IpAddr::V6(v6) if !entry.aaaa.contains(&v6) => entry.aaaa.push(v6),
                _ => {}
            }
        }
    }

    /// Adds a service record, e.g. `_http._tcp.web.default.svc.cluster.local`.
    pub fn add_srv(&mut self, name: &str, port: u16, target: &str) {
        let srv = Srv { port, target: normal(target) };
        let entry = self.entry(name);
        if !entry.srv.contains(&srv) {
            entry.srv.push(srv);
        }
    }

    /// Makes an address resolve back to a name.
    pub fn add_ptr(&mut self, address: IpAddr, target: &str) {
        let target = normal(target);
        let entry = self.names.entry(reverse_name(address)).or_default();
        if !entry.ptr.contains(&target) {
            entry.ptr.push(target);
        }
    }

    pub fn add_cname(&mut self, name: &str, target: &str) {
        self.entry(name).cname = Some(normal(target));
    }

    pub fn add_txt(&mut self, name: &str, text: &str) {
        self.entry(name).txt.push(text.to_owned());
    }

    /// From now on `a-b-c-d.<any label>.<suffix>` resolves to the address it spells.
    pub fn echo_addresses_below(&mut self, suffix: &str) {
        let suffix = normal(suffix);
        self.names.entry(suffix.clone()).or_default();
        self.echo = Some(suffix);
    }

    /// The entry of a name, after making sure that its ancestors within the domain exist.
    fn entry(&mut self, name: &str) -> &mut Entry {
        let name = normal(name);
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if parent.len() <= self.domain.len() || self.names.contains_key(parent) {
                break;
            }
            self.names.insert(parent.to_owned(), Entry::default());
            rest = parent;
        }
        self.names.entry(name).or_default()
    }

    pub(super) fn get(&self, name: &str) -> Option<Cow<'_, Entry>> {
        self.names.get(name).map(Cow::Borrowed).or_else(|| self.echoed(name).map(Cow::Owned))
    }

    fn echoed(&self, name: &str) -> Option<Entry> {
        let front = name.strip_suffix(self.echo.as_deref()?)?.strip_suffix('.')?;
        let Some((address, label)) = front.split_once('.') else { return Some(Entry::default()) };
        let address = address.replace('-', ".").parse().ok()?;
        (!label.contains('.')).then(|| Entry { a: vec![address], ..Entry::default() })
    }

    /// Whether `name` (normal form) is ours to answer.
    pub(super) fn owns(&self, name: &str) -> bool {
        name == self.domain || name.strip_suffix(&self.domain).is_some_and(|front| front.ends_with('.'))
    }
}

/// Lower case, no dot at the end.
pub(super) fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

pub(super) fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits: Vec<String> =
                v6.octets().iter().rev().map(|o| format!("{:x}.{:x}", o & 15, o >> 4)).collect();
            format!("{}.ip6.arpa", digits.join("."))
        }
    }
}

/// The address a reverse name stands for (IPv4 only: our ranges are).
pub(super) fn reversed(name: &str) -> Option<Ipv4Addr> {
    let mut parts = name.strip_suffix(".in-addr.arpa")?.split('.').rev();
    let mut octet = || parts.next()?.parse().ok();
    let address = Ipv4Addr::new(octet()?, octet()?, octet()?, octet()?);
    parts.next().is_none().then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_exist_and_reverse_names_round_trip() {
        let mut records = Records::new("cluster.local.");
        records.add_name("Web.ns.svc.cluster.local", [IpAddr::from([10, 43, 0, 5])]);
        assert!(records.get("svc.cluster.local").is_some() && records.get("ns.svc.cluster.local").is_some());
        assert!(records.get("web.ns.svc.cluster.local").is_some_and(|e| e.a.len() == 1));
        assert!(
            records.owns("x.cluster.local") && !records.owns("mycluster.local") && !records.owns("local")
        );
        records.echo_addresses_below("pod.cluster.local");
        let echoed = |name| records.get(name).map(|entry| entry.a.clone());
        assert_eq!(echoed("10-42-0-9.ns.pod.cluster.local"), Some(vec![Ipv4Addr::new(10, 42, 0, 9)]));
        assert_eq!(echoed("ns.pod.cluster.local"), Some(vec![]));
        assert_eq!(echoed("x.ns.pod.cluster.local"), None);
        let name = reverse_name(IpAddr::from([10, 43, 0, 5]));
        assert_eq!(
            (name.as_str(), reversed(&name)),
            ("5.0.43.10.in-addr.arpa", Some(Ipv4Addr::new(10, 43, 0, 5)))
        );
    }
}
