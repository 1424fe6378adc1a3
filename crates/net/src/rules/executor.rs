//! Performs changes over netlink, each as one kernel transaction.

use std::collections::BTreeSet;

use super::compile::{Changes, Desired, Pick, Tuple, compile, diff};
use super::conntrack::forget_flows;
use super::encode::{
    FRONTENDS, GET_ELEMENTS, HAIRPINS, REJECTS, SLOTS, STICKY, TABLE, Transaction, hairpin_key, slot_key,
    target_bytes, tuple_key,
};
use super::model::{Frontend, Options};
use super::skeleton::{write_pick, write_table};
use crate::namespace::{Namespace, NamespaceError};
use crate::netlink::{Message, NLM_F_DUMP, NetlinkError, NetlinkSocket, attributes_of};

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The translation rules of one namespace. Only this writes the table; what the kernel holds is therefore known.
pub struct Rules {
    socket: NetlinkSocket,
    options: Options,
    state: State,
}

/// What is known of the kernel's table.
enum State {
    /// Nothing: the next change writes all of it.
    Unknown,
    Known {
        desired: Desired,
        chains: BTreeSet<Pick>,
    },
}

impl Rules {
    /// Nothing is written until the first `apply`, which replaces the whole table at once.
    pub fn open(namespace: &Namespace, options: Options) -> Result<Self, RulesError> {
        let socket = namespace.run(|| NetlinkSocket::open(libc::NETLINK_NETFILTER))??;
        Ok(Self { socket, options, state: State::Unknown })
    }

    /// Brings the kernel to these frontends. Blocks for as long as the kernel takes (a few elements: microseconds).
    pub fn apply(&mut self, frontends: &[Frontend]) -> Result<(), RulesError> {
        if let State::Known { desired: old, chains } = &mut self.state {
            let new = compile(frontends, &self.options, old);
            let changes = diff(old, &new);
            if changes.is_empty() {
                return Ok(());
            }
            let wanted: BTreeSet<Pick> = new.frontends.values().copied().collect();
            let missing: Vec<Pick> = wanted.difference(chains).copied().collect();
            match commit_changes(&mut self.socket, &changes, &missing) {
                Ok(()) => {
                    chains.extend(missing);
                    *old = new;
                    self.forget(&changes.disturbed());
                    return Ok(());
                }
                Err(error) => {
                    // Somebody else changed the table, or we misjudged it: write all of it.
                    tracing::warn!(%error, "incremental rules refused, rewriting the table");
                    self.state = State::Unknown;
                }
            }
        }
        self.rewrite(frontends)
    }

    fn rewrite(&mut self, frontends: &[Frontend]) -> Result<(), RulesError> {
        let desired = compile(frontends, &self.options, &Desired::default());
        let changes = diff(&Desired::default(), &desired);
        let chains: BTreeSet<Pick> = desired.frontends.values().copied().collect();
        let mut transaction = Transaction::begin(self.socket.next_sequence());
        write_table(&mut transaction, &self.options);
        chains.iter().for_each(|pick| write_pick(&mut transaction, pick));
        write_changes(&mut transaction, &changes);
        commit(&mut self.socket, "rewrite rules", transaction)?;
        self.state = State::Known { desired, chains };
        self.forget(&changes.disturbed());
        Ok(())
    }

    /// What the kernel is believed to hold.
    pub fn current(&self) -> Option<&Desired> {
        match &self.state {
            State::Known { desired, .. } => Some(desired),
            State::Unknown => None,
        }
    }

    /// Removes the table.
    pub fn remove(&mut self) -> Result<(), RulesError> {
        let mut transaction = Transaction::begin(self.socket.next_sequence());
        transaction.new_table();
        transaction.delete_table();
        commit(&mut self.socket, "remove rules", transaction)?;
        self.state = State::Unknown;
        Ok(())
    }

    /// Drops what the kernel remembers of clients of backends that are gone. A failure costs one client its
    /// stickiness or one datagram flow its time-out, so it is told and not passed on.
    fn forget(&mut self, disturbed: &BTreeSet<Tuple>) {
        let State::Known { desired, .. } = &self.state else { return };
        if let Err(error) = forget_flows(&mut self.socket, disturbed, desired) {
            tracing::warn!(%error, "forget flows of removed backends");
        }
        if let Err(error) = forget_sticky(&mut self.socket, disturbed, desired) {
            tracing::warn!(%error, "forget affinity to removed backends");
        }
    }
}

