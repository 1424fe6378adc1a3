//! The name server over real sockets inside a namespace, asked by an attachment.

mod lab;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lab::{DNS, Lab};
use net::dns::{DnsConfig, DnsServer, Records, Upstream};
use net::namespace::Namespace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

async fn ask_udp(from: &Namespace, server: SocketAddr, message: &Message) -> Message {
    let socket = from.bind_udp("0.0.0.0:0".parse().expect("an address")).await.expect("binds");
    socket.send_to(&message.to_vec().expect("encodes"), server).await.expect("sends");
    let mut buffer = vec![0; 65_535];
    let length =
        timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("in time").expect("reads");
    Message::from_vec(&buffer[..length]).expect("decodes")
}

async fn ask_tcp(from: &Namespace, server: SocketAddr, messages: &[Message]) -> Vec<Message> {
    let mut stream = from.connect_tcp(server).await.expect("connects");
    let mut answers = Vec::new();
    for message in messages {
        let bytes = message.to_vec().expect("encodes");
        stream.write_u16(u16::try_from(bytes.len()).expect("short")).await.expect("writes");
        stream.write_all(&bytes).await.expect("writes");
        let length =
            timeout(Duration::from_secs(5), stream.read_u16()).await.expect("in time").expect("reads");
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.expect("reads");
        answers.push(Message::from_vec(&answer).expect("decodes"));
    }
    answers
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

fn records() -> Records {
    let mut records = Records::new("cluster.local");
    records.add_name("web.ns.svc.cluster.local", [IpAddr::from([10, 43, 0, 80])]);
    records.add_srv("_http._tcp.web.ns.svc.cluster.local", 80, "web.ns.svc.cluster.local");
    records.add_ptr(IpAddr::from([10, 43, 0, 80]), "web.ns.svc.cluster.local");
    records.add_name("many.ns.svc.cluster.local", (0..100u8).map(|n| IpAddr::from([10, 42, 0, n])));
    records.add_cname("out.ns.svc.cluster.local", "example.test");
    records
}

/// Stands for somebody else's resolver: a second server of ours that owns another domain.
async fn foreign(lab: &Lab) -> DnsServer {
    let mut records = Records::new("test");
    records.add_name("example.test", [IpAddr::from([192, 0, 2, 7])]);
    let config = DnsConfig {
        address: SocketAddr::from((lab::NODE, 5353)),
        reverse_ranges: vec![],
        upstream: Upstream::none(),
    };
    DnsServer::start(&lab.node, config, records).await.expect("starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_over_both_transports_and_foreign_ones_forwarded() {
    let lab = Lab::new().await;
    let client = lab.attach(1).await;
    let foreign = foreign(&lab).await;
    let config = DnsConfig {
        address: SocketAddr::from((DNS, 53)),
        reverse_ranges: vec!["10.43.0.0/16".parse().expect("a range")],
        upstream: Upstream { servers: vec![foreign.local_address()], namespace: lab.node.clone() },
    };
    let server = DnsServer::start(&lab.node, config, records()).await.expect("starts");
    let at = server.local_address();
    let cases = [
        ("web.ns.svc.cluster.local.", RecordType::A, ResponseCode::NoError, "10.43.0.80"),
        ("web.ns.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, ""),
        (
            "_http._tcp.web.ns.svc.cluster.local.",
            RecordType::SRV,
            ResponseCode::NoError,
            "0 100 80 web.ns.svc.cluster.local.",
        ),
        ("80.0.43.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NoError, "web.ns.svc.cluster.local."),
        ("web.cluster.local.", RecordType::A, ResponseCode::NXDomain, ""),
        ("example.test.", RecordType::A, ResponseCode::NoError, "192.0.2.7"),
        ("nothing.test.", RecordType::A, ResponseCode::NXDomain, ""),
        ("out.ns.svc.cluster.local.", RecordType::A, ResponseCode::NoError, "example.test. 192.0.2.7"),
        ("example.org.", RecordType::A, ResponseCode::Refused, ""),
    ];
    for (name, kind, code, expected) in cases {
        let asked = question(name, kind, Some(1232));
        let over_udp = ask_udp(&client, at, &asked).await;
        let over_tcp = ask_tcp(&client, at, &[asked.clone(), asked.clone()]).await;
        for answer in over_tcp.iter().chain([&over_udp]) {
            assert_eq!(
                (answer.metadata.response_code, data(answer).join(" ").as_str()),
                (code, expected),
                "{name} {kind}"
            );
            assert_eq!(answer.metadata.id, asked.metadata.id);
        }
    }
    // What does not fit a plain datagram is cut, fits a larger one, and TCP carries anything.
    let many = |payload| question("many.ns.svc.cluster.local.", RecordType::A, payload);
    let cut = ask_udp(&client, at, &many(None)).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(ask_udp(&client, at, &many(Some(4096))).await.answers.len(), 100);
    assert_eq!(ask_tcp(&client, at, &[many(None)]).await[0].answers.len(), 100);

    let mut changed = records();
    changed.add_name("new.ns.svc.cluster.local", [IpAddr::from([10, 43, 0, 81])]);
    server.publisher().publish(changed);
    let asked = question("new.ns.svc.cluster.local.", RecordType::A, None);
    assert_eq!(data(&ask_udp(&client, at, &asked).await), ["10.43.0.81"]);
}
