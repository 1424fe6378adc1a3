//! The part of the table that does not depend on any frontend: chains on hooks, sets, and the few rules; and the
//! chain of each `Pick`.

use super::compile::Pick;
use super::encode::{BaseChain, FRONTENDS, HAIRPINS, REJECTS, SETS, SLOTS, STICKY, Transaction, VERDICT};
use super::model::Options;

/// Marks a connection that must leave under the node's address. Any value will do; it is ours in our namespace.
const MASQUERADE_MARK: u32 = 0x4b45_4447;
const NEW_CONNECTION: u32 = 8;
const TCP: u8 = 6;
const REFUSE: &str = "refuse";

const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Refusals come before translation, so that a frontend nobody serves is not yet anything else; strays come after.
const BASE_CHAINS: [BaseChain; 7] = [
    BaseChain { name: "reject-prerouting", kind: "filter", hook: PREROUTING, priority: -110 },
    BaseChain { name: "reject-output", kind: "filter", hook: OUTPUT, priority: -110 },
    BaseChain { name: "prerouting", kind: "nat", hook: PREROUTING, priority: -100 },
    BaseChain { name: "output", kind: "nat", hook: OUTPUT, priority: -100 },
    BaseChain { name: "postrouting", kind: "nat", hook: POSTROUTING, priority: 100 },
    BaseChain { name: "stray-forward", kind: "filter", hook: FORWARD, priority: 0 },
    BaseChain { name: "stray-output", kind: "filter", hook: OUTPUT, priority: 0 },
];

/// Writes the whole table anew, whatever was there.
pub fn write_table(transaction: &mut Transaction, options: &Options) {
    // Creating first makes the deletion succeed where there was none.
    transaction.new_table();
    transaction.delete_table();
    transaction.new_table();
    for set in &SETS {
        transaction.new_set(set);
    }
    transaction.new_chain(REFUSE);
    transaction.new_rule(REFUSE, |rule| {
        rule.protocol(8).compare(8, true, &[TCP]).reject_with_reset();
    });
    transaction.new_rule(REFUSE, |rule| {
        rule.reject_with_port_unreachable();
    });
    for chain in &BASE_CHAINS {
        transaction.new_base_chain(chain);
    }
    for chain in ["reject-prerouting", "reject-output"] {
        transaction.new_rule(chain, |rule| {
            rule.connection_state(NEW_CONNECTION).tuple(9).member(REJECTS, 9).goto(REFUSE);
        });
    }
    for chain in ["prerouting", "output"] {
        transaction.new_rule(chain, |rule| {
            rule.tuple(9).lookup(FRONTENDS, 9, VERDICT);
        });
    }
    if let Some(link) = &options.stray_link {
        // On output the link is the one chosen before translation, so it alone does not tell a stray.
        for chain in ["stray-forward", "stray-output"] {
            transaction.new_rule(chain, |rule| {
                rule.untranslated().out_link(link).goto(REFUSE);
            });
        }
    }
    write_masquerade(transaction, options);
}

fn write_masquerade(transaction: &mut Transaction, options: &Options) {
    transaction.new_rule("postrouting", |rule| {
        rule.load_mark(8).compare(8, true, &MASQUERADE_MARK.to_ne_bytes()).masquerade();
    });
    // Who meets itself would answer itself directly, past the translation.
    transaction.new_rule("postrouting", |rule| {
        rule.source(8).destination(9).member(HAIRPINS, 8).masquerade();
    });
    if let Some(range) = options.masquerade_from {
        let (network, mask) = (range.network().octets(), range.mask().octets());
        transaction.new_rule("postrouting", |rule| {
            rule.source(8).mask(8, &mask).compare(8, true, &network);
            rule.destination(9).mask(9, &mask).compare(9, false, &network).masquerade();
        });
    }
}

/// Writes the chain of a `Pick`. Registers: 8 source, 9-11 destination tuple, 12 the slot drawn, 16-17 the target;
/// so 8-11 are the sticky key and 9-12 the slot key.
pub fn write_pick(transaction: &mut Transaction, pick: &Pick) {
    let chain = pick.chain();
    transaction.new_chain(&chain);
    if pick.masquerade {
        transaction.new_rule(&chain, |rule| {
            rule.set_mark(MASQUERADE_MARK);
        });
    }
    if let Some(seconds) = pick.affinity_seconds {
        transaction.new_rule(&chain, |rule| {
            rule.source(8).tuple(9).lookup(STICKY, 8, 16).remember(STICKY, 8, 16, seconds).translate(16);
        });
    }
    transaction.new_rule(&chain, |rule| {
        if pick.affinity_seconds.is_some() {
            rule.source(8);
        }
        rule.tuple(9).draw(pick.backends, 12).lookup(SLOTS, 9, 16);
        if let Some(seconds) = pick.affinity_seconds {
            rule.remember(STICKY, 8, 16, seconds);
        }
        rule.translate(16);
    });
}
