//! What is remembered of sockets and clients. Unlike the tables it is written by the programs, and outlives them: a
//! socket that was translated by one version of them asks the next one for its peer.

use crate::{Address, Backend, FrontendKey};

/// A value of `reverse`: what a translated socket dialled, and where it was sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reverse {
    frontend: FrontendKey,
    addr: Address,
    port: u16,
    zero: u16,
}

const _: () = assert!(size_of::<Reverse>() == 40 && align_of::<Reverse>() == 4);

impl Reverse {
    /// What a socket dialled and the backend it got.
    #[inline(always)]
    pub const fn new(frontend: FrontendKey, backend: &Backend) -> Self {
        Self { frontend, addr: backend.addr, port: backend.port, zero: 0 }
    }

    /// The frontend to show to a socket whose peer is `addr` and `port`.
    ///
    /// `None` for any other peer: a socket may have dialled another address after a failed connect.
    #[inline(always)]
    pub fn shown(&self, addr: Address, port: u16) -> Option<FrontendKey> {
        if self.addr == addr && self.port == port { Some(self.frontend) } else { None }
    }

    /// Where a datagram of a connected socket goes that names the frontend again: only its peer's answers reach it.
    #[inline(always)]
    pub fn again(&self, dialled: &FrontendKey) -> Option<(Address, u16)> {
        if self.frontend == *dialled { Some((self.addr, self.port)) } else { None }
    }

    /// What the socket dialled.
    pub const fn frontend(&self) -> FrontendKey {
        self.frontend
    }

    /// The backend's address, and its port in network order.
    pub const fn backend(&self) -> (Address, u16) {
        (self.addr, self.port)
    }

    /// A value from its bytes.
    pub fn from_bytes(bytes: &[u8; 40]) -> Self {
        let (mut frontend, mut octets) = ([0; 20], [0; 16]);
        frontend.copy_from_slice(&bytes[..20]);
        octets.copy_from_slice(&bytes[20..36]);
        Self {
            frontend: FrontendKey::from_bytes(&frontend),
            addr: Address::from_octets(octets),
            port: u16::from_ne_bytes([bytes[36], bytes[37]]),
            zero: 0,
        }
    }
}

/// A key of `unconnected`: a backend that a UDP socket without a peer has sent to. The value is the frontend that it
/// named, and sees as the source of the answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnconnectedKey {
    cookie: u64,
    addr: Address,
    port: u16,
    zero: [u16; 3],
}

const _: () = assert!(size_of::<UnconnectedKey>() == 32);

impl UnconnectedKey {
    /// A key of a socket's cookie and an address, with the port in network order.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Address, port: u16) -> Self {
        Self { cookie, addr, port, zero: [0; 3] }
    }
}

/// A key of `affinity`: a client, which is a network namespace, of a frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    netns: u64,
    service: u32,
    zero: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 16);

impl AffinityKey {
    /// A key of a network namespace's cookie and a service index.
    #[inline(always)]
    pub const fn new(netns: u64, service: u32) -> Self {
        Self { netns, service, zero: 0 }
    }
}

/// A value of `affinity`: the backend a client got last, and when.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The backend's identity.
    pub id: u64,
    /// When it was used last, in nanoseconds of the machine's monotonic clock.
    pub used: u64,
}

const _: () = assert!(size_of::<Affinity>() == 16);

#[cfg(test)]
mod tests {
    use super::Reverse;
    use crate::{Address, Backend, FrontendKey, TCP};

    const FRONTEND: FrontendKey = FrontendKey::new(Address::from_v4(1), 80, TCP);
    const BACKEND: Backend = Backend::new(1, Address::from_v4(2), 8080, TCP, 1);

    #[test]
    fn only_the_backend_is_shown_as_the_frontend() {
        let reverse = Reverse::new(FRONTEND, &BACKEND);
        assert_eq!(reverse.shown(BACKEND.addr, BACKEND.port), Some(FRONTEND));
        assert_eq!(reverse.shown(BACKEND.addr, 81), None);
        assert_eq!(reverse.shown(Address::from_v4(3), BACKEND.port), None);
    }

    #[test]
    fn a_connected_socket_that_names_its_frontend_again_stays() {
        let reverse = Reverse::new(FRONTEND, &BACKEND);
        assert_eq!(reverse.again(&FRONTEND), Some((BACKEND.addr, BACKEND.port)));
        assert_eq!(reverse.again(&FrontendKey::new(Address::from_v4(1), 81, TCP)), None);
    }

    #[test]
    fn it_comes_back_from_its_bytes() {
        let mut bytes = [0; 40];
        bytes[..20].copy_from_slice(&FRONTEND.to_bytes());
        bytes[20..36].copy_from_slice(&BACKEND.addr.octets());
        bytes[36..38].copy_from_slice(&BACKEND.port.to_ne_bytes());
        assert_eq!(Reverse::from_bytes(&bytes), Reverse::new(FRONTEND, &BACKEND));
    }
}
