//! Names and numbers that are parsed once, at the edge, and trusted afterwards.

use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A cluster's name: 1–32 bytes of `[a-z0-9-]`, beginning and ending with a letter or digit.
///
/// Source: Cilium `pkg/clustermesh/types`, `ValidateClusterName`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ClusterName(SmolStr);

/// Why a text is no cluster name, or a number no cluster id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name is empty, too long or has a character that is not allowed.
    #[error("{0:?} is no cluster name: 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends")]
    Name(String),
    /// The number is 0 or above the mesh's largest.
    #[error("{id} is no cluster id: it must be 1 to {max}")]
    Id {
        /// The number as given.
        id: u32,
        /// The largest id of this mesh.
        max: u16,
    },
    /// The mesh size is neither 255 nor 511.
    #[error("max-connected-clusters is {0}: it must be 255 or 511")]
    MaxClusters(u32),
}

impl ClusterName {
    /// Parses a cluster name.
    pub fn new(name: &str) -> Result<Self, IdError> {
        let bytes = name.as_bytes();
        let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = (1..=32).contains(&bytes.len())
            && bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|b| edge(b) || *b == b'-');
        if ok { Ok(Self(name.into())) } else { Err(IdError::Name(name.into())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ClusterName {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// How many clusters a mesh may have; it fixes the bits of an identity, so it is one value for the whole mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaxClusters {
    /// Ids 1–255, 65,536 identities a cluster.
    #[default]
    C255,
    /// Ids 1–511, 32,768 identities a cluster.
    C511,
}

impl MaxClusters {
    /// The mesh size from its number.
    pub fn new(n: u32) -> Result<Self, IdError> {
        match n {
            255 => Ok(Self::C255),
            511 => Ok(Self::C511),
            other => Err(IdError::MaxClusters(other)),
        }
    }

    /// The largest cluster id.
    pub fn largest(self) -> u16 {
        match self {
            Self::C255 => 255,
            Self::C511 => 511,
        }
    }

    /// The numbers of a cluster's identities.
    ///
    /// Source: Cilium `pkg/identity/numericidentity.go`: the cluster's id stands above 16 bits, or 15 in a mesh of 511.
    pub fn identities(self, cluster: ClusterId) -> RangeInclusive<u32> {
        let bits = match self {
            Self::C255 => 16,
            Self::C511 => 15,
        };
        let first = u32::from(cluster.get()) << bits;
        first..=first + (1 << bits) - 1
    }
}

/// A cluster's id, 1–255 or 1–511.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(u16);

impl ClusterId {
    /// Parses an id of a mesh of the given size.
    pub fn new(id: u32, max: MaxClusters) -> Result<Self, IdError> {
        match u16::try_from(id) {
            Ok(n) if n >= 1 && n <= max.largest() => Ok(Self(n)),
            _ => Err(IdError::Id { id, max: max.largest() }),
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A Service's namespace and name: what makes two Services of two clusters the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    /// The namespace.
    pub namespace: SmolStr,
    /// The Service's name.
    pub name: SmolStr,
}

impl ServiceKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: impl Into<SmolStr>, name: impl Into<SmolStr>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Parses `namespace/name`; a bare `name` is in namespace `default`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An IP address in 16 bytes: IPv6, or IPv4 mapped into it. Printed and serialised as the plain address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr([u8; 16]);

impl Addr {
    /// The 16 bytes, network order.
    pub fn octets(self) -> [u8; 16] {
        self.0
    }

    /// The address as the standard library's; a mapped IPv4 address comes back as IPv4.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// Its family.
    pub fn family(self) -> Family {
        if Ipv6Addr::from(self.0).to_ipv4_mapped().is_some() { Family::V4 } else { Family::V6 }
    }
}

impl From<[u8; 16]> for Addr {
    fn from(octets: [u8; 16]) -> Self {
        Self(octets)
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(v4: Ipv4Addr) -> Self {
        Self(v4.to_ipv6_mapped().octets())
    }
}

impl core::str::FromStr for Addr {
    type Err = core::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl Serialize for Addr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: serde::Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        String::deserialize(de)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Milliseconds on the reader's own monotonic clock; its zero means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// This much after.
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since an earlier time, 0 if that was later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One life of one store, numbered by the session that reads it: a new number means relist.
///
/// A session starts a new epoch when the store's `cluster_id` differs from the latched one, or its revision went back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// An etcd revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub i64);
