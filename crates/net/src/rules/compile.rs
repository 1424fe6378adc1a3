//! Pure: from frontends to the wanted content of the maps, and from two such contents to the changes between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::model::{Backend, Frontend, Options, Protocol};

/// Where a connection is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where a slot leads.
pub type Target = (Ipv4Addr, u16);

/// The chain a frontend is sent to. All that have as many backends and the same manners share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    pub backends: u32,
    pub masquerade: bool,
    pub affinity_seconds: Option<u32>,
}

impl Pick {
    pub fn chain(&self) -> String {
        let masquerade = if self.masquerade { "-masq" } else { "" };
        let affinity = self.affinity_seconds.map(|s| format!("-sticky-{s}")).unwrap_or_default();
        format!("pick-{}{masquerade}{affinity}", self.backends)
    }
}

/// The wanted content of every map and set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    pub frontends: BTreeMap<Tuple, Pick>,
    pub slots: BTreeMap<(Tuple, u32), Target>,
    /// Frontends nobody serves: refused at once.
    pub rejects: BTreeSet<Tuple>,
    /// Backends that may meet themselves through a frontend.
    pub hairpins: BTreeSet<Ipv4Addr>,
}

impl Desired {
    /// Backends of a frontend by slot.
    pub fn targets(&self, tuple: Tuple) -> impl Iterator<Item = (u32, Target)> + '_ {
        self.slots.range((tuple, 0)..=(tuple, u32::MAX)).map(|((_, slot), target)| (*slot, *target))
    }
}

/// The wanted state. A backend keeps the slot it had in `previous` where it can, so that few elements change. Of two
/// frontends with one tuple the first counts.
pub fn compile(frontends: &[Frontend], options: &Options, previous: &Desired) -> Desired {
    let mut desired = Desired::default();
    for frontend in frontends {
        let affinity = frontend.affinity.map(|a| u32::try_from(a.as_secs()).unwrap_or(u32::MAX).max(1));
        let tuple = |address, port| Tuple { address, protocol: frontend.protocol, port };
        if let Some(address) = frontend.address {
            let backends = admitted(frontend, frontend.internal_local);
            desired.place(tuple(address, frontend.port), &backends, false, affinity, previous);
        }
        let backends = admitted(frontend, frontend.external_local);
        let masquerade = !frontend.external_local;
        for address in &frontend.external_addresses {
            desired.place(tuple(*address, frontend.port), &backends, masquerade, affinity, previous);
        }
        for (address, port) in
            options.node_addresses.iter().filter_map(|address| Some((*address, frontend.node_port?)))
        {
            desired.place(tuple(address, port), &backends, masquerade, affinity, previous);
        }
    }
    desired
}

fn admitted(frontend: &Frontend, only_local: bool) -> BTreeSet<Target> {
    let admitted = |backend: &&Backend| backend.local || !only_local;
    frontend.backends.iter().filter(admitted).map(|b| (b.address, b.port)).collect()
}

impl Desired {
    fn place(
        &mut self,
        tuple: Tuple,
        backends: &BTreeSet<Target>,
        masquerade: bool,
        affinity_seconds: Option<u32>,
        previous: &Desired,
    ) {
        if self.frontends.contains_key(&tuple) || self.rejects.contains(&tuple) {
            return;
        }
        let Ok(count @ 1..) = u32::try_from(backends.len()) else {
            self.rejects.insert(tuple);
            return;
        };
        let mut placed: BTreeMap<u32, Target> = previous
            .targets(tuple)
            .filter(|(slot, target)| *slot < count && backends.contains(target))
            .collect();
        let kept: BTreeSet<Target> = placed.values().copied().collect();
        let mut rest = backends.difference(&kept);
        for slot in 0..count {
            if !placed.contains_key(&slot) {
                // As many are left as there are free slots.
                placed.extend(rest.next().map(|target| (slot, *target)));
            }
        }
        self.frontends.insert(tuple, Pick { backends: count, masquerade, affinity_seconds });
        self.slots.extend(placed.into_iter().map(|(slot, target)| ((tuple, slot), target)));
        self.hairpins.extend(backends.iter().map(|(address, _)| *address));
    }
}

