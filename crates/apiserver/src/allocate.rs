//! Cluster addresses and node ports of services: who has which, given out under a lock and given back when the
//! write that wanted them fails. That two servers do not give out the same is seen to by claims in the store
//! (`claims.rs`), which are written with the service.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use api::kinds::Kind;
use api::status::{ApiError, FieldError};
use base::constants::ports::{NODE_PORT_FIRST, NODE_PORT_LAST};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Server;
use crate::claims::Claimed;

pub struct Addresses {
    first: u32,
    count: u32,
    used: Arc<Mutex<Used>>,
}

#[derive(Default)]
struct Used {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
}

/// What a request took; given back on drop unless the write was done.
pub struct Taken {
    addresses: Vec<Ipv4Addr>,
    ports: HashSet<u16>,
    used: Arc<Mutex<Used>>,
}

impl Taken {
    pub fn keep(mut self) {
        self.addresses.clear();
        self.ports.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut used = self.used.lock();
        used.forget(&self.addresses, &self.ports);
    }
}

impl Used {
    fn forget<'a>(&mut self, addresses: &[Ipv4Addr], ports: impl IntoIterator<Item = &'a u16>) {
        for address in addresses {
            self.addresses.remove(address);
        }
        for port in ports {
            self.ports.remove(port);
        }
    }
}

impl Addresses {
    pub fn new(cidr: &str) -> Option<Self> {
        let (base, bits) = cidr.split_once('/')?;
        let (base, bits): (Ipv4Addr, u32) = (base.parse().ok()?, bits.parse().ok()?);
        let size = 1_u32.checked_shl(32_u32.checked_sub(bits)?)?;
        Some(Self { first: u32::from(base) & !(size - 1), count: size, used: Arc::default() })
    }

    /// As it was given.
    fn range(&self) -> String {
        let bits = self.count.leading_zeros() + 1;
        format!("{}/{bits}", Ipv4Addr::from(self.first))
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..self.first + self.count).contains(&u32::from(address))
    }

    /// A free address from the upper part of the range, leaving the first ones to those who name theirs.
    fn free_address(&self, used: &Used) -> Option<Ipv4Addr> {
        let reserved = (self.count / 16).clamp(16, 256).min(self.count / 2);
        let span = self.count - 1 - reserved;
        let start = u32::from_le_bytes(base::id::random_bytes()) % span;
        let upper = (0..span).map(|i| reserved + (start + i) % span);
        let address = |offset| Ipv4Addr::from(self.first + offset);
        upper.chain(1..reserved).map(address).find(|a| !used.addresses.contains(a))
    }
}

fn free_port(used: &Used) -> Option<u16> {
    let span = NODE_PORT_LAST - NODE_PORT_FIRST + 1;
    let start = u16::from_le_bytes(base::id::random_bytes()) % span;
    (0..span).map(|i| NODE_PORT_FIRST + (start + i) % span).find(|p| !used.ports.contains(p))
}

pub(crate) fn gives_to(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Service"
}

pub(crate) fn addresses_of(service: &Value) -> Vec<Ipv4Addr> {
    service["spec"]["clusterIP"].as_str().and_then(|a| a.parse().ok()).into_iter().collect()
}

pub(crate) fn ports_of(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array();
    ports
        .into_iter()
        .flatten()
        .filter_map(|p| p["nodePort"].as_u64())
        .filter_map(|p| u16::try_from(p).ok())
        .filter(|p| *p > 0)
        .collect()
}

impl Server {
    pub(crate) async fn load_addresses(&self) -> Result<(), ApiError> {
        let kinds = self.catalog.snapshot();
        let kind = kinds.find("", "v1", "services").ok_or_else(ApiError::no_such_path)?;
        let services: Vec<Value> = self.objects.all(kind).await?;
        let mut used = self.addresses.used.lock();
        for service in &services {
            used.addresses.extend(addresses_of(service));
            used.ports.extend(ports_of(service));
        }
        Ok(())
    }

    /// Another server has given something out; this one learns of it by its claim.
    pub(crate) fn taken_elsewhere(&self, claim: &str) {
        let mut used = self.addresses.used.lock();
        match crate::claims::parse(claim) {
            Some(Claimed::Address(address)) => drop(used.addresses.insert(address)),
            Some(Claimed::Port(port)) => drop(used.ports.insert(port)),
            None => {}
        }
    }

    /// A service has changed, perhaps by another server's hand. What is used here only saves trying in vain: the claims
    /// in the store decide.
    pub(crate) fn addresses_changed(&self, kind: &Kind, old: Option<&Value>, new: Option<&Value>) {
        if !gives_to(kind) {
            return;
        }
        if let (Some(old), Some(new)) = (old, new) {
            self.gave_up(kind, new, old);
        } else if let Some(old) = old {
            self.released(kind, old);
        }
        if let Some(new) = new {
            let mut used = self.addresses.used.lock();
            used.addresses.extend(addresses_of(new));
            used.ports.extend(ports_of(new));
        }
    }

