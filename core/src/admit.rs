//! A member is authenticated, not trusted: what of a peer's record may reach this cluster's agents.
//!
//! Runs once per cluster, in the mirror. A rule refuses a whole record, or one backend of it; a refusal is a value
//! with its rule, and the rest goes on. A peer's frontends are never used, so never checked.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ipnet::IpNet;
use smol_str::SmolStr;

use crate::id::{Addr, ClusterId, ClusterName, MaxClusters, ServiceKey};
use crate::model::Slice;
use crate::own::LEGACY_SLICE;
use crate::record::{NodeRecord, ServiceRecord, SliceRecord};

mod address;
mod endpoints;
mod member;
mod record;
mod text;

pub use member::{AdmittedAddress, AdmittedIdentity};

/// Most characters of a [`Refusal`]'s detail.
const DETAIL: usize = 200;

/// Why something of a peer is not let in. The names are stable: status, metrics and docs use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The record's bytes are not what its kind promises.
    Undecodable,
    /// The record is larger than any reader accepts.
    TooLarge,
    /// The record has a null port entry, which crashes Cilium's own agents.
    NullPort,
    /// The record names another cluster than the one connected.
    ClusterName,
    /// The record names another cluster id than the one connected.
    ClusterId,
    /// The record's content disagrees with the key it stands under.
    KeyMismatch,
    /// A text of the record is beyond Kubernetes' limits for it.
    TextLimit,
    /// The identity's number is neither in the peer's range nor, for an address, reserved.
    IdentityRange,
    /// The slice record's labels name no Service.
    NoService,
    /// The backend has no port a mesh can carry: 0, absent, or beyond 65535.
    PortNumber,
    /// The backend's protocol is none of TCP, UDP and SCTP.
    Protocol,
    /// The backend's address is no IP address.
    AddressText,
    /// The address lies in a range no cluster serves from: loopback, link-local, multicast, reserved, metadata.
    SpecialAddress,
    /// The address lies in a range of `--deny-cidr`.
    DeniedCidr,
    /// The address lies in this cluster's own pod or service ranges.
    OwnRange,
    /// The address is one of this cluster's nodes'.
    OwnNode,
}

/// One refused record or backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule that refused it.
    pub rule: Rule,
    /// What exactly was wrong, for a person.
    pub detail: String,
}

/// What this cluster protects from its peers' claims. Shared by the admissions of all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    own: Vec<IpNet>,
    nodes: BTreeSet<Addr>,
    deny: Vec<IpNet>,
}

/// Admission of one peer's records.
#[derive(Clone, Debug)]
pub struct Admission {
    peer: ClusterName,
    id: ClusterId,
    max: MaxClusters,
    ranges: Arc<Ranges>,
}

/// What an acceptable record comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its endpoints, without those refused.
    Admitted(Admitted),
    /// The peer says `shared: false`: a deletion.
    Deleted(ServiceKey),
}

/// The endpoints a record brings to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The service.
    pub service: ServiceKey,
    /// The slice's name; [`crate::own::LEGACY_SLICE`] for a legacy record.
    pub name: SmolStr,
    /// Its endpoints, by address.
    pub slice: Slice,
    /// The backends that were refused.
    pub refusals: Vec<Refusal>,
}

/// A peer's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedNode {
    /// Its name.
    pub name: SmolStr,
    /// Its addresses, without those refused.
    pub addresses: Vec<Addr>,
    /// The addresses that were refused.
    pub refusals: Vec<Refusal>,
}

impl Rule {
    /// All rules: first those that refuse a record, then those that refuse one backend of it.
    pub const ALL: [Self; 16] = [
        Self::Undecodable,
        Self::TooLarge,
        Self::NullPort,
        Self::ClusterName,
        Self::ClusterId,
        Self::KeyMismatch,
        Self::TextLimit,
        Self::IdentityRange,
        Self::NoService,
        Self::PortNumber,
        Self::Protocol,
        Self::AddressText,
        Self::SpecialAddress,
        Self::DeniedCidr,
        Self::OwnRange,
        Self::OwnNode,
    ];

    /// The rule's stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too-large",
            Self::NullPort => "null-port",
            Self::ClusterName => "cluster-name",
            Self::ClusterId => "cluster-id",
            Self::KeyMismatch => "key-mismatch",
            Self::TextLimit => "text-limit",
            Self::IdentityRange => "identity-range",
            Self::NoService => "no-service",
            Self::PortNumber => "port-number",
            Self::Protocol => "protocol",
            Self::AddressText => "address-text",
            Self::SpecialAddress => "special-address",
            Self::DeniedCidr => "denied-cidr",
            Self::OwnRange => "own-range",
            Self::OwnNode => "own-node",
        }
    }
}

impl Admission {
    /// Admission of the peer with this name and id, in a mesh of this size.
    pub fn new(peer: ClusterName, id: ClusterId, max: MaxClusters, ranges: Arc<Ranges>) -> Self {
        Self { peer, id, max, ranges }
    }

    /// Judges a legacy service record found under `<ns>/<name>` of the peer's prefix.
    ///
    /// Such a record names no node and no state: its endpoints are active, of the default weight.
    pub fn service(&self, suffix: &str, record: &ServiceRecord) -> Result<Outcome, Refusal> {
        record::check_service(self, suffix, record)?;
        if !record.shared {
            return Ok(Outcome::Deleted(record.key.clone()));
        }
        let (slice, refusals) = endpoints::of_service(&self.ranges, record)?;
        let name = SmolStr::new_static(LEGACY_SLICE);
        Ok(Outcome::Admitted(Admitted { service: record.key.clone(), name, slice, refusals }))
    }

    /// Judges a slice record found under `<ns>/<slice>` of the peer's prefix.
    pub fn slice(&self, suffix: &str, record: &SliceRecord) -> Result<Admitted, Refusal> {
        let service = record::check_slice(self, suffix, record)?;
        let (slice, refusals) = endpoints::of_slice(&self.ranges, record)?;
        Ok(Admitted { service, name: record.name.clone(), slice, refusals })
    }

    /// Judges a node record found under `<node>` of the peer's prefix.
    pub fn node(&self, suffix: &str, record: &NodeRecord) -> Result<AdmittedNode, Refusal> {
        record::check_node(self, suffix, record)?;
        let mut node = AdmittedNode { name: record.name.as_str().into(), addresses: Vec::new(), refusals: Vec::new() };
        for (_, text) in record.addresses.iter().filter(|(_, text)| !text.is_empty()) {
            match self.ranges.address(text) {
                Ok(addr) => node.addresses.push(addr),
                Err(refusal) => node.refusals.push(refusal),
            }
        }
        Ok(node)
    }
}

impl Ranges {
    /// Ranges from the own cluster's pod and service CIDRs, its nodes' addresses, and `--deny-cidr`.
    pub fn new(
        own: impl IntoIterator<Item = IpNet>,
        nodes: impl IntoIterator<Item = Addr>,
        deny: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let canonical = |net: IpNet| address::canonical(net);
        Self {
            own: own.into_iter().map(canonical).collect(),
            nodes: nodes.into_iter().collect(),
            deny: deny.into_iter().map(canonical).collect(),
        }
    }
}

impl Refusal {
    /// A refusal; of a detail only the beginning is kept, since it may repeat a text as long as its record.
    pub fn new(rule: Rule, detail: &str) -> Self {
        Self { rule, detail: detail.chars().take(DETAIL).collect() }
    }
}
