//! The programs' events: what became of sampled connects and datagrams.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, RingBuf};
use rustix::time::{ClockId, clock_gettime};
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{BackendId, ServiceIndex};
use tombolo_ebpf_layout::{FlowEvent as Raw, FlowKind};

use crate::{Datapath, DatapathError, convert};

/// One decision of the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Nanoseconds of the machine's monotonic clock.
    pub time_ns: u64,
    /// What was decided.
    pub kind: FlowKind,
    /// The frontend's index; it may have another frontend by now.
    pub service: ServiceIndex,
    /// What was dialled, or sent to.
    pub frontend: Frontend,
    /// Where it was sent.
    pub backend: Option<(BackendId, BackendKey)>,
    /// The process's cgroup; [`crate::cgroup_path`] has its folder.
    pub cgroup: u64,
    /// The cookie of the socket's network namespace.
    pub netns: u64,
    /// The process.
    pub pid: u32,
    /// The name of its thread, at most 15 bytes.
    pub command: String,
}

impl FlowEvent {
    /// How long ago it was told.
    pub fn age(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or(0));
        now.saturating_sub(Duration::from_nanos(self.time_ns))
    }
}

/// Reads the ring buffer. Its descriptor is readable when there is something to read.
pub struct FlowReader(RingBuf<MapData>);

impl Datapath {
    /// What the programs tell, from where an earlier reader ended. Only the first call has it: two readers would lose
    /// each other's events. Nothing is told before [`crate::Executor::set_sampling`], and before `commit` the links may
    /// still tell an earlier datapath's reader.
    pub fn flows(&mut self) -> Result<FlowReader, DatapathError> {
        let ring = self.maps.take_events().ok_or(DatapathError::FlowsTaken)?;
        FlowReader::of(ring).map_err(|source| DatapathError::Flows(Box::new(source)))
    }
}

impl FlowReader {
    fn of(ring: OwnedFd) -> Result<Self, MapError> {
        let map: Map = Map::from_map_data(MapData::from_fd(ring)?)?;
        Ok(Self(RingBuf::try_from(map)?))
    }

    /// The next event, `None` when all are read. What cannot be one is passed over.
    pub fn next_event(&mut self) -> Option<FlowEvent> {
        loop {
            let event = self.0.next()?.first_chunk().map(Raw::from_bytes);
            if let Some(event) = event.as_ref().and_then(event_of) {
                return Some(event);
            }
        }
    }
}

impl fmt::Debug for FlowReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FlowReader").field(&self.as_raw_fd()).finish()
    }
}

impl AsFd for FlowReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for FlowReader {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn event_of(raw: &Raw) -> Option<FlowEvent> {
    let frontend = convert::frontend(&raw.frontend)?;
    let name = raw.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(FlowEvent {
        time_ns: raw.time,
        kind: FlowKind::of(raw.kind)?,
        service: ServiceIndex(raw.service),
        frontend,
        backend: convert::told_backend(raw, frontend.protocol),
        cgroup: raw.cgroup,
        netns: raw.netns,
        pid: raw.pid,
        command: String::from_utf8_lossy(name).into_owned(),
    })
}
