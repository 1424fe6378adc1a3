//! Writing and reading netlink messages: a header, a family header, and nested attributes, all in one buffer.

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 16;

/// One or more messages being written; a batch is simply several of them in a row.
#[derive(Default)]
pub struct Message {
    buffer: Vec<u8>,
    /// Where the message being written begins.
    start: usize,
}

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a message; the sequence number is what an acknowledgement will carry.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32, family_header: &[u8]) -> &mut Self {
        self.pad();
        self.start = self.buffer.len();
        self.buffer.extend_from_slice(&0u32.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&0u32.to_ne_bytes());
        self.buffer.extend_from_slice(family_header);
        self.seal();
        self
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.pad();
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&value[..usize::from(length) - 4]);
        self.seal();
        self
    }

    pub fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// nf_tables speaks network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        self.pad();
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&0u16.to_ne_bytes());
        self.buffer.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        inner(self);
        self.pad();
        let length = u16::try_from(self.buffer.len() - at).unwrap_or(u16::MAX);
        self.buffer[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.seal();
        self
    }

    /// Raw bytes inside a nest, for the family header of a veth's peer.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self.seal();
        self
    }

    /// Adds flags to the message written last (the acknowledgement of a batch hangs on its last message).
    pub fn add_flags(&mut self, flags: u16) {
        let at = self.start + 6;
        let old = u16::from_ne_bytes([self.buffer[at], self.buffer[at + 1]]);
        self.buffer[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
        self.seal();
    }

    fn seal(&mut self) {
        if self.buffer.len() >= self.start + HEADER_LEN {
            let length = u32::try_from(self.buffer.len() - self.start).unwrap_or(u32::MAX);
            self.buffer[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// The header of a received message.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub length: usize,
    pub kind: u16,
    pub sequence: u32,
}

/// The header at the front of `bytes`, if a whole message is there.
pub fn header_of(bytes: &[u8]) -> Option<Header> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(word(0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (length >= HEADER_LEN && length <= bytes.len()).then_some(Header { length, kind, sequence: word(8)? })
}

/// Iterates `(type, value)` of a run of attributes.
pub struct Attributes<'a>(&'a [u8]);

pub fn attributes_of(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nests_and_lengths_are_what_they_say() {
        let mut message = Message::new();
        message.begin(7, 0, 42, &[2, 0, 0, 0]).string(1, "ab").nest(2, |m| {
            m.u8(3, 9).u32(4, 5);
        });
        let header = header_of(message.as_bytes()).expect("a whole message");
        assert_eq!((header.length, header.kind, header.sequence), (message.as_bytes().len(), 7, 42));
        let attributes: Vec<_> = attributes_of(&message.as_bytes()[20..]).collect();
        assert_eq!(attributes[0], (1, &b"ab\0"[..]));
        let inner: Vec<_> = attributes_of(attributes[1].1).collect();
        assert_eq!(inner, [(3, &[9u8][..]), (4, &5u32.to_ne_bytes()[..])]);
    }
}
