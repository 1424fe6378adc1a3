//! nf_tables messages: a transaction under construction, the expressions rules are made of, set elements.

use std::net::Ipv4Addr;

use super::compile::{Target, Tuple};
use crate::netlink::{Message, NLM_F_ACK, NLM_F_CREATE};

pub const TABLE: &str = "kedge";
const NFPROTO_IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLM_F_APPEND: u16 = 0x800;

const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
pub const GET_ELEMENTS: u16 = 13;
const DEL_ELEMENTS: u16 = 14;

const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const DATA_VERDICT: u32 = 0xffff_ff00;
const GOTO: i32 = -4;
/// A nested attribute's length is 16 bits wide; an element takes at most about 80 bytes.
const ELEMENTS_PER_MESSAGE: usize = 600;
const STICKY_ELEMENTS_MAX: u32 = 65_536;

// How `nft` prints the keys; the kernel does not care.
const TYPE_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_MARK: u32 = 19;

const fn concatenation(parts: &[u32]) -> u32 {
    let (mut kind, mut at) = (0, 0);
    while at < parts.len() {
        kind = kind << 6 | parts[at];
        at += 1;
    }
    kind
}

/// What a set holds.
pub enum SetKind {
    /// A map to verdicts.
    Verdicts,
    /// A map to (address, port).
    Targets,
    /// A map to (address, port) that packets fill.
    Sticky,
    Plain,
}

pub struct SetSpec {
    pub name: &'static str,
    pub key_type: u32,
    pub key_bytes: u32,
    pub kind: SetKind,
}

pub const FRONTENDS: &str = "frontends";
pub const SLOTS: &str = "slots";
pub const REJECTS: &str = "rejects";
pub const HAIRPINS: &str = "hairpins";
pub const STICKY: &str = "sticky";

pub const SETS: [SetSpec; 5] = [
    SetSpec {
        name: FRONTENDS,
        key_type: concatenation(&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT]),
        key_bytes: 12,
        kind: SetKind::Verdicts,
    },
    SetSpec {
        name: SLOTS,
        key_type: concatenation(&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT, TYPE_MARK]),
        key_bytes: 16,
        kind: SetKind::Targets,
    },
    SetSpec {
        name: REJECTS,
        key_type: concatenation(&[TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT]),
        key_bytes: 12,
        kind: SetKind::Plain,
    },
    SetSpec {
        name: HAIRPINS,
        key_type: concatenation(&[TYPE_ADDRESS, TYPE_ADDRESS]),
        key_bytes: 8,
        kind: SetKind::Plain,
    },
    SetSpec {
        name: STICKY,
        key_type: concatenation(&[TYPE_ADDRESS, TYPE_ADDRESS, TYPE_PROTOCOL, TYPE_PORT]),
        key_bytes: 16,
        kind: SetKind::Sticky,
    },
];

/// A chain that hangs on a hook.
pub struct BaseChain {
    pub name: &'static str,
    pub kind: &'static str,
    pub hook: u32,
    pub priority: i32,
}

/// A transaction being written. The kernel takes all of it or nothing.
pub struct Transaction {
    message: Message,
    sequence: u32,
    set_id: u32,
}

impl Transaction {
    pub fn begin(sequence: u32) -> Self {
        let mut message = Message::new();
        message.begin(BATCH_BEGIN, 0, sequence, &[0, 0, 0, SUBSYSTEM as u8]);
        Self { message, sequence, set_id: 0 }
    }

    /// The bytes, and the sequence number whose acknowledgement means success.
    pub fn finish(mut self) -> (Message, u32) {
        // Acknowledging the end mark itself is newer than our oldest kernel, so the last message before it bears it.
        self.message.add_flags(NLM_F_ACK);
        let acknowledged = self.sequence;
        self.message.begin(BATCH_END, 0, self.sequence.wrapping_add(1), &[0, 0, 0, SUBSYSTEM as u8]);
        (self.message, acknowledged)
    }

    fn add(&mut self, kind: u16, flags: u16) -> &mut Message {
        self.sequence = self.sequence.wrapping_add(1);
        self.message.begin(SUBSYSTEM << 8 | kind, flags, self.sequence, &[NFPROTO_IPV4, 0, 0, 0])
    }

    pub fn new_table(&mut self) {
        self.add(NEW_TABLE, NLM_F_CREATE).string(1, TABLE).be32(2, 0);
    }

    pub fn delete_table(&mut self) {
        self.add(DEL_TABLE, 0).string(1, TABLE);
    }

