//! An answer on its way through a proxy: a page has its links changed as it streams by, packed or not; anything else passes
//! untouched.

use std::io::{self, Write};

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder};
use http_body_util::BodyExt;

use super::html::Pages;
use super::links::Links;
use crate::http::body::{Body, BoxError, stream};
use crate::http::respond::Answer;

/// What is unpacked in one go: a packed page may hold a thousand times as much.
const PIECE_BYTES: usize = 4 << 10;

/// A page as it comes, packed the same way again.
enum Packed {
    Plain(Pages<Vec<u8>>),
    Gzip(Box<MultiGzDecoder<Pages<GzEncoder<Vec<u8>>>>>),
    Deflate(Box<DeflateDecoder<Pages<DeflateEncoder<Vec<u8>>>>>),
}

impl Packed {
    fn new(encoding: &str, links: Links) -> Option<Self> {
        let out = Vec::new();
        Some(match encoding {
            "" | "identity" => Self::Plain(Pages::new(links, out)),
            "gzip" => {
                let pages = Pages::new(links, GzEncoder::new(out, Compression::fast()));
                Self::Gzip(Box::new(MultiGzDecoder::new(pages)))
            }
            "deflate" => {
                let pages = Pages::new(links, DeflateEncoder::new(out, Compression::fast()));
                Self::Deflate(Box::new(DeflateDecoder::new(pages)))
            }
            _ => return None,
        })
    }

    /// What can be sent on once this has come.
    fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Plain(pages) => {
                pages.write_all(piece)?;
                pages.inner()
            }
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                decoder.get_mut().inner().get_mut()
            }
            Self::Deflate(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                decoder.get_mut().inner().get_mut()
            }
        };
        Ok(Bytes::from(std::mem::take(out)))
    }

    fn finish(self) -> io::Result<Bytes> {
        let rest = match self {
            Self::Plain(pages) => pages.finish()?,
            Self::Gzip(decoder) => decoder.finish()?.finish()?.finish()?,
            Self::Deflate(decoder) => decoder.finish()?.finish()?.finish()?,
        };
        Ok(Bytes::from(rest))
    }
}

/// Changes the links of an answer that is a page.
pub fn through(answer: Answer, links: &Links) -> Answer {
    let header = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("text/html") {
        return answer;
    }
    let Some(packed) = Packed::new(header(CONTENT_ENCODING), links.clone()) else { return answer };
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    Answer::from_parts(parts, rewritten(body, packed))
}

/// Where the stream is: what has come and waits, and how to go on with it.
struct Passing {
    body: Body,
    waiting: Bytes,
    packed: Option<Packed>,
    begun: bool,
}

fn rewritten(body: Body, packed: Packed) -> Body {
    let start = Passing { body, waiting: Bytes::new(), packed: Some(packed), begun: false };
    stream(futures::stream::try_unfold(start, |mut passing| async move {
        loop {
            let Some(out) = passing.next().await? else { return Ok(None) };
            if !out.is_empty() {
                return Ok(Some((out, passing)));
            }
        }
    }))
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        let Some(packed) = &mut self.packed else { return Ok(None) };
        if self.waiting.is_empty() {
            match self.body.frame().await {
                Some(frame) => self.waiting = frame?.into_data().unwrap_or_default(),
                None => {
                    // An answer without a body has none packed either.
                    let packed = self.packed.take().filter(|_| self.begun);
                    return Ok(packed.map(Packed::finish).transpose()?);
                }
            }
        }
        self.begun |= !self.waiting.is_empty();
        let piece = self.waiting.split_to(self.waiting.len().min(PIECE_BYTES));
        Ok(Some(packed.push(&piece)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use ::http::{HeaderValue, Response};
    use flate2::read::{DeflateDecoder, GzDecoder};

    use super::*;
    use crate::http::body::{full, read};

    const PAGE: &str = "<a href=\"/x\">text</a>";

    async fn passed(encoding: &'static str, media_type: &'static str, body: Vec<u8>) -> (bool, Vec<u8>) {
        let mut answer = Response::new(full(body));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("1"));
        if !encoding.is_empty() {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let links = Links::new("/p".to_owned(), Vec::new(), None);
        let (parts, body) = through(answer, &links).into_parts();
        let body = read(body, 1 << 24).await.ok().expect("a body");
        (parts.headers.contains_key(CONTENT_LENGTH), body.to_vec())
    }

    fn packed<W: Write>(mut encoder: W, finish: impl FnOnce(W) -> io::Result<Vec<u8>>) -> Vec<u8> {
        encoder.write_all(PAGE.as_bytes()).expect("packs");
        finish(encoder).expect("packs")
    }

    #[tokio::test]
    async fn pages_in_every_packing() {
        let expected = PAGE.replace("/x", "/p/x");
        let plain = passed("", "text/html; charset=utf-8", PAGE.into()).await;
        assert_eq!(plain, (false, expected.clone().into()));
        let gzip = packed(GzEncoder::new(Vec::new(), Compression::best()), GzEncoder::finish);
        let mut text = String::new();
        let (_, body) = passed("gzip", "text/html", gzip.clone()).await;
        GzDecoder::new(&body[..]).read_to_string(&mut text).expect("unpacks");
        assert_eq!(text, expected);
        let deflate = packed(DeflateEncoder::new(Vec::new(), Compression::best()), DeflateEncoder::finish);
        let mut text = String::new();
        let (_, body) = passed("deflate", "text/html", deflate).await;
        DeflateDecoder::new(&body[..]).read_to_string(&mut text).expect("unpacks");
        assert_eq!(text, expected);
        assert_eq!(passed("br", "text/html", gzip.clone()).await, (true, gzip));
        assert_eq!(passed("gzip", "text/html", Vec::new()).await, (false, Vec::new()));
    }

    #[tokio::test]
    async fn anything_else_passes() {
        assert_eq!(passed("", "text/plain", PAGE.into()).await, (true, PAGE.into()));
        assert_eq!(passed("", "application/xhtml+xml", PAGE.into()).await, (true, PAGE.into()));
    }

    /// What is no gzip, though it says so, breaks off.
    #[tokio::test]
    async fn what_cannot_be_unpacked_breaks_off() {
        let packed = Packed::new("gzip", Links::new("/p".to_owned(), Vec::new(), None)).expect("known");
        let body = rewritten(full(PAGE), packed);
        assert!(read(body, 1 << 20).await.is_err());
    }
}
