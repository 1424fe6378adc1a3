//! A node of its own for one test: namespaces below a directory that goes away with it, even on failure.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use net::attachment::Attachment;
use net::namespace::{Namespace, NamespaceError};
use net::node_network::{DEFAULT_MTU, NODE_LINK, NodeNetwork};
use net::rules::{Backend, Frontend, Options, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 1);
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 80);

pub struct Lab {
    pub directory: PathBuf,
    pub node: Namespace,
    pub servers: JoinSet<()>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        Namespace::purge(&self.directory).expect("the lab's namespaces go away");
    }
}

pub fn attachment_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, 10 + number)
}

impl Lab {
    pub async fn new() -> Self {
        let directory = PathBuf::from(format!("/run/kedge-t{}", base::id::name_suffix(8)));
        let node = Namespace::create(&directory.join("node")).expect("a namespace");
        let lab = Self { directory, node, servers: JoinSet::new() };
        let network = NodeNetwork {
            address: NODE,
            local_addresses: vec![DNS],
            attached_range: "10.42.0.0/24".parse().expect("a range"),
            virtual_range: "10.43.0.0/16".parse().expect("a range"),
            mtu: DEFAULT_MTU,
        };
        network.apply(&lab.node).await.expect("the node's network");
        network.apply(&lab.node).await.expect("twice is the same");
        lab
    }

    pub fn options(&self) -> Options {
        Options {
            node_addresses: vec![NODE],
            masquerade_from: Some("10.42.0.0/16".parse().expect("a range")),
            stray_link: Some(NODE_LINK.into()),
        }
    }

    pub fn spec(&self, number: u8) -> Attachment {
        Attachment {
            id: format!("pod-{number}"),
            namespace_path: self.directory.join(format!("a{number}")),
            address: attachment_address(number),
            node_address: NODE,
            mtu: DEFAULT_MTU,
            sysctls: vec![("net.ipv4.ip_local_port_range".into(), "20000 30000".into())],
        }
    }

    pub async fn attach(&self, number: u8) -> Namespace {
        self.spec(number).attach(&self.node).await.expect("an attachment")
    }

    /// Serves TCP: says its number and the address it sees, then echoes.
    pub async fn serve_tcp(&mut self, namespace: &Namespace, number: u8, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener = namespace.listen_tcp(address).await.expect("a listener inside");
        self.servers.spawn(async move {
            while let Ok((mut stream, from)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_all(format!("{number} {}\n", from.ip()).as_bytes()).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
    }

    pub async fn serve_udp(&mut self, namespace: &Namespace, number: u8, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let socket = namespace.bind_udp(address).await.expect("a socket inside");
        self.servers.spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                socket.send_to(&[number], from).await.expect("an answer");
            }
        });
    }
}

pub fn backend(number: u8, port: u16) -> Backend {
    Backend { address: attachment_address(number), port, local: true }
}

pub fn frontend(protocol: Protocol, backends: &[u8]) -> Frontend {
    let backends = backends.iter().map(|n| backend(*n, 8080)).collect();
    Frontend { backends, ..Frontend::new(VIRTUAL, 80, protocol) }
}

/// Connects and reads the greeting: which server answered, and whom it saw.
pub async fn greet(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<(u8, Ipv4Addr), NamespaceError> {
    let connected = timeout(Duration::from_secs(3), from.connect_tcp(to.into()));
    let mut stream = connected.await.expect("an answer, good or bad, in time")?;
    Ok(read_greeting(&mut stream).await)
}

pub async fn read_greeting(stream: &mut tokio::net::TcpStream) -> (u8, Ipv4Addr) {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(timeout(Duration::from_secs(3), stream.read_u8()).await.expect("in time").expect("a byte"));
    }
    let line = String::from_utf8(line).expect("text");
    let (number, address) = line.trim_end().split_once(' ').expect("two words");
    (number.parse().expect("a number"), address.parse().expect("an address"))
}
