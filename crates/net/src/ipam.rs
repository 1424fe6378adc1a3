//! Address ranges and the allocator of one range. Pure: what is taken is the caller's to say after a restart.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network such as `10.42.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    network: Ipv4Addr,
    prefix: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 range such as 10.42.0.0/24")]
pub struct InvalidRange(String);

impl Range {
    /// The range of `prefix` bits (at most 32) that holds `address`.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }

    /// The address `offset` places after the network's.
    pub fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from_bits(self.network.to_bits().checked_add(offset)?);
        self.contains(address).then_some(address)
    }

    fn last(self) -> u32 {
        self.network.to_bits() | !mask(self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0)
}

impl FromStr for Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, InvalidRange> {
        let invalid = || InvalidRange(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().ok().filter(|p| *p <= 32).ok_or_else(invalid)?;
        Ok(Self::new(address, prefix))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Hands out the addresses of a range. The oldest-freed comes back last of the fresh ones and first of the used, so
/// that a peer that still remembers an address meets its new owner as late as possible.
#[derive(Debug)]
pub struct Allocator {
    range: Range,
    /// The next address never handed out yet.
    fresh: u32,
    taken: BTreeSet<Ipv4Addr>,
    freed: VecDeque<Ipv4Addr>,
}

impl Allocator {
    /// `taken` are those in use already; the network's and the broadcast address are never handed out.
    pub fn new(range: Range, taken: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let taken = taken.into_iter().filter(|address| range.contains(*address)).collect();
        Self { range, fresh: range.network().to_bits().saturating_add(1), taken, freed: VecDeque::new() }
    }

    /// A free address, or `None` when the range is full.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        while self.fresh < self.range.last() {
            let address = Ipv4Addr::from_bits(self.fresh);
            self.fresh += 1;
            if self.taken.insert(address) {
                return Some(address);
            }
        }
        let address = self.freed.pop_front()?;
        self.taken.insert(address);
        Some(address)
    }

    /// Takes one particular address; false if it is somebody's already or not of this range.
    pub fn take(&mut self, address: Ipv4Addr) -> bool {
        let free = self.range.contains(address) && self.taken.insert(address);
        if free {
            self.freed.retain(|freed| *freed != address);
        }
        free
    }

    /// Gives an address back. One that was not taken is ignored.
    pub fn free(&mut self, address: Ipv4Addr) {
        if self.taken.remove(&address) && address.to_bits() < self.fresh {
            self.freed.push_back(address);
        }
    }

    pub fn in_use(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 42, 0, last)
    }

    #[test]
    fn ranges_parse_contain_and_print() {
        let range: Range = "10.42.0.7/24".parse().expect("valid");
        assert_eq!(range.to_string(), "10.42.0.0/24");
        assert!(range.contains(ip(255)) && !range.contains(Ipv4Addr::new(10, 42, 1, 0)));
        assert_eq!(range.nth(10), Some(ip(10)));
        assert_eq!(range.nth(256), None);
        assert!("10.42.0.0".parse::<Range>().is_err() && "10.42.0.0/33".parse::<Range>().is_err());
        assert!("0.0.0.0/0".parse::<Range>().expect("valid").contains(ip(1)));
    }

    #[test]
    fn hands_out_fresh_first_then_the_oldest_freed() {
        let mut allocator = Allocator::new(Range::new(ip(0), 29), [ip(2)]);
        let all: Vec<_> = std::iter::from_fn(|| allocator.allocate()).collect();
        assert_eq!(all, [ip(1), ip(3), ip(4), ip(5), ip(6)]);
        allocator.free(ip(5));
        allocator.free(ip(2));
        allocator.free(ip(2));
        assert_eq!(
            [allocator.allocate(), allocator.allocate(), allocator.allocate()],
            [Some(ip(5)), Some(ip(2)), None]
        );
    }

    #[test]
    fn an_adopted_address_freed_before_its_turn_is_handed_out_once() {
        let mut allocator = Allocator::new(Range::new(ip(0), 30), [ip(2)]);
        allocator.free(ip(2));
        assert_eq!(
            [allocator.allocate(), allocator.allocate(), allocator.allocate()],
            [Some(ip(1)), Some(ip(2)), None]
        );
        allocator.free(ip(1));
        assert!(allocator.take(ip(1)) && !allocator.take(ip(1)));
        assert_eq!(allocator.allocate(), None);
    }
}
