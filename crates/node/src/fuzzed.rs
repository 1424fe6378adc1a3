//! What reads what others send, as functions of bytes: for fuzzers, and for the test that runs what they have kept.

use futures::FutureExt;

use crate::logs::Line;
use crate::server::spdy::frame::{self, Frame};
use crate::server::spdy::headers::HeaderReader;
use crate::server::websocket::{Channels, parse_size};

pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[("spdy", spdy), ("channels", channels)];

/// The frames of a connection and the headers in them, in their order.
fn spdy(data: &[u8]) {
    let (mut rest, mut headers) = (data, HeaderReader::new());
    while let Some(Ok(Some(frame))) = frame::read(&mut rest).now_or_never() {
        if let Frame::Open { block, .. } | Frame::Headers { block } = frame
            && headers.read(&block).is_err()
        {
            return;
        }
    }
}

/// A message of a WebSocket in each protocol, a terminal's size, a line of a log.
fn channels(data: &[u8]) {
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io", "base64.channel.k8s.io", "channel.k8s.io", ""]
    {
        drop(Channels::of(protocol).split(data));
    }
    parse_size(data);
    Line::parse(data);
}