/// Elements to take away and to add. A changed element is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub remove_frontends: Vec<(Tuple, Pick)>,
    pub add_frontends: Vec<(Tuple, Pick)>,
    pub remove_slots: Vec<((Tuple, u32), Target)>,
    pub add_slots: Vec<((Tuple, u32), Target)>,
    pub remove_rejects: Vec<Tuple>,
    pub add_rejects: Vec<Tuple>,
    pub remove_hairpins: Vec<Ipv4Addr>,
    pub add_hairpins: Vec<Ipv4Addr>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Frontends that lost a backend or came into being: what the kernel remembers of their clients may be stale.
    pub fn disturbed(&self) -> BTreeSet<Tuple> {
        let lost = self.remove_slots.iter().map(|((tuple, _), _)| *tuple);
        lost.chain(self.add_frontends.iter().map(|(tuple, _)| *tuple)).collect()
    }
}

pub fn diff(old: &Desired, new: &Desired) -> Changes {
    let (remove_frontends, add_frontends) = map_diff(&old.frontends, &new.frontends);
    let (remove_slots, add_slots) = map_diff(&old.slots, &new.slots);
    Changes {
        remove_frontends,
        add_frontends,
        remove_slots,
        add_slots,
        remove_rejects: old.rejects.difference(&new.rejects).copied().collect(),
        add_rejects: new.rejects.difference(&old.rejects).copied().collect(),
        remove_hairpins: old.hairpins.difference(&new.hairpins).copied().collect(),
        add_hairpins: new.hairpins.difference(&old.hairpins).copied().collect(),
    }
}

type Pairs<K, V> = Vec<(K, V)>;

fn map_diff<K: Ord + Copy, V: PartialEq + Copy>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> (Pairs<K, V>, Pairs<K, V>) {
    let missing = |from: &BTreeMap<K, V>, of: &BTreeMap<K, V>| {
        of.iter().filter(|(key, value)| from.get(key) != Some(value)).map(|(k, v)| (*k, *v)).collect()
    };
    (missing(new, old), missing(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn frontend(backends: &[u8]) -> Frontend {
        let backends =
            backends.iter().map(|b| Backend { address: ip(*b), port: 80, local: *b < 100 }).collect();
        Frontend { backends, ..Frontend::new(ip(1), 443, Protocol::Tcp) }
    }

    fn options() -> Options {
        Options { node_addresses: vec![ip(9)], ..Options::default() }
    }

    #[test]
    fn a_removed_backend_changes_only_its_own_elements() {
        let old = compile(&[frontend(&[11, 12, 13, 14])], &options(), &Desired::default());
        let new = compile(&[frontend(&[12, 13, 14])], &options(), &old);
        let changes = diff(&old, &new);
        // Slot 0 takes the one from the slot that is gone; the chain is another; nothing else moves.
        assert_eq!(changes.remove_slots.len(), 2);
        assert_eq!(changes.add_slots.len(), 1);
        assert_eq!(changes.add_frontends[0].1.chain(), "pick-3");
        assert_eq!(changes.remove_hairpins, [ip(11)]);
        let slots: BTreeSet<_> = new.slots.values().collect();
        assert_eq!(slots.len(), 3);
    }

    #[test]
    fn policies_choose_who_is_admitted_and_who_is_masqueraded() {
        let mut service = frontend(&[11, 200]);
        service.node_port = Some(30_000);
        service.external_local = true;
        service.affinity = Some(Duration::from_secs(30));
        let desired = compile(&[service], &options(), &Desired::default());
        let chains: Vec<String> = desired.frontends.values().map(Pick::chain).collect();
        assert_eq!(chains, ["pick-2-sticky-30", "pick-1-sticky-30"]);
    }

    #[test]
    fn nobody_to_serve_is_a_refusal() {
        let mut service = frontend(&[]);
        service.node_port = Some(30_000);
        let desired = compile(&[service.clone(), service], &options(), &Desired::default());
        assert_eq!(desired.rejects.len(), 2);
        assert!(desired.frontends.is_empty());
        assert!(diff(&desired, &desired).is_empty());
    }
}
