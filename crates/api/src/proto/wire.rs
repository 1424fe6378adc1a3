//! The protobuf wire format: tags, varints, fixed and length-delimited fields.

pub(super) enum Entry<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or("unexpected end")?;
        self.rest = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)? else { return Err("unexpected end") };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a varint is too long")
    }

    fn entry(&mut self) -> Result<(u32, Entry<'a>), &'static str> {
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| "a field number is too large")?;
        let entry = match key & 7 {
            0 => Entry::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Entry::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| "unexpected end")?))
            }
            2 => {
                let length = self.varint()?;
                Entry::Bytes(self.take(usize::try_from(length).map_err(|_| "unexpected end")?)?)
            }
            5 => {
                self.take(4)?;
                Entry::Fixed32
            }
            _ => return Err("unknown wire type"),
        };
        Ok((tag, entry))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Entry<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

#[derive(Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

/// How long [`Writer::bytes`] makes so many bytes, with a tag below 16.
pub(super) fn length_of_bytes(length: usize) -> usize {
    let varint = length.checked_ilog2().map_or(1, |log| log as usize / 7 + 1);
    1 + varint + length
}

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Goes on behind what has been written.
    pub(super) fn after(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// What is encoded already.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        self.raw_varint(u64::from(tag) << 3);
        self.raw_varint(value);
    }

    /// Negative numbers take ten bytes, as `int32` and `int64` do.
    pub(super) fn signed(&mut self, tag: u32, value: i64) {
        self.varint(tag, value as u64);
    }

    pub(super) fn double(&mut self, tag: u32, value: f64) {
        self.raw_varint(u64::from(tag) << 3 | 1);
        self.out.extend(value.to_le_bytes());
    }

    /// Begins a message within; [`Writer::close`] takes what this gave.
    pub(super) fn open(&mut self, tag: u32) -> usize {
        self.raw_varint(u64::from(tag) << 3 | 2);
        self.out.push(0);
        self.out.len()
    }

    /// Puts the length of what was written since where it belongs. Mostly one byte holds it, which is kept free.
    pub(super) fn close(&mut self, open: usize) {
        let length = self.out.len() - open;
        let more = match length {
            0..0x80 => 0,
            _ => length.ilog2() as usize / 7,
        };
        if more > 0 {
            self.out.resize(open + length + more, 0);
            self.out.copy_within(open..open + length, open + more);
        }
        let mut rest = length;
        for byte in &mut self.out[open - 1..open + more] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[open + more - 1] &= 0x7f;
    }

    /// JSON text.
    pub(super) fn json(&mut self, tag: u32, value: &serde_json::Value) {
        let open = self.open(tag);
        // Writing to memory cannot fail, and neither can a value that was read from JSON.
        drop(serde_json::to_writer(&mut self.out, value));
        self.close(open);
    }

    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.head(tag, value.len());
        self.out.extend_from_slice(value);
    }

    /// What stands before a message or string of a length that is known.
    pub(super) fn head(&mut self, tag: u32, length: usize) {
        self.raw_varint(u64::from(tag) << 3 | 2);
        self.raw_varint(length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_within_have_the_length_that_was_written() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000, 2_097_151, 2_097_152] {
            let body = vec![7u8; length];
            let mut foretold = Writer::default();
            foretold.bytes(15, &body);
            assert_eq!(foretold.finish().len(), length_of_bytes(length));
            let mut writer = Writer::default();
            let outer = writer.open(3);
            writer.bytes(1, &body);
            writer.close(outer);
            let mut inner = Writer::default();
            inner.bytes(1, &body);
            let mut expected = Writer::default();
            expected.bytes(3, &inner.finish());
            assert!(writer.finish() == expected.finish(), "{length}");
        }
    }
}