    /// Fills in a service's addresses and node ports, or refuses those it asks for.
    pub(crate) fn allocate(
        &self,
        kind: &Kind,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Taken, ApiError> {
        let mut taken =
            Taken { addresses: Vec::new(), ports: HashSet::new(), used: Arc::clone(&self.addresses.used) };
        if !gives_to(kind) {
            return Ok(taken);
        }
        let name = api::meta::name(object).to_owned();
        let invalid = |error: FieldError| ApiError::invalid("", "Service", &name, &[error]);
        let mut used = self.addresses.used.lock();
        let result = self
            .take_address(&mut used, &mut taken, object, old)
            .and_then(|()| take_ports(&mut used, &mut taken, object, old));
        // Dropping what was taken needs the lock.
        drop(used);
        result.map_err(invalid)?;
        Ok(taken)
    }

    fn take_address(
        &self,
        used: &mut Used,
        taken: &mut Taken,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), FieldError> {
        let spec = &mut object["spec"];
        if spec["type"] == "ExternalName" {
            if let Value::Object(spec) = spec {
                ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]
                    .into_iter()
                    .for_each(|f| drop(spec.remove(f)));
            }
            return Ok(());
        }
        let held = old.map(addresses_of).unwrap_or_default();
        let asked = spec["clusterIP"].as_str().unwrap_or_default().to_owned();
        let address = match asked.as_str() {
            "None" => None,
            "" => Some(self.addresses.free_address(used).ok_or_else(|| {
                FieldError::invalid("spec.clusterIPs", Value::Null, "failed to allocate IP: range is full")
            })?),
            text => {
                let parsed: Ipv4Addr = text.parse().map_err(|_| {
                    FieldError::invalid(
                        "spec.clusterIPs[0]",
                        text,
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    )
                })?;
                if !self.addresses.contains(parsed) {
                    let range = self.addresses.range();
                    let detail = format!(
                        "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {range}"
                    );
                    return Err(FieldError::invalid("spec.clusterIPs", json!([text]), detail));
                }
                Some(parsed)
            }
        };
        if let Some(address) = address.filter(|a| !held.contains(a)) {
            if !used.addresses.insert(address) {
                let detail = format!("failed to allocate IP {address}: provided IP is already allocated");
                return Err(FieldError::invalid("spec.clusterIPs", json!([address.to_string()]), detail));
            }
            taken.addresses.push(address);
        }
        let shown = address.map_or_else(|| "None".to_owned(), |a| a.to_string());
        spec["clusterIP"] = shown.as_str().into();
        spec["clusterIPs"] = json!([shown]);
        Ok(())
    }

    /// After an update: what the old service had and the new one has not.
    pub(crate) fn gave_up(&self, kind: &Kind, new: &Value, old: &Value) {
        if !gives_to(kind) {
            return;
        }
        let kept = addresses_of(new);
        let kept_ports: HashSet<u16> = ports_of(new).into_iter().collect();
        let (mut addresses, mut ports) = (addresses_of(old), ports_of(old));
        addresses.retain(|a| !kept.contains(a));
        ports.retain(|p| !kept_ports.contains(p));
        self.addresses.used.lock().forget(&addresses, &ports);
    }

    /// After a deletion.
    pub(crate) fn released(&self, kind: &Kind, object: &Value) {
        if gives_to(kind) {
            self.addresses.used.lock().forget(&addresses_of(object), &ports_of(object));
        }
    }
}

fn take_ports(
    used: &mut Used,
    taken: &mut Taken,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), FieldError> {
    let spec = &mut object["spec"];
    let wants = match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    };
    if !wants {
        return Ok(());
    }
    let held: HashSet<u16> = old.map(ports_of).unwrap_or_default().into_iter().collect();
    for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
        let asked = port["nodePort"].as_u64().unwrap_or(0);
        let field = format!("spec.ports[{i}].nodePort");
        let number = match u16::try_from(asked) {
            Ok(0) => {
                free_port(used).ok_or_else(|| FieldError::invalid(field.as_str(), 0, "no free node port"))?
            }
            Ok(asked) if (NODE_PORT_FIRST..=NODE_PORT_LAST).contains(&asked) => asked,
            _ => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {NODE_PORT_FIRST}-{NODE_PORT_LAST}"
                );
                return Err(FieldError::invalid(field, asked, detail));
            }
        };
        if !held.contains(&number) {
            // The same port may serve TCP and UDP of one service.
            if !taken.ports.contains(&number) && !used.ports.insert(number) {
                return Err(FieldError::invalid(field, number, "provided port is already allocated"));
            }
            taken.ports.insert(number);
        }
        port["nodePort"] = number.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_range_and_run_out() {
        let addresses = Addresses::new("10.43.0.0/28").expect("a range");
        let mut used = Used::default();
        while let Some(address) = addresses.free_address(&used) {
            assert!(addresses.contains(address), "{address}");
            used.addresses.insert(address);
        }
        assert_eq!(used.addresses.len(), 14, "all but the network's and the last address");
        assert!(Addresses::new("10.43.0.0").is_none());
    }
}
