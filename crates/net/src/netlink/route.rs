//! The route operations of a node: dummy and veth links, addresses, routes, permanent neighbours.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use super::message::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, attributes_of};
use super::socket::{NetlinkError, NetlinkSocket};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const AF_INET: u8 = libc::AF_INET as u8;

pub type Mac = [u8; 6];

/// Where a route leads.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    Link { index: u32, source: Option<Ipv4Addr> },
    Gateway { index: u32, gateway: Ipv4Addr, source: Option<Ipv4Addr> },
    Unreachable,
}

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub mac: Mac,
}

pub struct Route {
    socket: NetlinkSocket,
}

impl Route {
    /// Opens in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: NetlinkSocket::open(libc::NETLINK_ROUTE)? })
    }

    fn send(
        &mut self,
        what: &str,
        kind: u16,
        flags: u16,
        family_header: &[u8],
        fill: impl FnOnce(&mut Message),
    ) -> Result<(), NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut message = Message::new();
        message.begin(kind, flags, sequence, family_header);
        fill(&mut message);
        self.socket.request(what, &mut message, sequence)
    }

    pub fn link_index(&mut self, name: &str) -> Result<Option<u32>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut message = Message::new();
        message.begin(RTM_GETLINK, 0, sequence, &link_header(0, 0, 0)).string(IFLA_IFNAME, name);
        // A get without NLM_F_ACK is answered by the object alone, so ask for the acknowledgement as the end mark.
        message.add_flags(super::NLM_F_ACK);
        let mut index = None;
        let what = format!("look up link {name}");
        let found = self.socket.dump(&what, &message, sequence, |_, body| {
            index = body.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        });
        match found {
            Err(error) if error.is(libc::ENODEV) => Ok(None),
            other => other.map(|()| index),
        }
    }

    /// Names of all links here.
    pub fn link_names(&mut self) -> Result<Vec<String>, NetlinkError> {
        let sequence = self.socket.next_sequence();
        let mut message = Message::new();
        message.begin(RTM_GETLINK, super::NLM_F_DUMP, sequence, &link_header(0, 0, 0));
        let mut names = Vec::new();
        self.socket.dump("list links", &message, sequence, |kind, body| {
            if kind == RTM_NEWLINK {
                let name = attributes_of(body.get(16..).unwrap_or(&[])).find(|(k, _)| *k == IFLA_IFNAME);
                names.extend(name.map(|(_, v)| String::from_utf8_lossy(v).trim_end_matches('\0').to_owned()));
            }
        })?;
        Ok(names)
    }

    /// Makes a link that carries addresses and leads nowhere, up, or brings an existing one up. A dummy is what it is
    /// called; kernels built without one have a bridge, which without ports is the same.
    pub fn ensure_dummy(&mut self, name: &str, mtu: u32) -> Result<u32, NetlinkError> {
        match self.create_link(name, "dummy", mtu) {
            Err(error) if error.is(libc::EOPNOTSUPP) => self.create_link(name, "bridge", mtu)?,
            other => other?,
        }
        let index = self.required_index(name)?;
        self.set_up(index)?;
        Ok(index)
    }

    fn create_link(&mut self, name: &str, kind: &str, mtu: u32) -> Result<(), NetlinkError> {
        let what = format!("create {kind} {name}");
        let made = self.send(&what, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, UP, UP), |m| {
            m.string(IFLA_IFNAME, name).u32(IFLA_MTU, mtu).nest(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, kind);
            });
        });
        match made {
            Err(error) if error.is(libc::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// Makes a veth pair, both ends down (neither can be up before the other is there); the peer is born in `peer_namespace`.
    pub fn create_veth(
        &mut self,
        host: VethEnd<'_>,
        peer: VethEnd<'_>,
        peer_namespace: RawFd,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let what = format!("create veth {}", host.name);
        self.send(&what, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_header(0, 0, 0), |m| {
            m.string(IFLA_IFNAME, host.name).bytes(IFLA_ADDRESS, &host.mac).u32(IFLA_MTU, mtu);
            m.nest(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.raw(&link_header(0, 0, 0));
                        m.string(IFLA_IFNAME, peer.name).bytes(IFLA_ADDRESS, &peer.mac).u32(IFLA_MTU, mtu);
                        m.bytes(IFLA_NET_NS_FD, &peer_namespace.to_ne_bytes());
                    });
                });
            });
        })
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.send(&format!("set link {index} up"), RTM_NEWLINK, 0, &link_header(index, UP, UP), |_| ())
    }

    /// Deletes a link; one that is not there is what was wanted.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let done = self.send(&format!("delete link {name}"), RTM_DELLINK, 0, &link_header(0, 0, 0), |m| {
            m.string(IFLA_IFNAME, name);
        });
        match done {
            Err(error) if error.is(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    pub fn required_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.link_index(name)?.ok_or_else(|| NetlinkError::Refused {
            what: format!("look up link {name}"),
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })
    }

    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetlinkError> {
        let mut header = [0u8; 8];
        header[0] = AF_INET;
        header[1] = prefix;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let what = format!("add address {address}/{prefix}");
        self.send(&what, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &header, |m| {
            m.bytes(IFA_LOCAL, &address.octets()).bytes(IFA_ADDRESS, &address.octets());
        })
    }

    pub fn replace_route(&mut self, destination: Ipv4Addr, prefix: u8, via: Via) -> Result<(), NetlinkError> {
        let (scope, kind) = match via {
            Via::Link { .. } => (RT_SCOPE_LINK, RTN_UNICAST),
            Via::Gateway { .. } => (RT_SCOPE_UNIVERSE, RTN_UNICAST),
            Via::Unreachable => (RT_SCOPE_UNIVERSE, RTN_UNREACHABLE),
        };
        let mut header = [0u8; 12];
        header[0] = AF_INET;
        header[1] = prefix;
        header[4] = RT_TABLE_MAIN;
        header[5] = RTPROT_STATIC;
        header[6] = scope;
        header[7] = kind;
        let what = format!("route {destination}/{prefix}");
        self.send(&what, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &header, |m| {
            if prefix > 0 {
                m.bytes(RTA_DST, &destination.octets());
            }
            let (index, source) = match via {
                Via::Link { index, source } => (index, source),
                Via::Gateway { index, gateway, source } => {
                    m.bytes(RTA_GATEWAY, &gateway.octets());
                    (index, source)
                }
                Via::Unreachable => return,
            };
            m.u32(RTA_OIF, index);
            if let Some(source) = source {
                m.bytes(RTA_PREFSRC, &source.octets());
            }
        })
    }

    /// A neighbour that never has to be asked for.
    pub fn permanent_neighbour(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        mac: Mac,
    ) -> Result<(), NetlinkError> {
        let mut header = [0u8; 12];
        header[0] = AF_INET;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let what = format!("neighbour {address}");
        self.send(&what, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header, |m| {
            m.bytes(NDA_DST, &address.octets()).bytes(NDA_LLADDR, &mac);
        })
    }
}

const UP: u32 = libc::IFF_UP as u32;

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0u8; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}
