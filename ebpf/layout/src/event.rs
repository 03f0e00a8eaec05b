//! What the programs tell of a connection, through the ring buffer `events`.

use crate::{Address, FrontendKey};

/// What became of a connect, or of a datagram without a connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowKind {
    /// A connect was sent to a backend.
    Connected = 1,
    /// A socket without a connection got a backend for its datagrams; told once per socket and backend.
    Datagram = 2,
    /// Refused: no backend serves.
    Refused = 3,
    /// Left alone: no backend serves, and the service says so.
    Passed = 4,
    /// Refused: the table led nowhere.
    Broken = 5,
}

impl FlowKind {
    /// A kind by its number.
    pub fn of(number: u8) -> Option<Self> {
        [Self::Connected, Self::Datagram, Self::Refused, Self::Passed, Self::Broken]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// One decision, as the ring buffer holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// Nanoseconds of the machine's monotonic clock.
    pub time: u64,
    /// The process's cgroup.
    pub cgroup: u64,
    /// The socket's network namespace.
    pub netns: u64,
    /// The backend's identity, 0 where there is none.
    pub backend: u64,
    /// The service index.
    pub service: u32,
    /// The process (a thread group).
    pub pid: u32,
    /// What was dialled.
    pub frontend: FrontendKey,
    /// The backend's address.
    pub addr: Address,
    /// The backend's port, network order.
    pub port: u16,
    /// The backend's cluster.
    pub cluster: u16,
    /// The process's name, ended by a zero.
    pub comm: [u8; 16],
    /// A [`FlowKind`] by its number.
    pub kind: u8,
    /// Zeros; the protocol is the frontend's.
    pub zero: [u8; 7],
}

const _: () = assert!(size_of::<FlowEvent>() == FlowEvent::SIZE && align_of::<FlowEvent>() == 8);

impl FlowEvent {
    /// The size in bytes.
    pub const SIZE: usize = 104;

    /// An event from the ring buffer's bytes.
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        Self {
            time: u64::from_ne_bytes(part(bytes, 0)),
            cgroup: u64::from_ne_bytes(part(bytes, 8)),
            netns: u64::from_ne_bytes(part(bytes, 16)),
            backend: u64::from_ne_bytes(part(bytes, 24)),
            service: u32::from_ne_bytes(part(bytes, 32)),
            pid: u32::from_ne_bytes(part(bytes, 36)),
            frontend: FrontendKey::from_bytes(&part(bytes, 40)),
            addr: Address::from_octets(part(bytes, 60)),
            port: u16::from_ne_bytes(part(bytes, 76)),
            cluster: u16::from_ne_bytes(part(bytes, 78)),
            comm: part(bytes, 80),
            kind: bytes[96],
            zero: [0; 7],
        }
    }
}

fn part<const N: usize>(bytes: &[u8; FlowEvent::SIZE], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::{FlowEvent, FlowKind};
    use crate::{Address, FrontendKey, TCP};

    #[test]
    fn every_field_is_read_where_it_is() {
        let mut bytes = [0; FlowEvent::SIZE];
        let frontend = FrontendKey::new(Address::from_v4(7), 80, TCP);
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        for (number, at) in [
            (1_u64, offset_of!(FlowEvent, time)),
            (2, offset_of!(FlowEvent, cgroup)),
            (3, offset_of!(FlowEvent, netns)),
            (4, offset_of!(FlowEvent, backend)),
        ] {
            put(at, &number.to_ne_bytes());
        }
        put(offset_of!(FlowEvent, service), &5_u32.to_ne_bytes());
        put(offset_of!(FlowEvent, pid), &6_u32.to_ne_bytes());
        put(offset_of!(FlowEvent, frontend), &frontend.to_bytes());
        put(offset_of!(FlowEvent, addr), &Address::from_v4(8).octets());
        put(offset_of!(FlowEvent, port), &9_u16.to_ne_bytes());
        put(offset_of!(FlowEvent, cluster), &10_u16.to_ne_bytes());
        put(offset_of!(FlowEvent, comm), b"curl\0\0\0\0\0\0\0\0\0\0\0\0");
        put(offset_of!(FlowEvent, kind), &[FlowKind::Refused as u8]);
        let expected = FlowEvent {
            time: 1,
            cgroup: 2,
            netns: 3,
            backend: 4,
            service: 5,
            pid: 6,
            frontend,
            addr: Address::from_v4(8),
            port: 9,
            cluster: 10,
            comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            kind: 3,
            zero: [0; 7],
        };
        assert_eq!(FlowEvent::from_bytes(&bytes), expected);
    }

    #[test]
    fn kinds_have_numbers() {
        assert_eq!(FlowKind::of(4), Some(FlowKind::Passed));
        assert_eq!(FlowKind::of(0), None);
    }
}
