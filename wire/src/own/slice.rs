//! Endpoints: the records that make up nearly all of the volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use smol_str::{SmolStr, format_smolstr};
use tombolo_core::model::{BackendState, DEFAULT_WEIGHT, Endpoint, Port, Slice};
use tombolo_core::own::{ENDPOINTS_PER_KEY, MeshSlice};

use crate::proto::{self, Bad, EnumField, Wire, all, cluster_id, messages, must};

/// Cuts a slice into keys of at most [`ENDPOINTS_PER_KEY`] endpoints, in order: `base` alone when it fits, else
/// `base.0`, `base.1`, …. A base that itself looks like such a part is always numbered, so that no two slices meet in
/// one key.
pub fn split(slice: Slice, base: &str) -> Vec<(SmolStr, Slice)> {
    let part = base.rsplit_once('.').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if slice.endpoints.len() <= ENDPOINTS_PER_KEY {
        let name = if part { format_smolstr!("{base}.0") } else { base.into() };
        return vec![(name, slice)];
    }
    let parts = slice.endpoints.chunks(ENDPOINTS_PER_KEY).enumerate();
    parts.map(|(n, part)| (format_smolstr!("{base}.{n}"), Slice { endpoints: part.to_vec() })).collect()
}

impl Wire for MeshSlice {
    type Message = proto::MeshSlice;

    fn message(&self) -> proto::MeshSlice {
        proto::MeshSlice {
            cluster_id: self.cluster_id.get().into(),
            revision: self.revision,
            slice: Some(self.slice.message()),
        }
    }

    fn value(mesh: proto::MeshSlice) -> Result<Self, Bad> {
        let slice = Slice::value(mesh.slice.unwrap_or_default())?;
        Ok(Self { cluster_id: cluster_id(mesh.cluster_id)?, revision: mesh.revision, slice })
    }
}

impl Wire for Slice {
    type Message = proto::Slice;

    fn message(&self) -> proto::Slice {
        let mut sets = PortSets::default();
        let endpoints = self.endpoints.iter().map(|e| endpoint(e, sets.index(&e.ports))).collect();
        proto::Slice { port_sets: sets.messages, endpoints }
    }

    fn value(slice: proto::Slice) -> Result<Self, Bad> {
        let set = |set: proto::PortSet| all(set.ports).map(|ports: Vec<Port>| Arc::from(ports));
        let sets: Vec<Arc<[Port]>> = slice.port_sets.into_iter().map(set).collect::<Result<_, _>>()?;
        let endpoints = slice.endpoints.into_iter().map(|e| core_endpoint(e, &sets)).collect::<Result<_, _>>()?;
        Ok(Self { endpoints })
    }
}

/// The port sets of one slice, each written once.
#[derive(Default)]
struct PortSets<'a> {
    messages: Vec<proto::PortSet>,
    indexes: BTreeMap<&'a [Port], u32>,
    last: Option<(&'a Arc<[Port]>, u32)>,
}

impl<'a> PortSets<'a> {
    fn index(&mut self, ports: &'a Arc<[Port]>) -> u32 {
        if let Some((last, index)) = self.last
            && Arc::ptr_eq(last, ports)
        {
            return index;
        }
        let next = u32::try_from(self.messages.len()).expect("a slice has far fewer port sets");
        let index = *self.indexes.entry(ports).or_insert(next);
        if index == next {
            self.messages.push(proto::PortSet { ports: messages(ports) });
        }
        self.last = Some((ports, index));
        index
    }
}

fn endpoint(e: &Endpoint, port_set: u32) -> proto::Endpoint {
    proto::Endpoint {
        addr: Some(e.addr.message()),
        port_set,
        state: e.state.number(),
        was_ready: e.was_ready,
        weight: (e.weight != DEFAULT_WEIGHT).then_some(e.weight.into()),
        node: e.node.as_ref().map(ToString::to_string),
        zone: e.zone.as_ref().map(ToString::to_string),
        hints: e.hints.iter().map(ToString::to_string).collect(),
        doubtful: e.doubtful,
    }
}

fn core_endpoint(e: proto::Endpoint, sets: &[Arc<[Port]>]) -> Result<Endpoint, Bad> {
    let set = usize::try_from(e.port_set).ok().and_then(|index| sets.get(index));
    Ok(Endpoint {
        addr: must(e.addr, "address")?,
        ports: set.ok_or(Bad("port set"))?.clone(),
        state: BackendState::of(e.state)?,
        was_ready: e.was_ready,
        weight: match e.weight {
            Some(weight) => u16::try_from(weight).map_err(|_| Bad("weight"))?,
            None => DEFAULT_WEIGHT,
        },
        node: e.node.map(Into::into),
        zone: e.zone.map(Into::into),
        hints: e.hints.into_iter().map(Into::into).collect(),
        doubtful: e.doubtful,
    })
}
