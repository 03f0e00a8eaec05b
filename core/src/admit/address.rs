//! Which addresses no peer may claim.

use alloc::format;
use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Ranges, Refusal, Rule};
use crate::id::Addr;

/// Ranges no cluster serves from, whoever claims it.
const SPECIAL: [(IpNet, &str); 12] = [
    (v4([0, 0, 0, 0], 8), "this network"),
    (v4([127, 0, 0, 0], 8), "loopback"),
    (v4([168, 63, 129, 16], 32), "Azure's host"),
    (v4([169, 254, 0, 0], 16), "link-local, with cloud metadata"),
    (v4([224, 0, 0, 0], 4), "multicast"),
    (v4([240, 0, 0, 0], 4), "reserved and broadcast"),
    // ::1/128 is within ::/96.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), "unspecified, loopback or IPv4-compatible"),
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), "NAT64"),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), "6to4"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32), "EC2 metadata"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
];

impl Ranges {
    /// Parses and judges an address. A mapped IPv4 address is judged as the IPv4 address it is.
    pub(super) fn address(&self, text: &str) -> Result<Addr, Refusal> {
        let Ok(addr) = text.parse::<Addr>() else {
            return Err(Refusal::new(Rule::AddressText, &format!("{text:?} is no IP address")));
        };
        self.judge(addr).map(|()| addr)
    }

    /// Whether no peer may claim this address.
    pub fn refuses(&self, addr: Addr) -> bool {
        self.judge(addr).is_err()
    }

    /// Judges a whole range: none of its addresses may be one that no peer may claim.
    pub(super) fn overlap(&self, net: IpNet) -> Result<(), Refusal> {
        let net = canonical(net);
        self.judge(net.network().into())?;
        if net.prefix_len() == net.max_prefix_len() {
            return Ok(());
        }
        contains(Rule::SpecialAddress, net, SPECIAL.iter().map(|(net, _)| *net))?;
        contains(Rule::DeniedCidr, net, self.deny.iter().copied())?;
        contains(Rule::OwnRange, net, self.own.iter().copied())?;
        contains(Rule::OwnNode, net, self.nodes.iter().map(|addr| addr.ip().into()))
    }

    pub(super) fn judge(&self, addr: Addr) -> Result<(), Refusal> {
        let ip = addr.ip();
        let within = |nets: &[IpNet]| nets.iter().find(|net| net.contains(&ip)).copied();
        if let Some((net, what)) = SPECIAL.iter().find(|(net, _)| net.contains(&ip)) {
            return Err(Refusal::new(Rule::SpecialAddress, &format!("{addr} is in {net} ({what})")));
        }
        if let Some(net) = within(&self.deny) {
            return Err(Refusal::new(Rule::DeniedCidr, &format!("{addr} is in {net}, denied by --deny-cidr")));
        }
        if let Some(net) = within(&self.own) {
            return Err(Refusal::new(Rule::OwnRange, &format!("{addr} is in {net}, a range of this cluster")));
        }
        if self.nodes.contains(&addr) {
            return Err(Refusal::new(Rule::OwnNode, &format!("{addr} is a node of this cluster")));
        }
        Ok(())
    }
}

/// Refuses a range that contains one of these.
fn contains(rule: Rule, net: IpNet, mut others: impl Iterator<Item = IpNet>) -> Result<(), Refusal> {
    match others.find(|other| net.contains(other)) {
        Some(other) => Err(Refusal::new(rule, &format!("{net} contains {other}"))),
        None => Ok(()),
    }
}

/// A range of mapped IPv4 addresses as the IPv4 range it is; any other as it stands.
pub(super) fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.prefix_len().checked_sub(96).zip(v6.addr().to_ipv4_mapped());
    mapped.and_then(|(len, v4)| Ipv4Net::new(v4, len).ok()).map_or(net, IpNet::V4)
}

const fn v4(octets: [u8; 4], prefix_len: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix_len))
}

const fn v6(groups: [u16; 8], prefix_len: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = groups;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_len))
}