    pub fn new_base_chain(&mut self, chain: &BaseChain) {
        let message = self.add(NEW_CHAIN, NLM_F_CREATE);
        message.string(1, TABLE).string(3, chain.name);
        message.nest(4, |m| {
            m.be32(1, chain.hook).bytes(2, &chain.priority.to_be_bytes());
        });
        message.be32(5, 1).string(7, chain.kind);
    }

    pub fn new_chain(&mut self, name: &str) {
        self.add(NEW_CHAIN, NLM_F_CREATE).string(1, TABLE).string(3, name);
    }

    pub fn new_rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Rule<'_>)) {
        let message = self.add(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        message.string(1, TABLE).string(2, chain).nest(4, |m| expressions(&mut Rule(m)));
    }

    pub fn new_set(&mut self, set: &SetSpec) {
        self.set_id += 1;
        let id = self.set_id;
        let message = self.add(NEW_SET, NLM_F_CREATE);
        let flags = match set.kind {
            SetKind::Plain => 0,
            SetKind::Verdicts | SetKind::Targets => SET_MAP,
            SetKind::Sticky => SET_MAP | SET_TIMEOUT | SET_EVAL,
        };
        message.string(1, TABLE).string(2, set.name).be32(3, flags);
        message.be32(4, set.key_type).be32(5, set.key_bytes).be32(10, id);
        match set.kind {
            SetKind::Plain => {}
            SetKind::Verdicts => {
                message.be32(6, DATA_VERDICT);
            }
            SetKind::Targets | SetKind::Sticky => {
                message.be32(6, concatenation(&[TYPE_ADDRESS, TYPE_PORT])).be32(7, 8);
            }
        }
        if let SetKind::Sticky = set.kind {
            message.nest(9, |m| {
                m.be32(1, STICKY_ELEMENTS_MAX);
            });
        }
    }

    pub fn add_elements<T>(&mut self, set: &str, elements: &[T], encode: impl Fn(&mut Element<'_>, &T)) {
        self.elements(NEW_ELEMENTS, NLM_F_CREATE, set, elements, encode);
    }

    pub fn remove_elements<T>(&mut self, set: &str, elements: &[T], encode: impl Fn(&mut Element<'_>, &T)) {
        self.elements(DEL_ELEMENTS, 0, set, elements, encode);
    }

    fn elements<T>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: &[T],
        encode: impl Fn(&mut Element<'_>, &T),
    ) {
        for chunk in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.add(kind, flags).string(1, TABLE).string(2, set).nest(3, |m| {
                for element in chunk {
                    m.nest(1, |m| encode(&mut Element(m), element));
                }
            });
        }
    }
}

/// One set element being written.
pub struct Element<'a>(&'a mut Message);

impl Element<'_> {
    pub fn key(&mut self, key: &[u8]) {
        self.0.nest(1, |m| {
            m.bytes(1, key);
        });
    }

    pub fn target(&mut self, target: &Target) {
        self.0.nest(2, |m| {
            m.bytes(1, &target_bytes(target));
        });
    }

    pub fn goto(&mut self, chain: &str) {
        self.0.nest(2, |m| {
            m.nest(2, |m| {
                m.bytes(1, &GOTO.to_be_bytes()).string(2, chain);
            });
        });
    }
}

/// A key as packets spell it: every part padded to four bytes.
pub fn tuple_key(tuple: &Tuple) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&tuple.address.octets());
    key[4] = tuple.protocol.number();
    key[8..10].copy_from_slice(&tuple.port.to_be_bytes());
    key
}

/// The slot number is in the machine's own order, as `numgen` draws it.
pub fn slot_key((tuple, slot): &(Tuple, u32)) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&tuple_key(tuple));
    key[12..].copy_from_slice(&slot.to_ne_bytes());
    key
}

pub fn hairpin_key(address: &Ipv4Addr) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&address.octets());
    key[4..].copy_from_slice(&address.octets());
    key
}

pub fn target_bytes((address, port): &Target) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&address.octets());
    bytes[4..6].copy_from_slice(&port.to_be_bytes());
    bytes
}

/// A rule being written: expressions in the order they run. Registers are the 4-byte ones, from 8 on.
pub struct Rule<'a>(&'a mut Message);

pub const VERDICT: u32 = 0;

