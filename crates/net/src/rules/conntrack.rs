//! Forgetting datagram flows. A UDP client that keeps its port is one flow to the kernel for as long as it talks, and
//! would go on to a backend that is gone; TCP connections end by themselves and are left alone.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::compile::{Desired, Target, Tuple};
use super::model::Protocol;
use crate::netlink::{Message, NLM_F_DUMP, NetlinkError, NetlinkSocket, attributes_of};

const SUBSYSTEM: u16 = 1;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const FAMILY_HEADER: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;

/// Deletes the flows to `disturbed` UDP frontends whose backend is no longer theirs. Returns how many.
pub fn forget_flows(
    socket: &mut NetlinkSocket,
    disturbed: &BTreeSet<Tuple>,
    desired: &Desired,
) -> Result<usize, NetlinkError> {
    let udp: BTreeSet<Tuple> = disturbed.iter().filter(|t| t.protocol == Protocol::Udp).copied().collect();
    if udp.is_empty() {
        return Ok(0);
    }
    let sequence = socket.next_sequence();
    let mut request = Message::new();
    request.begin(GET, NLM_F_DUMP, sequence, &FAMILY_HEADER);
    let mut stale: Vec<Vec<u8>> = Vec::new();
    socket.dump("list flows", &request, sequence, |_, body| {
        stale.extend(stale_original(body.get(4..).unwrap_or(&[]), &udp, desired));
    })?;
    for original in &stale {
        let sequence = socket.next_sequence();
        let mut request = Message::new();
        request.begin(DELETE, 0, sequence, &FAMILY_HEADER).nest(TUPLE_ORIGINAL, |m| {
            m.raw(original);
        });
        match socket.request("forget a flow", &mut request, sequence) {
            Err(error) if !error.is(libc::ENOENT) => return Err(error),
            // One that ended meanwhile is forgotten already.
            _ => {}
        }
    }
    Ok(stale.len())
}

/// The original tuple's bytes, if this flow is to be forgotten.
fn stale_original(flow: &[u8], udp: &BTreeSet<Tuple>, desired: &Desired) -> Option<Vec<u8>> {
    let part = |kind| attributes_of(flow).find(|(k, _)| *k == kind).map(|(_, value)| value);
    let original = part(TUPLE_ORIGINAL)?;
    let (protocol, _, (address, port)) = ends_of(original)?;
    let tuple = Tuple { address, protocol: Protocol::Udp, port };
    if protocol != Protocol::Udp.number() || !udp.contains(&tuple) {
        return None;
    }
    let (_, answering, _) = ends_of(part(TUPLE_REPLY)?)?;
    let current = desired.targets(tuple).any(|(_, target)| target == answering);
    (!current).then(|| original.to_vec())
}

/// Protocol, source and destination of a flow's tuple.
fn ends_of(tuple: &[u8]) -> Option<(u8, Target, Target)> {
    let find = |bytes, kind| attributes_of(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value);
    let (ip, protocol) = (find(tuple, 1)?, find(tuple, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(find(protocol, kind)?.try_into().ok()?));
    Some((*find(protocol, 1)?.first()?, (address(1)?, port(2)?), (address(2)?, port(3)?)))
}
