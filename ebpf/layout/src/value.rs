//! Keys and values of several fields. They are written before a switch points at them, and never changed under it.

use crate::Address;

/// A key of `services`: what a client dials.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    addr: Address,
    port: u16,
    protocol: u8,
    zero: u8,
}

const _: () = assert!(size_of::<FrontendKey>() == 20 && align_of::<FrontendKey>() == 4);

impl FrontendKey {
    /// A key; the port in network order, the protocol by its IP number.
    #[inline(always)]
    pub const fn new(addr: Address, port: u16, protocol: u8) -> Self {
        Self { addr, port, protocol, zero: 0 }
    }

    /// The address.
    #[inline(always)]
    pub const fn addr(&self) -> Address {
        self.addr
    }

    /// The port, network order.
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The key as system calls take it.
    pub fn to_bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.addr.octets());
        bytes[16..18].copy_from_slice(&self.port.to_ne_bytes());
        bytes[18] = self.protocol;
        bytes
    }
}

/// A value of `backends`: where a connection goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The identity, never reused.
    pub id: u64,
    /// The address.
    pub addr: Address,
    /// The port, network order; 0 where no backend is.
    pub port: u16,
    /// The cluster it runs in.
    pub cluster: u16,
    /// The protocol by its IP number.
    pub protocol: u8,
    zero: [u8; 3],
}

const _: () = assert!(size_of::<Backend>() == 8 * Backend::WORDS && align_of::<Backend>() == 8);

impl Backend {
    /// The value's size in words of 8 bytes.
    pub const WORDS: usize = 4;

    /// A backend; the port in network order, the protocol by its IP number.
    #[inline(always)]
    pub const fn new(id: u64, addr: Address, port: u16, protocol: u8, cluster: u16) -> Self {
        Self { id, addr, port, cluster, protocol, zero: [0; 3] }
    }

    /// The value as the words of the map.
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut bytes = [0; 8 * Self::WORDS];
        bytes[..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..24].copy_from_slice(&self.addr.octets());
        bytes[24..26].copy_from_slice(&self.port.to_ne_bytes());
        bytes[26..28].copy_from_slice(&self.cluster.to_ne_bytes());
        bytes[28] = self.protocol;
        let mut words = [0; Self::WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        words
    }

    /// A value from the words of the map.
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [id, addr_low, addr_high, rest] = words;
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&addr_low.to_ne_bytes());
        octets[8..].copy_from_slice(&addr_high.to_ne_bytes());
        let [port_0, port_1, cluster_0, cluster_1, protocol, ..] = rest.to_ne_bytes();
        Self::new(
            id,
            Address::from_octets(octets),
            u16::from_ne_bytes([port_0, port_1]),
            protocol,
            u16::from_ne_bytes([cluster_0, cluster_1]),
        )
    }
}

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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Backend, FrontendKey, Reverse};
    use crate::{Address, TCP};

    #[test]
    fn a_key_is_its_memory() {
        let key = FrontendKey::new(Address::from_octets(*b"abcdefghijklmnop"), 80_u16.to_be(), TCP);
        assert_eq!(key.to_bytes(), *b"abcdefghijklmnop\x00\x50\x06\x00");
    }

    #[test]
    fn only_the_backend_is_shown_as_the_frontend() {
        let frontend = FrontendKey::new(Address::from_v4(1), 80, TCP);
        let backend = Backend::new(1, Address::from_v4(2), 8080, TCP, 1);
        let reverse = Reverse::new(frontend, &backend);
        assert_eq!(reverse.shown(backend.addr, backend.port), Some(frontend));
        assert_eq!(reverse.shown(backend.addr, 81), None);
        assert_eq!(reverse.shown(Address::from_v4(3), backend.port), None);
    }

    proptest! {
        #[test]
        fn backends_come_back(id: u64, octets: [u8; 16], port: u16, protocol: u8, cluster: u16) {
            let backend = Backend::new(id, Address::from_octets(octets), port, protocol, cluster);
            prop_assert_eq!(Backend::from_words(backend.to_words()), backend);
        }
    }
}
