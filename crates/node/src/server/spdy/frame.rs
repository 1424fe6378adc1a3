//! Frames: reading and writing them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FLAG_FIN: u8 = 1;
/// A length is 24 bits wide; nobody we talk to sends more than this at once.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a SPDY frame of version {0}")]
    Version(u16),
    #[error("a SPDY frame of {0} bytes")]
    Large(usize),
    #[error("a SPDY frame that is too short")]
    Short,
    #[error("a SPDY header block that cannot be read")]
    Headers,
}

/// A frame as it came. Header blocks are still compressed: they must be read in order, whether wanted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Open { stream: u32, block: Vec<u8>, fin: bool },
    Headers { block: Vec<u8> },
    Data { stream: u32, data: Vec<u8>, fin: bool },
    Reset { stream: u32 },
    Ping { id: u32 },
    GoAway,
    Other,
}

/// The next frame; `None` at the end of the connection.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, FrameError> {
    let mut head = [0; 8];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = usize::try_from(u32::from_be_bytes([0, head[5], head[6], head[7]])).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Large(length));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    let fin = flags & FLAG_FIN != 0;
    if word >> 31 == 0 {
        return Ok(Some(Frame::Data { stream: word, data: payload, fin }));
    }
    let version = u16::try_from(word >> 16 & 0x7fff).unwrap_or(0);
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = u16::try_from(word & 0xffff).unwrap_or(0);
    control(kind, fin, payload).map(Some)
}

fn control(kind: u16, fin: bool, mut payload: Vec<u8>) -> Result<Frame, FrameError> {
    let number = |payload: &[u8]| -> Result<u32, FrameError> {
        Ok(u32::from_be_bytes(*payload.first_chunk::<4>().ok_or(FrameError::Short)?))
    };
    let mut block = |from: usize| {
        if payload.len() < from { Err(FrameError::Short) } else { Ok(payload.split_off(from)) }
    };
    Ok(match kind {
        SYN_STREAM => {
            let block = block(10)?;
            Frame::Open { stream: number(&payload)? & 0x7fff_ffff, block, fin }
        }
        SYN_REPLY | HEADERS => Frame::Headers { block: block(4)? },
        RST_STREAM => Frame::Reset { stream: number(&payload)? & 0x7fff_ffff },
        PING => Frame::Ping { id: number(&payload)? },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

fn encode(word: u32, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(8 + length);
    frame.extend(word.to_be_bytes());
    frame.push(flags);
    frame.extend(&u32::try_from(length).unwrap_or(0).to_be_bytes()[1..]);
    parts.iter().for_each(|part| frame.extend(*part));
    frame
}

fn control_word(kind: u16) -> u32 {
    1 << 31 | u32::from(VERSION) << 16 | u32::from(kind)
}

pub fn data(stream: u32, data: &[u8], fin: bool) -> Vec<u8> {
    encode(stream, if fin { FLAG_FIN } else { 0 }, &[data])
}

pub fn reply(stream: u32, block: &[u8]) -> Vec<u8> {
    encode(control_word(SYN_REPLY), 0, &[&stream.to_be_bytes(), block])
}

pub fn ping(id: u32) -> Vec<u8> {
    encode(control_word(PING), 0, &[&id.to_be_bytes()])
}

pub fn reset(stream: u32, status: u32) -> Vec<u8> {
    encode(control_word(RST_STREAM), 0, &[&stream.to_be_bytes(), &status.to_be_bytes()])
}

/// For tests that play the client.
#[cfg(test)]
pub fn open(stream: u32, block: &[u8], fin: bool) -> Vec<u8> {
    let flags = if fin { FLAG_FIN } else { 0 };
    encode(control_word(SYN_STREAM), flags, &[&stream.to_be_bytes(), &[0; 6], block])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_round_trip() {
        let bytes = [open(3, b"block", true), data(3, b"hello", false), ping(9), reset(3, 5)].concat();
        let mut from = &bytes[..];
        let mut frames = Vec::new();
        while let Some(frame) = read(&mut from).await.expect("reads") {
            frames.push(frame);
        }
        let expected = [
            Frame::Open { stream: 3, block: b"block".to_vec(), fin: true },
            Frame::Data { stream: 3, data: b"hello".to_vec(), fin: false },
            Frame::Ping { id: 9 },
            Frame::Reset { stream: 3 },
        ];
        assert_eq!(frames, expected);
        assert!(read(&mut &[0x80, 2, 0, 1, 0, 0, 0, 0][..]).await.is_err());
        assert!(read(&mut &[0x80, 3, 0, 1, 0, 0, 0, 1, 0][..]).await.is_err());
    }
}
