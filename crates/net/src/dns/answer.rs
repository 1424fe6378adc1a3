//! Pure: from a question and the snapshot to an answer, or to the decision that somebody else must answer.

use std::str::FromStr;

use hickory_proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::records::{Entry, Records, normal, reversed};
use crate::ipam::Range;

/// Seconds a client may remember an answer, whether good or bad.
pub const TTL_SECONDS: u32 = 5;
/// What we accept in one datagram; larger ones are fragmented on common paths.
pub const UDP_PAYLOAD_MAX: u16 = 1232;
/// A chain of aliases longer than this is somebody's mistake.
const ALIASES_MAX: usize = 8;

pub enum Answer {
    Reply(Message),
    /// Not our name: ask upstream.
    Forward,
    /// Our alias of a name that is not ours: complete the reply from upstream.
    Complete {
        reply: Message,
        target: String,
    },
}

/// `reverse` are the address ranges whose reverse names are ours. `turn` rotates the order of addresses.
pub fn answer(records: &Records, reverse: &[Range], query: &Message, turn: usize) -> Answer {
    let mut reply = reply_to(query);
    let [question] = &query.queries[..] else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Answer::Reply(reply);
    };
    if query.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        reply.metadata.response_code = ResponseCode::NotImp;
        return Answer::Reply(reply);
    }
    let mut name = normal(&question.name().to_ascii());
    let ours = records.owns(&name)
        || records.get(&name).is_some()
        || reversed(&name).is_some_and(|address| reverse.iter().any(|range| range.contains(address)));
    if !ours {
        return Answer::Forward;
    }
    reply.metadata.authoritative = true;
    let mut owner = question.name().clone();
    for _ in 0..ALIASES_MAX {
        let Some(entry) = records.get(&name) else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            break;
        };
        let alias = entry.cname.as_ref().filter(|_| question.query_type() != RecordType::CNAME);
        let Some(alias) = alias else {
            add_data(&mut reply, &owner, &entry, question.query_type(), records, turn);
            break;
        };
        let Some(target) = name_of(alias) else { break };
        reply.add_answer(Record::from_rdata(owner, TTL_SECONDS, RData::CNAME(CNAME(target.clone()))));
        if !records.owns(alias) {
            return Answer::Complete { reply, target: alias.clone() };
        }
        (name, owner) = (alias.clone(), target);
    }
    if reply.answers.is_empty() {
        reply.add_authority(authority(records));
    }
    Answer::Reply(reply)
}

/// An empty reply to `query`, with EDNS if the asker speaks it.
pub fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_PAYLOAD_MAX);
        reply.set_edns(edns);
    }
    reply
}

fn add_data(
    reply: &mut Message,
    owner: &Name,
    entry: &Entry,
    kind: RecordType,
    records: &Records,
    turn: usize,
) {
    let wants = |k| kind == k || kind == RecordType::ANY;
    let mut add = |data| {
        reply.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data));
    };
    if wants(RecordType::A) {
        rotated(&entry.a, turn).for_each(|address| add(RData::A(A(*address))));
    }
    if wants(RecordType::AAAA) {
        rotated(&entry.aaaa, turn).for_each(|address| add(RData::AAAA(AAAA(*address))));
    }
    if wants(RecordType::PTR) {
        entry.ptr.iter().filter_map(|n| name_of(n)).for_each(|name| add(RData::PTR(PTR(name))));
    }
    if wants(RecordType::TXT) {
        entry.txt.iter().for_each(|text| add(RData::TXT(TXT::new(vec![text.clone()]))));
    }
    if kind == RecordType::CNAME
        && let Some(target) = entry.cname.as_deref().and_then(name_of)
    {
        add(RData::CNAME(CNAME(target)));
    }
    if kind == RecordType::SOA && owner.to_lowercase().to_ascii().trim_end_matches('.') == records.domain() {
        reply.add_answer(authority(records));
    } else if wants(RecordType::SRV) {
        add_srv(reply, owner, entry, records);
    }
}

/// Service records, and the addresses of their targets as additional records.
fn add_srv(reply: &mut Message, owner: &Name, entry: &Entry, records: &Records) {
    let share = u16::try_from(100 / entry.srv.len().max(1)).unwrap_or(1).max(1);
    for srv in &entry.srv {
        let Some(target) = name_of(&srv.target) else { continue };
        let data = RData::SRV(SRV::new(0, share, srv.port, target.clone()));
        reply.add_answer(Record::from_rdata(owner.clone(), TTL_SECONDS, data));
        let addresses = records.get(&srv.target).map(|e| e.a.clone()).unwrap_or_default();
        for address in addresses {
            let record = Record::from_rdata(target.clone(), TTL_SECONDS, RData::A(A(address)));
            if !reply.additionals.contains(&record) {
                reply.add_additional(record);
            }
        }
    }
}

