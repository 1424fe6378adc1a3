//! Attachments, translation and published ports between real namespaces.

mod lab;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lab::{Lab, NODE, VIRTUAL, attachment_address, backend, frontend, greet, read_greeting};
use net::attachment::{detach, host_link, remove_strays};
use net::forward::PublishedPorts;
use net::namespace::{Namespace, NamespaceError};
use net::rules::{Frontend, Protocol, Rules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

fn kind(result: Result<(u8, Ipv4Addr), NamespaceError>) -> ErrorKind {
    match result {
        Err(NamespaceError::Socket { source, .. }) => source.kind(),
        other => panic!("expected a refused connection, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_reach_each_other_and_the_node_and_nothing_else() {
    let mut lab = Lab::new().await;
    let started = Instant::now();
    let (one, two) = (lab.attach(1).await, lab.attach(2).await);
    let took = started.elapsed() / 2;
    assert!(took < Duration::from_millis(250), "{took:?} an attachment");
    eprintln!("{took:?} an attachment");
    lab.serve_tcp(&two, 2, 80).await;
    let node = lab.node.clone();
    lab.serve_tcp(&node, 9, 6443).await;
    assert_eq!(greet(&one, (attachment_address(2), 80)).await.expect("served"), (2, attachment_address(1)));
    assert_eq!(greet(&node, (attachment_address(2), 80)).await.expect("served"), (2, NODE));
    assert_eq!(greet(&one, (NODE, 6443)).await.expect("served"), (9, attachment_address(1)));
    for (from, to) in
        [(&one, attachment_address(77)), (&node, attachment_address(77)), (&one, Ipv4Addr::new(192, 0, 2, 1))]
    {
        assert!(matches!(
            kind(greet(from, (to, 80)).await),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
        ));
    }
    let port_range = one.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range"));
    assert_eq!(port_range.expect("runs").expect("reads"), "20000\t30000\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn detaching_twice_and_purging_leave_nothing() {
    let lab = Lab::new().await;
    lab.attach(1).await;
    lab.attach(1).await;
    lab.attach(2).await;
    let spec = lab.spec(1);
    for _ in 0..2 {
        detach(&lab.node, &spec.id, &spec.namespace_path).await.expect("goes away");
    }
    assert!(!spec.namespace_path.exists() && Namespace::open(&spec.namespace_path).is_err());
    assert_eq!(remove_strays(&lab.node, vec!["pod-2".into()]).await.expect("looks"), 0);
    assert_eq!(remove_strays(&lab.node, vec![]).await.expect("looks"), 1);
    let links = lab.node.run(|| std::fs::read_to_string("/proc/net/dev")).expect("runs").expect("reads");
    assert!(!links.contains(&host_link("pod-2")), "{links}");
    assert_eq!(Namespace::purge(&lab.directory).expect("purges"), 2);
    assert!(!lab.directory.exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("reads");
    assert!(!mounts.contains(lab.directory.to_str().expect("text")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frontend_spreads_over_its_backends_from_inside_and_from_the_node() {
    let mut lab = Lab::new().await;
    let mut guests = Vec::new();
    for number in 1..=3 {
        guests.push(lab.attach(number).await);
        lab.serve_tcp(&guests[usize::from(number) - 1], number, 8080).await;
    }
    let client = lab.attach(4).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    rules.apply(&[frontend(Protocol::Tcp, &[1, 2, 3])]).expect("applies");
    let mut counts: BTreeMap<u8, u32> = BTreeMap::new();
    for _ in 0..150 {
        let (number, seen) = greet(&client, (VIRTUAL, 80)).await.expect("served");
        assert_eq!(seen, attachment_address(4), "the source is kept");
        *counts.entry(number).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|n| (20..=90).contains(n)), "{counts:?}");
    for _ in 0..5 {
        assert_eq!(greet(&lab.node, (VIRTUAL, 80)).await.expect("served").1, NODE);
    }
    // A backend may meet itself.
    rules.apply(&[frontend(Protocol::Tcp, &[1])]).expect("applies");
    assert_eq!(greet(&guests[0], (VIRTUAL, 80)).await.expect("served").0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_to_serve_is_refused_at_once() {
    let lab = Lab::new().await;
    let client = lab.attach(1).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    let mut empty = frontend(Protocol::Tcp, &[]);
    empty.node_port = Some(30_080);
    rules.apply(&[empty]).expect("applies");
    let started = Instant::now();
    // The last port belongs to no frontend at all: the stray is refused too.
    for to in [(VIRTUAL, 80), (NODE, 30_080), (VIRTUAL, 81)] {
        for from in [&client, &lab.node] {
            assert_eq!(kind(greet(from, to).await), ErrorKind::ConnectionRefused, "{to:?}");
        }
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_survive_an_update_and_new_ones_never_go_to_a_removed_backend() {
    let mut lab = Lab::new().await;
    for number in 1..=3 {
        let guest = lab.attach(number).await;
        lab.serve_tcp(&guest, number, 8080).await;
    }
    let client = lab.attach(4).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    rules.apply(&[frontend(Protocol::Tcp, &[1])]).expect("applies");
    let mut old = client.connect_tcp((VIRTUAL, 80).into()).await.expect("connects");
    assert_eq!(read_greeting(&mut old).await.0, 1);
    rules.apply(&[frontend(Protocol::Tcp, &[2, 3])]).expect("applies");
    for _ in 0..40 {
        assert_ne!(greet(&client, (VIRTUAL, 80)).await.expect("served").0, 1);
    }
    rules.apply(&[]).expect("applies");
    old.write_all(b"still").await.expect("writes");
    let mut echo = [0; 5];
    timeout(Duration::from_secs(3), old.read_exact(&mut echo)).await.expect("in time").expect("reads");
    assert_eq!(&echo, b"still");
    assert_eq!(kind(greet(&client, (VIRTUAL, 80)).await), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_flow_leaves_a_removed_backend() {
    let mut lab = Lab::new().await;
    for number in 1..=2 {
        let guest = lab.attach(number).await;
        lab.serve_udp(&guest, number, 8080).await;
    }
    let client = lab.attach(4).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    let socket = client.bind_udp("0.0.0.0:0".parse().expect("an address")).await.expect("binds");
    for expected in [1, 2, 1] {
        rules.apply(&[frontend(Protocol::Udp, &[expected])]).expect("applies");
        socket.send_to(b"?", (VIRTUAL, 80)).await.expect("sends");
        let mut answer = [0];
        timeout(Duration::from_secs(3), socket.recv(&mut answer)).await.expect("in time").expect("reads");
        assert_eq!(answer[0], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_its_backend_until_that_is_gone() {
    let mut lab = Lab::new().await;
    for number in 1..=3 {
        let guest = lab.attach(number).await;
        lab.serve_tcp(&guest, number, 8080).await;
    }
    let client = lab.attach(4).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    let sticky = |backends: &[u8]| Frontend {
        affinity: Some(Duration::from_secs(10_800)),
        ..frontend(Protocol::Tcp, backends)
    };
    rules.apply(&[sticky(&[1, 2, 3])]).expect("applies");
    let first = greet(&client, (VIRTUAL, 80)).await.expect("served").0;
    for _ in 0..20 {
        assert_eq!(greet(&client, (VIRTUAL, 80)).await.expect("served").0, first);
    }
    let others: Vec<u8> = [1, 2, 3].into_iter().filter(|n| *n != first).collect();
    rules.apply(&[sticky(&others)]).expect("applies");
    let second = greet(&client, (VIRTUAL, 80)).await.expect("served").0;
    assert_ne!(second, first);
    rules.apply(&[sticky(&[1, 2, 3])]).expect("applies");
    for _ in 0..20 {
        assert_eq!(greet(&client, (VIRTUAL, 80)).await.expect("served").0, second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_port_is_reached_through_a_published_port() {
    let mut lab = Lab::new().await;
    let guest = lab.attach(1).await;
    lab.serve_tcp(&guest, 1, 8080).await;
    let client = lab.attach(2).await;
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    let mut service = frontend(Protocol::Tcp, &[1]);
    service.node_port = Some(30_080);
    rules.apply(&[service.clone()]).expect("applies");
    // From elsewhere the answer must come back through the node, so the node's address is seen …
    assert_eq!(greet(&client, (NODE, 30_080)).await.expect("served"), (1, NODE));
    let ports = PublishedPorts::new(lab.node.clone());
    let loopback: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let host = ports.add(loopback, (NODE, 30_080).into()).await.expect("publishes");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("connects");
    assert_eq!(read_greeting(&mut stream).await.0, 1);
    stream.write_all(b"ping").await.expect("writes");
    stream.shutdown().await.expect("half closes");
    let mut rest = Vec::new();
    timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await.expect("in time").expect("reads");
    assert_eq!(rest, b"ping", "what was sent before the half close comes back");
    ports.add(host, (attachment_address(1), 8080).into()).await.expect("retargets");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("connects");
    assert_eq!(read_greeting(&mut stream).await, (1, NODE));
    ports.remove(host);
    let deadline = Instant::now() + Duration::from_secs(3);
    while tokio::net::TcpStream::connect(host).await.is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        tokio::task::yield_now().await;
    }
    // … unless the policy is to keep the source.
    service.external_local = true;
    rules.apply(&[service]).expect("applies");
    assert_eq!(greet(&client, (NODE, 30_080)).await.expect("served"), (1, attachment_address(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_frontends_are_one_transaction_and_one_endpoint_is_a_few_elements() {
    let lab = Lab::new().await;
    let mut frontends: Vec<Frontend> = (0..10_000u32)
        .map(|n| {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 43, 1, 0).to_bits() + n);
            let backends = (1..=3).map(|b| backend(b, 8080)).collect();
            Frontend { backends, ..Frontend::new(address, 80, Protocol::Tcp) }
        })
        .collect();
    let mut rules = Rules::open(&lab.node, lab.options()).expect("opens");
    let started = Instant::now();
    rules.apply(&frontends).expect("applies");
    let whole = started.elapsed();
    frontends[5_000].backends.pop();
    let started = Instant::now();
    rules.apply(&frontends).expect("applies");
    let one = started.elapsed();
    eprintln!("10,000 frontends: {whole:?}, one endpoint: {one:?} (with the pure diff of all)");
    let listed = lab
        .node
        .run(|| std::process::Command::new("nft").args(["list", "map", "ip", "kedge", "frontends"]).output());
    let listed = String::from_utf8(listed.expect("runs").expect("nft").stdout).expect("text");
    assert_eq!(listed.matches("goto pick-3").count(), 9_999);
    assert!(listed.contains("10.43.20.136 . tcp . 80 : goto pick-2"), "the endpoint's frontend");
    rules.remove().expect("removes");
    let tables = lab.node.run(|| std::process::Command::new("nft").args(["list", "tables"]).output());
    assert!(tables.expect("runs").expect("nft").stdout.is_empty());
}
