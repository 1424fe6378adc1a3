//! Networks, spelled `address/bits`, in one spelling alone. What was once read although zeros pad it is told apart from what
//! is no network: the former is refused by its own name, and all else that is asked of networks is asked of it too.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Errors;
use crate::status::FieldError;

/// What is said of that which is none.
pub const NO_NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
    padded: bool,
}

impl Network {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (plain, plain_bits) = (unpadded_address(address), unpadded(bits)?);
        let padded = plain != address || plain_bits != bits;
        let (address, bits): (IpAddr, u8) = (plain.parse().ok()?, plain_bits.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits, padded })
    }

    /// Whether it is one of IPv4, also where IPv6 holds that.
    pub fn is_ipv4(&self) -> bool {
        self.address.to_canonical().is_ipv4()
    }

    /// What stands against it where one spelling alone is taken; the first that applies.
    pub fn fault(&self) -> Option<&'static str> {
        if self.padded {
            Some("must not have leading 0s in IP or prefix length")
        } else if self.address.is_ipv6() && self.is_ipv4() {
            Some("must not have an IPv4-mapped IPv6 address")
        } else if self.has_host_bits() {
            Some("must not have bits set beyond the prefix length")
        } else {
            None
        }
    }

    /// Whether another is a part of it, and not all.
    pub fn holds(&self, other: &Self) -> bool {
        let bits = u32::from(self.bits);
        let same = match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        };
        same && other.bits > self.bits
    }

    fn has_host_bits(&self) -> bool {
        let bits = u32::from(self.bits);
        match self.address {
            IpAddr::V4(ip) => ip.to_bits().checked_shl(bits).is_some_and(|rest| rest != 0),
            IpAddr::V6(ip) => ip.to_bits().checked_shl(bits).is_some_and(|rest| rest != 0),
        }
    }
}

/// What is wrong with a network where one spelling alone is taken.
pub fn fault(text: &str) -> Option<&'static str> {
    Network::parse(text).map_or(Some(NO_NETWORK), |network| network.fault())
}

/// What is said of that which is no address.
const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// What is wrong with an address where one spelling alone is taken; the first that applies.
pub fn address_fault(text: &str) -> Option<&'static str> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Some("must not be an IPv4-mapped IPv6 address")
        }
        Ok(_) => None,
        Err(_) if unpadded_address(text).parse::<IpAddr>().is_ok() => Some("must not have leading 0s"),
        Err(_) => Some(NO_ADDRESS),
    }
}

/// What the pods of a service cannot have: addresses that stand for nothing, for this machine or for many.
pub fn unreachable(field: &str, text: &str, errors: &mut Errors) {
    let Ok(ip) = unpadded_address(text).parse::<IpAddr>() else {
        return errors.push(FieldError::invalid(field, text, "must be a valid IP address"));
    };
    let ip = ip.to_canonical();
    let (local_many, local) = match ip {
        IpAddr::V4(ip) => (ip.octets()[..3] == [224, 0, 0], ip.is_link_local()),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xff0f == 0xff02, ip.is_unicast_link_local()),
    };
    for (is_so, detail) in [
        (ip.is_unspecified(), format!("may not be unspecified ({ip})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        (local_many, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()),
    ] {
        if is_so {
            errors.push(FieldError::invalid(field, text, detail));
        }
    }
}

/// What is to be said of an address that is taken though it could be spelled better.
pub fn address_warning(field: &str, text: &str) -> Option<String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            let plain = ip.to_canonical();
            Some(format!("{field}: non-standard IP address {text:?} is invalid: use \"{plain}\""))
        }
        Ok(IpAddr::V6(ip)) if ip.to_string() != text => {
            Some(format!("{field}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{ip}\")"))
        }
        Ok(_) => None,
        Err(_) => {
            let plain = unpadded_address(text).parse::<IpAddr>().ok()?.to_canonical();
            Some(format!("{field}: non-standard IP address {text:?} is invalid: use \"{plain}\""))
        }
    }
}

/// Without the zeros before a number.
fn unpadded(digits: &str) -> Option<&str> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits.trim_start_matches('0');
    is_number.then_some(if plain.is_empty() { "0" } else { plain })
}

/// The numbers of IPv4, which IPv6 may end with, without the zeros before them.
fn unpadded_address(address: &str) -> Cow<'_, str> {
    let (head, tail) = address.split_at(address.rfind(':').map_or(0, |colon| colon + 1));
    let numbers: Option<Vec<&str>> = tail.split('.').map(unpadded).collect();
    match numbers {
        Some(numbers) if numbers.len() > 1 => format!("{head}{}", numbers.join(".")).into(),
        _ => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_smaller_ones() {
        let check = |outer: &str, inner: &str, holds: bool| {
            let parse = |text| Network::parse(text).unwrap();
            assert_eq!(parse(outer).holds(&parse(inner)), holds, "{outer} {inner}");
        };
        check("10.0.0.0/8", "10.1.0.0/16", true);
        check("10.0.0.0/8", "010.1.0.0/16", true);
        check("10.0.0.0/8", "10.0.0.0/8", false);
        check("10.0.0.0/8", "11.0.0.0/16", false);
        check("0.0.0.0/0", "1.2.3.4/32", true);
        check("::/0", "fd00::/8", true);
        check("::/0", "10.0.0.0/8", false);
        check("fd00::/64", "fd00:0:0:1::/96", false);
    }

    #[test]
    fn addresses_have_one_spelling() {
        for good in ["10.1.2.3", "0.0.0.0", "fd00::1", "::1", "0db8::1"] {
            assert_eq!(address_fault(good), None, "{good}");
        }
        for none in ["", "x", "10.1.2", "10.1.2.3/8", "fe80::1%eth0", "1.2.3.4.5", "10..2.3"] {
            assert_eq!(address_fault(none), Some(NO_ADDRESS), "{none}");
        }
        for padded in ["010.1.2.3", "10.01.2.3", "::ffff:010.0.0.5"] {
            assert_eq!(address_fault(padded), Some("must not have leading 0s"), "{padded}");
        }
        assert!(address_fault("::ffff:10.0.0.5").is_some_and(|told| told.contains("IPv4-mapped")));
    }

    /// As kube-apiserver v1.36.2 answers it.
    #[test]
    fn networks_have_one_spelling() {
        for good in ["10.1.0.0/24", "0.0.0.0/0", "10.0.0.1/32", "fd00::/64", "::1/128", "0db8::/64", "::/0"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for none in [
            "",
            "x",
            "/",
            "10.1.0.0",
            "10.1.0.0/",
            "10.1.0.0/33",
            "10.1.0.0/+8",
            "10.1.0.0/-1",
            "0/0",
            "1.2.3/24",
            " 10.1.0.0/24",
            "fe80::1%eth0/64",
            "10.01.0.0/x",
            "::/129",
            "10..0.0/8",
            "10.1.0.0/8/8",
            "10.1.0.é/8",
        ] {
            assert_eq!(fault(none), Some(NO_NETWORK), "{none}");
        }
        for (text, named) in [
            ("010.1.0.5/24", "leading 0s"),
            ("10.1.0.5/024", "leading 0s"),
            ("10.0.0.0/08", "leading 0s"),
            ("00.0.0.0/0", "leading 0s"),
            ("::ffff:010.0.0.5/100", "leading 0s"),
            ("::ffff:10.0.0.5/110", "IPv4-mapped"),
            ("10.1.0.5/24", "beyond the prefix"),
            ("fd00::1/64", "beyond the prefix"),
        ] {
            assert!(fault(text).is_some_and(|told| told.contains(named)), "{text}: {:?}", fault(text));
        }
    }
}