fn rotated<T>(items: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let start = if items.is_empty() { 0 } else { turn % items.len() };
    items[start..].iter().chain(&items[..start])
}

fn authority(records: &Records) -> Record {
    let name = |front: &str| name_of(&format!("{front}{}", records.domain())).unwrap_or_else(Name::root);
    let soa = SOA::new(name("ns.dns."), name("hostmaster."), 1, 7200, 1800, 86_400, TTL_SECONDS);
    Record::from_rdata(name(""), TTL_SECONDS, RData::SOA(soa))
}

pub fn name_of(text: &str) -> Option<Name> {
    let mut name = Name::from_str(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The wire form, within `limit` bytes: a reply that does not fit is cut, so that the asker turns to TCP.
pub fn encode(reply: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    // Additional records are a courtesy; without them it may fit.
    let mut bare = reply.clone();
    bare.additionals.clear();
    let bytes = bare.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use std::net::IpAddr;

    fn records() -> Records {
        let mut records = Records::new("cluster.local");
        records.add_name("web.ns.svc.cluster.local", [IpAddr::from([10, 43, 0, 5])]);
        records.add_srv("_http._tcp.web.ns.svc.cluster.local", 80, "web.ns.svc.cluster.local");
        records.add_ptr(IpAddr::from([10, 43, 0, 5]), "web.ns.svc.cluster.local");
        records.add_cname("out.ns.svc.cluster.local", "example.com");
        records.add_cname("in.ns.svc.cluster.local", "web.ns.svc.cluster.local");
        records
    }

    fn ask(name: &str, kind: RecordType) -> Answer {
        let mut query = Message::query();
        query.add_query(Query::query(name_of(name).expect("a name"), kind));
        answer(&records(), &["10.43.0.0/16".parse().expect("a range")], &query, 0)
    }

    fn summary(name: &str, kind: RecordType) -> String {
        match ask(name, kind) {
            Answer::Forward => "forward".into(),
            Answer::Complete { target, .. } => format!("complete {target}"),
            Answer::Reply(reply) => {
                let data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
                format!("{} [{}] {}", reply.metadata.response_code, data.join(", "), reply.authorities.len())
            }
        }
    }

    #[test]
    fn each_kind_of_question_gets_its_kind_of_answer() {
        let cases = [
            ("WEB.ns.svc.cluster.local", RecordType::A, "No Error [10.43.0.5] 0"),
            ("web.ns.svc.cluster.local", RecordType::AAAA, "No Error [] 1"),
            ("ns.svc.cluster.local", RecordType::A, "No Error [] 1"),
            ("nope.ns.svc.cluster.local", RecordType::A, "Non-Existent Domain [] 1"),
            (
                "_http._tcp.web.ns.svc.cluster.local",
                RecordType::SRV,
                "No Error [0 100 80 web.ns.svc.cluster.local.] 0",
            ),
            ("5.0.43.10.in-addr.arpa", RecordType::PTR, "No Error [web.ns.svc.cluster.local.] 0"),
            ("6.0.43.10.in-addr.arpa", RecordType::PTR, "Non-Existent Domain [] 1"),
            ("1.1.1.1.in-addr.arpa", RecordType::PTR, "forward"),
            ("example.com", RecordType::A, "forward"),
            ("out.ns.svc.cluster.local", RecordType::A, "complete example.com"),
            ("in.ns.svc.cluster.local", RecordType::A, "No Error [web.ns.svc.cluster.local., 10.43.0.5] 0"),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(summary(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let mut records = Records::new("cluster.local");
        let addresses = (0..200u8).map(|n| IpAddr::from([10, 0, 0, n]));
        records.add_name("many.cluster.local", addresses);
        let mut query = Message::query();
        query.add_query(Query::query(name_of("many.cluster.local").expect("a name"), RecordType::A));
        let Answer::Reply(reply) = answer(&records, &[], &query, 3) else { panic!("a reply") };
        assert_eq!(reply.answers[0].data.to_string(), "10.0.0.3");
        let cut = Message::from_vec(&encode(&reply, 512).expect("encodes")).expect("decodes");
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = Message::from_vec(&encode(&reply, 65_535).expect("encodes")).expect("decodes");
        assert_eq!(whole.answers.len(), 200);
    }
}
