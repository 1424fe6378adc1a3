//! Header blocks: names and values in one zlib stream a direction, begun with the dictionary of the SPDY/3 specification.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::frame::FrameError;

/// A block of headers is a few short words here; more is an attack.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: u32 = 256;

/// The words of the dictionary that are preceded by their length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// And what follows them.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,\
    sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS.split_ascii_whitespace() {
        let word = word.replace('_', " ");
        all.extend(u32::try_from(word.len()).unwrap_or(0).to_be_bytes());
        all.extend(word.as_bytes());
    }
    all.extend(REST.as_bytes());
    all
}

pub type Headers = Vec<(String, String)>;

/// Reads the blocks of one direction, in order.
pub struct HeaderReader(Decompress);

impl HeaderReader {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn read(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let plain = self.inflate(block)?;
        let mut rest = &plain[..];
        let number = |rest: &mut &[u8]| -> Option<u32> {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            *rest = tail;
            Some(u32::from_be_bytes(*head))
        };
        let text = |rest: &mut &[u8]| -> Option<String> {
            let length = usize::try_from(number(rest)?).ok()?;
            let (head, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            Some(String::from_utf8_lossy(head).into_owned())
        };
        let parse = |rest: &mut &[u8]| {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            *rest = tail;
            let count = u32::from_be_bytes(*head).min(HEADERS_MAX);
            (0..count)
                .map(|_| Some((text(rest)?.to_ascii_lowercase(), text(rest)?)))
                .collect::<Option<Headers>>()
        };
        parse(&mut rest).ok_or(FrameError::Headers)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity(1024);
        let mut at = 0;
        loop {
            let before = self.0.total_in();
            let result = self.0.decompress_vec(&block[at..], &mut out, FlushDecompress::Sync);
            at += usize::try_from(self.0.total_in() - before).unwrap_or(0);
            match result {
                Ok(_) if at >= block.len() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if out.capacity() >= BLOCK_BYTES_MAX => return Err(FrameError::Headers),
                Ok(_) => out.reserve(out.capacity()),
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
                }
                Err(_) => return Err(FrameError::Headers),
            }
        }
    }
}

/// Writes the blocks of one direction, in order.
pub struct HeaderWriter(Compress);

impl HeaderWriter {
    pub fn new() -> Result<Self, FrameError> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&dictionary()).map_err(|_| FrameError::Headers)?;
        Ok(Self(compress))
    }

    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::new();
        let number = |n: usize| u32::try_from(n).unwrap_or(0).to_be_bytes();
        plain.extend(number(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(number(text.len()));
            plain.extend(text.as_bytes());
        }
        // Small blocks only: what they grow by is far less than this.
        let mut out = Vec::with_capacity(plain.len() + 256);
        self.0.compress_vec(&plain, &mut out, FlushCompress::Sync).map_err(|_| FrameError::Headers)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_specifications() {
        let dictionary = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &dictionary {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        // The checksum that every SPDY/3 stream begins with.
        assert_eq!((dictionary.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let (mut writer, mut reader) = (HeaderWriter::new().expect("a writer"), HeaderReader::new());
        for number in ["1", "2", "3"] {
            let block = writer.write(&[("streamType", "data"), ("port", number)]).expect("writes");
            let read = reader.read(&block).expect("reads");
            assert_eq!(read, [("streamtype".into(), "data".into()), ("port".into(), number.to_owned())]);
        }
        assert!(reader.read(b"garbage").is_err());
    }
}
