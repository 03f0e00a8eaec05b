//! What a peer says of its members: identities, and whose an address is.

use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;
use smol_str::SmolStr;

use super::{Admission, Refusal, Rule, text};
use crate::id::Addr;
use crate::identity::{CLUSTER_LABEL, HOST, LabelSet, NAMESPACE_LABELS, REMOTE_NODE, RESERVED_NUMBERS, SOURCE};
use crate::record::{IdentityLabel, IdentityRecord, IpRecord};

/// Labels of one identity: Kubernetes has no limit of its own, and a Pod with more is none that anybody means.
const LABELS: usize = 256;
/// Bytes of one label that Kubernetes did not set.
const FOREIGN_LABEL: usize = 1024;

/// A peer's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedIdentity {
    /// Its number.
    pub number: u32,
    /// Its labels.
    pub labels: LabelSet,
}

/// A peer's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedAddress {
    /// The address, or the range.
    pub net: IpNet,
    /// The identity's number.
    pub identity: u32,
    /// The address of the node that carries it, unless that was refused.
    pub host: Option<Addr>,
    /// The namespace of its Pod, empty when it is no Pod's.
    pub namespace: SmolStr,
    /// The name of its Pod.
    pub pod: SmolStr,
    /// Why its node's address was refused.
    pub refusals: Vec<Refusal>,
    /// Why it does not count where it lies. That may change with what this cluster protects ([`Admission::place`]).
    pub misplaced: Option<Refusal>,
}

impl Admission {
    /// Judges an identity found under its number.
    pub fn identity(&self, suffix: &str, record: &IdentityRecord) -> Result<AdmittedIdentity, Refusal> {
        if suffix.parse() != Ok(record.number) {
            let detail = format!("the key ends in {suffix:?}, the record says {}", record.number);
            return Err(Refusal::new(Rule::KeyMismatch, &detail));
        }
        self.in_range(record.number)?;
        self.is_of_peer(&record.labels)?;
        if record.labels.len() > LABELS {
            let detail = format!("{} labels: at most {LABELS}", record.labels.len());
            return Err(Refusal::new(Rule::TextLimit, &detail));
        }
        record.labels.iter().try_for_each(label)?;
        Ok(AdmittedIdentity { number: record.number, labels: LabelSet::new(record.labels.iter().cloned()) })
    }

    /// Judges an address found under its text. The reserved number of a host means another host here.
    pub fn address(&self, suffix: &str, record: &IpRecord) -> Result<AdmittedAddress, Refusal> {
        let net = net(suffix, record)?;
        if record.identity >= RESERVED_NUMBERS {
            self.in_range(record.identity)?;
        }
        for (what, name) in [("Pod name", &record.pod), ("service account", &record.service_account)] {
            if !name.is_empty() {
                text::subdomain(what, name)?;
            }
        }
        if !record.namespace.is_empty() {
            text::label("namespace", &record.namespace)?;
        }
        let host = record.host_ip.map(|host| self.ranges.judge(host).map(|()| host)).transpose();
        let (host, refusals) = match host {
            Ok(host) => (host, Vec::new()),
            Err(refusal) => (None, alloc::vec![refusal]),
        };
        Ok(AdmittedAddress {
            net,
            identity: if record.identity == HOST { REMOTE_NODE } else { record.identity },
            host,
            namespace: record.namespace.clone(),
            pod: record.pod.clone(),
            refusals,
            misplaced: self.place(net).err(),
        })
    }

    /// Judges where an address or range lies.
    pub fn place(&self, net: IpNet) -> Result<(), Refusal> {
        self.ranges.overlap(net)
    }

    fn in_range(&self, number: u32) -> Result<(), Refusal> {
        let range = self.max.identities(self.id);
        if range.contains(&number) {
            return Ok(());
        }
        let detail =
            format!("identity {number} is not in {}..={} of cluster id {}", range.start(), range.end(), self.id);
        Err(Refusal::new(Rule::IdentityRange, &detail))
    }

    fn is_of_peer(&self, labels: &[IdentityLabel]) -> Result<(), Refusal> {
        let mut said = labels.iter().filter(|label| label.key == CLUSTER_LABEL).peekable();
        let none = said.peek().is_none();
        let other = said.find(|label| label.source != SOURCE || label.value != self.peer.as_str());
        let got = match other {
            Some(other) => format!("{}:{}", other.source, other.value),
            None if none => "absent".into(),
            None => return Ok(()),
        };
        let detail = format!("the label {CLUSTER_LABEL} is {got}, the peer is {}", self.peer);
        Err(Refusal::new(Rule::ClusterName, &detail))
    }
}

/// The key is the address's text, with the length for a range; a range has no bits beyond its length.
fn net(suffix: &str, record: &IpRecord) -> Result<IpNet, Refusal> {
    let ip = record.ip.ip();
    let said = record.prefix_len.map_or_else(|| format!("{ip}"), |len| format!("{ip}/{len}"));
    if said != suffix {
        let detail = format!("the key ends in {suffix:?}, the record says {said:?}");
        return Err(Refusal::new(Rule::KeyMismatch, &detail));
    }
    let longest = if matches!(ip, IpAddr::V4(_)) { 32 } else { 128 };
    let net = IpNet::new(ip, record.prefix_len.unwrap_or(longest)).ok().filter(|net| net.network() == ip);
    net.ok_or_else(|| Refusal::new(Rule::AddressText, &format!("{said} is no network")))
}

fn label(label: &IdentityLabel) -> Result<(), Refusal> {
    if label.source != SOURCE {
        let size = label.source.len() + label.key.len() + label.value.len();
        let ok = size <= FOREIGN_LABEL && !label.key.is_empty();
        return if ok { Ok(()) } else { Err(Refusal::new(Rule::TextLimit, &format!("a label of {size} bytes"))) };
    }
    let of_namespace = label.key.strip_prefix(NAMESPACE_LABELS).and_then(|rest| rest.strip_prefix('.'));
    text::key("label key", of_namespace.unwrap_or(&label.key))?;
    text::value("label value", &label.value)
}
