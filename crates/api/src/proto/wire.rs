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

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.out
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

    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.raw_varint(u64::from(tag) << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }
}
