//! A record's backends as endpoints, without those refused.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Ranges, Refusal, Rule};
use crate::id::Addr;
use crate::model::{BackendState, DEFAULT_WEIGHT, Endpoint, Port, Protocol, Slice};
use crate::policy;
use crate::record::{ServiceRecord, SliceEndpoint, SlicePort, SliceRecord};

/// Pairs of address and port that one record may bring: 1,000 endpoints with 100 ports each, Kubernetes' largest slice.
/// Endpoints share their ports in a slice record, so a few bytes more could mean millions of backends in every agent.
const BACKENDS: usize = 100_000;

/// The endpoints of a legacy record, by address.
pub(super) fn of_service(ranges: &Ranges, record: &ServiceRecord) -> Result<(Slice, Vec<Refusal>), Refusal> {
    within_limit(record.backends.values().map(BTreeMap::len).sum())?;
    let mut found = Found::default();
    for (text, raw) in &record.backends {
        let Some(addr) = found.address(ranges, text) else { continue };
        let ports = raw.iter().map(|(name, port)| parse_port(name, Some(&port.protocol), Some(port.port.into())));
        let ports = found.ports(text, ports);
        let zones = record.zones.get(text).cloned().unwrap_or_default();
        let endpoint = Endpoint {
            addr,
            ports,
            state: BackendState::Active,
            was_ready: true,
            weight: DEFAULT_WEIGHT,
            node: None,
            zone: Some(zones.zone.into()).filter(|zone: &smol_str::SmolStr| !zone.is_empty()),
            hints: zones.for_zones.unwrap_or_default().into_iter().map(Into::into).collect(),
            doubtful: false,
        };
        found.add(endpoint);
    }
    Ok(found.finish())
}

/// The endpoints of a slice record, by address.
pub(super) fn of_slice(ranges: &Ranges, record: &SliceRecord) -> Result<(Slice, Vec<Refusal>), Refusal> {
    within_limit(record.endpoints.len().saturating_mul(record.ports.len()))?;
    let mut found = Found::default();
    // A malformed weight is the peer's to mend; here it is the default, as in Cilium.
    let (weight, _) = policy::slice_weight(&record.annotations);
    let parse = |p: &SlicePort| parse_port(&p.name, p.protocol.as_deref(), p.port);
    let ports = found.ports(&record.name, record.ports.iter().map(parse));
    for raw in &record.endpoints {
        let Some(text) = raw.addresses.first() else { continue };
        let Some(addr) = found.address(ranges, text) else { continue };
        found.add(endpoint(addr, raw, ports.clone(), weight));
    }
    Ok(found.finish())
}

fn within_limit(backends: usize) -> Result<(), Refusal> {
    if backends <= BACKENDS {
        return Ok(());
    }
    Err(Refusal::new(Rule::TooLarge, &format!("{backends} backends in one record: at most {BACKENDS}")))
}

fn endpoint(addr: Addr, raw: &SliceEndpoint, ports: Arc<[Port]>, weight: u16) -> Endpoint {
    let named = |text: &Option<alloc::string::String>| text.as_deref().filter(|t| !t.is_empty()).map(Into::into);
    let state = raw.conditions.state();
    Endpoint {
        addr,
        ports,
        state: state.with_weight(weight),
        // The record does not say.
        was_ready: state.was_ready(),
        weight,
        node: named(&raw.node_name),
        zone: named(&raw.zone),
        hints: raw.for_zones.iter().map(Into::into).collect(),
        doubtful: false,
    }
}

/// What has been judged so far.
#[derive(Default)]
struct Found {
    endpoints: BTreeMap<Addr, Endpoint>,
    refusals: Vec<Refusal>,
}

impl Found {
    fn address(&mut self, ranges: &Ranges, text: &str) -> Option<Addr> {
        ranges.address(text).map_err(|refusal| self.refusals.push(refusal)).ok()
    }

    /// The acceptable ones of the ports, each once, sorted. `of` is whose they are.
    fn ports(&mut self, of: &str, parsed: impl Iterator<Item = Result<Port, Refusal>>) -> Arc<[Port]> {
        let mut ports = BTreeSet::new();
        for port in parsed {
            match port {
                Ok(port) => drop(ports.insert(port)),
                Err(Refusal { rule, detail }) => self.refusals.push(Refusal::new(rule, &format!("{of}: {detail}"))),
            }
        }
        ports.into_iter().collect()
    }

    /// Two spellings of one address are one endpoint with the ports of both; else the first one's words count.
    fn add(&mut self, endpoint: Endpoint) {
        let Some(known) = self.endpoints.get_mut(&endpoint.addr) else {
            self.endpoints.insert(endpoint.addr, endpoint);
            return;
        };
        if known.ports != endpoint.ports {
            let all: BTreeSet<Port> = known.ports.iter().chain(&*endpoint.ports).cloned().collect();
            known.ports = all.into_iter().collect();
        }
    }

    /// An endpoint of which no port is left is no backend.
    fn finish(self) -> (Slice, Vec<Refusal>) {
        let endpoints = self.endpoints.into_values().filter(|endpoint| !endpoint.ports.is_empty()).collect();
        (Slice { endpoints }, self.refusals)
    }
}

/// An absent protocol is TCP, as in Kubernetes.
fn parse_port(name: &str, protocol: Option<&str>, number: Option<i32>) -> Result<Port, Refusal> {
    let protocol = protocol.unwrap_or("TCP");
    let Some(protocol) = Protocol::parse(protocol) else {
        return Err(Refusal::new(Rule::Protocol, &format!("port {name:?} has protocol {protocol:?}")));
    };
    match number.map(u16::try_from) {
        Some(Ok(number)) if number > 0 => Ok(Port { name: name.into(), protocol, number }),
        Some(_) => Err(Refusal::new(Rule::PortNumber, &format!("port {name:?} has number {}", number.unwrap_or(0)))),
        None => Err(Refusal::new(Rule::PortNumber, &format!("port {name:?} has no number"))),
    }
}