fn commit(socket: &mut NetlinkSocket, what: &str, transaction: Transaction) -> Result<(), NetlinkError> {
    let (message, acknowledged) = transaction.finish();
    socket.transaction(what, message.as_bytes(), acknowledged)
}

fn commit_changes(
    socket: &mut NetlinkSocket,
    changes: &Changes,
    missing: &[Pick],
) -> Result<(), NetlinkError> {
    let mut transaction = Transaction::begin(socket.next_sequence());
    missing.iter().for_each(|pick| write_pick(&mut transaction, pick));
    write_changes(&mut transaction, changes);
    commit(socket, "change rules", transaction)
}

fn write_changes(transaction: &mut Transaction, changes: &Changes) {
    transaction
        .remove_elements(FRONTENDS, &changes.remove_frontends, |e, (tuple, _)| e.key(&tuple_key(tuple)));
    transaction.remove_elements(SLOTS, &changes.remove_slots, |e, (slot, _)| e.key(&slot_key(slot)));
    transaction.remove_elements(REJECTS, &changes.remove_rejects, |e, tuple| e.key(&tuple_key(tuple)));
    transaction
        .remove_elements(HAIRPINS, &changes.remove_hairpins, |e, address| e.key(&hairpin_key(address)));
    transaction.add_elements(HAIRPINS, &changes.add_hairpins, |e, address| e.key(&hairpin_key(address)));
    transaction.add_elements(REJECTS, &changes.add_rejects, |e, tuple| e.key(&tuple_key(tuple)));
    transaction.add_elements(SLOTS, &changes.add_slots, |e, (slot, target)| {
        e.key(&slot_key(slot));
        e.target(target);
    });
    transaction.add_elements(FRONTENDS, &changes.add_frontends, |e, (tuple, pick)| {
        e.key(&tuple_key(tuple));
        e.goto(&pick.chain());
    });
}

/// Forgets which client kept to a backend that its frontend no longer has.
fn forget_sticky(
    socket: &mut NetlinkSocket,
    disturbed: &BTreeSet<Tuple>,
    desired: &Desired,
) -> Result<(), NetlinkError> {
    let sticky = |tuple: &&Tuple| desired.frontends.get(tuple).is_none_or(|p| p.affinity_seconds.is_some());
    let keys: BTreeSet<[u8; 12]> = disturbed.iter().filter(sticky).map(tuple_key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let valid: BTreeSet<([u8; 12], [u8; 8])> = disturbed
        .iter()
        .flat_map(|tuple| {
            desired.targets(*tuple).map(|(_, target)| (tuple_key(tuple), target_bytes(&target)))
        })
        .collect();
    let mut stale: Vec<Vec<u8>> = Vec::new();
    let sequence = socket.next_sequence();
    let mut request = Message::new();
    request
        .begin(10 << 8 | GET_ELEMENTS, NLM_F_DUMP, sequence, &[2, 0, 0, 0])
        .string(1, TABLE)
        .string(2, STICKY);
    socket.dump("list affinity", &request, sequence, |_, body| {
        for (key, data) in elements_of(body.get(4..).unwrap_or(&[])) {
            let parts = (
                key.get(4..16).and_then(|k| k.try_into().ok()),
                data.get(..8).and_then(|d| d.try_into().ok()),
            );
            if let (Some(tuple), Some(target)) = parts
                && keys.contains(&tuple)
                && !valid.contains(&(tuple, target))
            {
                stale.push(key.to_vec());
            }
        }
    })?;
    for key in stale {
        // One by one: an element that ran out meanwhile would refuse a whole transaction.
        let mut transaction = Transaction::begin(socket.next_sequence());
        transaction.remove_elements(STICKY, &[key], |e, key| e.key(key));
        match commit(socket, "forget affinity", transaction) {
            Err(error) if !error.is(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// `(key, data)` of the elements in one dumped message.
fn elements_of(body: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let find = |bytes, kind| attributes_of(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value);
    let list = find(body, 3).unwrap_or(&[]);
    attributes_of(list)
        .filter_map(move |(_, element)| Some((find(find(element, 1)?, 1)?, find(find(element, 2)?, 1)?)))
}