impl Rule<'_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Message)) -> &mut Self {
        self.0.nest(1, |m| {
            m.string(1, name).nest(2, data);
        });
        self
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.expression("payload", |m| {
            m.be32(1, register).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    pub fn source(&mut self, register: u32) -> &mut Self {
        self.payload(1, 12, 4, register)
    }

    pub fn destination(&mut self, register: u32) -> &mut Self {
        self.payload(1, 16, 4, register)
    }

    /// Destination address, protocol and port in three registers.
    pub fn tuple(&mut self, register: u32) -> &mut Self {
        self.destination(register).protocol(register + 1).payload(2, 2, 2, register + 2)
    }

    pub fn protocol(&mut self, register: u32) -> &mut Self {
        const L4PROTO: u32 = 16;
        self.load_meta(L4PROTO, register)
    }

    fn load_meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |m| {
            m.be32(1, register).be32(2, key);
        })
    }

    pub fn load_mark(&mut self, register: u32) -> &mut Self {
        self.load_meta(3, register)
    }

    pub fn set_mark(&mut self, mark: u32) -> &mut Self {
        self.expression("immediate", |m| {
            m.be32(1, 8).nest(2, |m| {
                m.bytes(1, &mark.to_ne_bytes());
            });
        })
        .expression("meta", |m| {
            m.be32(2, 3).be32(3, 8);
        })
    }

    pub fn out_link(&mut self, name: &str) -> &mut Self {
        let mut padded = [0u8; 16];
        let length = name.len().min(15);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        // A name takes four registers, from number 1 (16 bytes wide) on.
        self.load_meta(7, 1).compare(1, true, &padded)
    }

    /// Goes on if the connection is in one of the states (bits).
    pub fn connection_state(&mut self, states: u32) -> &mut Self {
        self.connection(0, states).compare(8, false, &[0; 4])
    }

    /// Goes on if the connection's destination was not translated.
    pub fn untranslated(&mut self) -> &mut Self {
        const DESTINATION_TRANSLATED: u32 = 0x20;
        self.connection(2, DESTINATION_TRANSLATED).compare(8, true, &[0; 4])
    }

    fn connection(&mut self, key: u32, mask: u32) -> &mut Self {
        self.expression("ct", |m| {
            m.be32(1, 8).be32(2, key);
        })
        .mask(8, &mask.to_ne_bytes())
    }

    pub fn mask(&mut self, register: u32, mask: &[u8; 4]) -> &mut Self {
        self.expression("bitwise", |m| {
            m.be32(1, register).be32(2, register).be32(3, 4);
            m.nest(4, |m| {
                m.bytes(1, mask);
            });
            m.nest(5, |m| {
                m.bytes(1, &[0; 4]);
            });
        })
    }

    pub fn compare(&mut self, register: u32, equal: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |m| {
            m.be32(1, register).be32(2, u32::from(!equal)).nest(3, |m| {
                m.bytes(1, value);
            });
        })
    }

    /// Goes on only if the key is in the set.
    pub fn member(&mut self, set: &str, key: u32) -> &mut Self {
        self.expression("lookup", |m| {
            m.string(1, set).be32(2, key);
        })
    }

    /// Loads what the map holds for the key; goes on only if it holds something.
    pub fn lookup(&mut self, map: &str, key: u32, into: u32) -> &mut Self {
        self.expression("lookup", |m| {
            m.string(1, map).be32(2, key).be32(3, into);
        })
    }

    pub fn draw(&mut self, below: u32, register: u32) -> &mut Self {
        self.expression("numgen", |m| {
            m.be32(1, register).be32(2, below).be32(3, 1).be32(4, 0);
        })
    }

    /// Remembers data under the key, or remembers it for longer.
    pub fn remember(&mut self, map: &str, key: u32, data: u32, seconds: u32) -> &mut Self {
        self.expression("dynset", |m| {
            m.string(1, map).be32(3, 1).be32(4, key).be32(5, data);
            m.bytes(6, &(u64::from(seconds) * 1000).to_be_bytes());
        })
    }

    pub fn translate(&mut self, target: u32) -> &mut Self {
        self.expression("nat", |m| {
            m.be32(1, 1).be32(2, u32::from(NFPROTO_IPV4)).be32(3, target).be32(5, target + 1);
        })
    }

    pub fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| ())
    }

    pub fn reject_with_reset(&mut self) -> &mut Self {
        self.expression("reject", |m| {
            m.be32(1, 1).u8(2, 0);
        })
    }

    pub fn reject_with_port_unreachable(&mut self) -> &mut Self {
        self.expression("reject", |m| {
            m.be32(1, 0).u8(2, 3);
        })
    }

    pub fn goto(&mut self, chain: &str) -> &mut Self {
        self.expression("immediate", |m| {
            m.be32(1, VERDICT).nest(2, |m| {
                m.nest(2, |m| {
                    m.bytes(1, &GOTO.to_be_bytes()).string(2, chain);
                });
            });
        })
    }
}
