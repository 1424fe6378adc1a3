//! IP addresses and CIDRs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::Row;
use crate::cost::Cost;
use crate::fault::Fault;
use crate::meter::Meter;
use crate::value::{Opaque, Value};

pub const ROWS: &[Row] = &[
    Row("ip(string): net.IP", Cost::Scan(1.0), ip),
    Row("isIP(string): bool", Cost::Scan(1.0), is_ip),
    Row("ip.isCanonical(string): bool", Cost::Scan(2.0), is_canonical),
    Row("string(net.IP): string", Cost::One, ip_to_string),
    Row("net.IP::family(): int", Cost::One, family),
    Row("net.IP::isUnspecified(): bool", Cost::One, is_unspecified),
    Row("net.IP::isLoopback(): bool", Cost::One, is_loopback),
    Row("net.IP::isLinkLocalMulticast(): bool", Cost::One, is_link_local_multicast),
    Row("net.IP::isLinkLocalUnicast(): bool", Cost::One, is_link_local_unicast),
    Row("net.IP::isGlobalUnicast(): bool", Cost::One, is_global_unicast),
    Row("cidr(string): net.CIDR", Cost::Scan(1.0), cidr),
    Row("isCIDR(string): bool", Cost::Scan(1.0), is_cidr),
    Row("string(net.CIDR): string", Cost::One, cidr_to_string),
    Row("net.CIDR::containsIP(string): bool", Cost::ContainsIp { text: true }, contains_ip),
    Row("net.CIDR::containsIP(net.IP): bool", Cost::ContainsIp { text: false }, contains_ip),
    Row("net.CIDR::containsCIDR(string): bool", Cost::ContainsCidr { text: true }, contains_cidr),
    Row("net.CIDR::containsCIDR(net.CIDR): bool", Cost::ContainsCidr { text: false }, contains_cidr),
    Row("net.CIDR::ip(): net.IP", Cost::One, cidr_ip),
    Row("net.CIDR::prefixLength(): int", Cost::One, prefix_length),
    Row("net.CIDR::masked(): net.CIDR", Cost::One, masked),
];

#[derive(Debug, PartialEq, Clone, Copy)]
struct Ip(IpAddr);

#[derive(Debug, PartialEq, Clone, Copy)]
struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Opaque for Ip {
    fn type_name(&self) -> &'static str {
        "net.IP"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn size(&self) -> u64 {
        if self.0.is_ipv4() { 4 } else { 16 }
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Opaque for Cidr {
    fn type_name(&self) -> &'static str {
        "net.CIDR"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn size(&self) -> u64 {
        u64::from(self.bits.div_ceil(8))
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Cidr {
    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        };
        Self { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, ..self }.masked().address == self.masked().address
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') && text.split('%').next().is_some_and(|head| head.parse::<Ipv6Addr>().is_ok()) {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ));
    };
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        address => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let fail = |why: &str| {
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"
        )
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| fail("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| fail("unable to parse IP"))?;
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    let plain = bits.chars().all(|c| c.is_ascii_digit()) && (bits.len() == 1 || !bits.starts_with('0'));
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| fail(&format!("bad bits after slash: {bits:?}")))?;
    if bits > if address.is_ipv4() { 32 } else { 128 } {
        return Err(fail("prefix length out of range"));
    }
    Ok(Cidr { address, bits })
}

fn text<'t>(args: &'t [Value<'_>]) -> Result<&'t str, Fault> {
    match args {
        [Value::String(text)] => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn held<T: Copy + 'static>(args: &[Value<'_>], at: usize) -> Result<T, Fault> {
    match args.get(at) {
        Some(Value::Opaque(value)) => value.as_any().downcast_ref().copied().ok_or_else(Fault::no_overload),
        _ => Err(Fault::no_overload()),
    }
}

fn ip<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    parse_ip(text(args)?).map(|ip| Value::Opaque(Arc::new(Ip(ip)))).map_err(Fault::Failed)
}

fn is_ip<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(parse_ip(text(args)?).is_ok()))
}

fn is_canonical<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let text = text(args)?;
    parse_ip(text).map(|ip| Value::Bool(ip.to_string() == text)).map_err(Fault::Failed)
}

fn ip_to_string<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::text(&ip.to_string()))
}

fn family<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::Bool(ip.is_unspecified()))
}

fn is_loopback<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::Bool(ip.is_loopback()))
}

fn link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(ip) => ip.octets()[0] == 0xff && ip.octets()[1] & 0xf == 2,
    }
}

fn link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::Bool(link_local_multicast(ip)))
}

fn is_link_local_unicast<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    Ok(Value::Bool(link_local_unicast(ip)))
}

fn is_global_unicast<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Ip(ip) = held(args, 0)?;
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    let global = !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local_unicast(ip);
    Ok(Value::Bool(global && !broadcast))
}

fn cidr<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let cidr = parse_cidr(text(args)?);
    cidr.map(|cidr| Value::Opaque(Arc::new(cidr))).map_err(|why| {
        Fault::failed(format!("network address parse error during conversion from string: {why}"))
    })
}

fn is_cidr<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    Ok(Value::Bool(parse_cidr(text(args)?).is_ok()))
}

fn cidr_to_string<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let Cidr { address, bits } = held(args, 0)?;
    Ok(Value::text(&format!("{address}/{bits}")))
}

fn contains_ip<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let cidr: Cidr = held(args, 0)?;
    let ip = match args.get(1) {
        Some(Value::String(text)) => parse_ip(text).map_err(Fault::Failed)?,
        _ => held::<Ip>(args, 1)?.0,
    };
    Ok(Value::Bool(cidr.contains(ip)))
}

fn contains_cidr<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let outer: Cidr = held(args, 0)?;
    let inner: Cidr = match args.get(1) {
        Some(text @ Value::String(_)) => held(&[cidr(meter, std::slice::from_ref(text))?], 0)?,
        _ => held(args, 1)?,
    };
    Ok(Value::Bool(outer.contains(inner.address) && outer.bits <= inner.bits))
}

fn cidr_ip<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let cidr: Cidr = held(args, 0)?;
    Ok(Value::Opaque(Arc::new(Ip(cidr.address))))
}

fn prefix_length<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let cidr: Cidr = held(args, 0)?;
    Ok(Value::Int(i64::from(cidr.bits)))
}

fn masked<'a>(_: &mut Meter, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
    let cidr: Cidr = held(args, 0)?;
    Ok(Value::Opaque(Arc::new(cidr.masked())))
}
