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

    /// The protocol by its IP number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The key as system calls take it.
    pub fn to_bytes(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.addr.octets());
        bytes[16..18].copy_from_slice(&self.port.to_ne_bytes());
        bytes[18] = self.protocol;
        bytes
    }

    /// A key from its bytes.
    pub fn from_bytes(bytes: &[u8; 20]) -> Self {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[..16]);
        Self::new(Address::from_octets(octets), u16::from_ne_bytes([bytes[16], bytes[17]]), bytes[18])
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

/// A value of `frontends`: who has a service index now. Aligned to words, since user space writes it as such.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendPlace {
    /// The frontend.
    pub key: FrontendKey,
    zero: u32,
}

const _: () = assert!(size_of::<FrontendPlace>() == 8 * FrontendPlace::WORDS);

impl FrontendPlace {
    /// The value's size in words of 8 bytes.
    pub const WORDS: usize = 3;

    /// The place as the words of the map.
    pub fn to_words(key: &FrontendKey) -> [u64; Self::WORDS] {
        let mut bytes = [0; 8 * Self::WORDS];
        bytes[..20].copy_from_slice(&key.to_bytes());
        let mut words = [0; Self::WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        words
    }

    /// The frontend in the words of the map; `None` where there never was one.
    pub fn from_words(words: [u64; Self::WORDS]) -> Option<FrontendKey> {
        let mut bytes = [0; 8 * Self::WORDS];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_ne_bytes();
        }
        let (key, _) = bytes.split_first_chunk::<20>()?;
        let key = FrontendKey::from_bytes(key);
        (key.protocol != 0).then_some(key)
    }
}

/// A key of `members`: a backend of a frontend's table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey {
    service: u32,
    zero: u32,
    id: u64,
}

const _: () = assert!(size_of::<MemberKey>() == 16);

impl MemberKey {
    /// A key of a service index and a backend's identity.
    #[inline(always)]
    pub const fn new(service: u32, id: u64) -> Self {
        Self { service, zero: 0, id }
    }

    /// The service index.
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// The backend's identity.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The key as system calls take it.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.service.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.id.to_ne_bytes());
        bytes
    }

    /// A key from its bytes.
    pub const fn from_bytes(bytes: &[u8; 16]) -> Self {
        let [a, b, c, d, _, _, _, _, i, j, k, l, m, n, o, p] = *bytes;
        Self::new(u32::from_ne_bytes([a, b, c, d]), u64::from_ne_bytes([i, j, k, l, m, n, o, p]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Backend, FrontendKey, FrontendPlace, MemberKey};
    use crate::{Address, TCP};

    #[test]
    fn a_key_is_its_memory() {
        let key = FrontendKey::new(Address::from_octets(*b"abcdefghijklmnop"), 80_u16.to_be(), TCP);
        assert_eq!(key.to_bytes(), *b"abcdefghijklmnop\x00\x50\x06\x00");
    }

    proptest! {
        #[test]
        fn backends_come_back(id: u64, octets: [u8; 16], port: u16, protocol: u8, cluster: u16) {
            let backend = Backend::new(id, Address::from_octets(octets), port, protocol, cluster);
            prop_assert_eq!(Backend::from_words(backend.to_words()), backend);
        }

        #[test]
        fn keys_come_back(octets: [u8; 16], port: u16, protocol: u8, service: u32, id: u64) {
            let key = FrontendKey::new(Address::from_octets(octets), port, protocol);
            prop_assert_eq!(FrontendKey::from_bytes(&key.to_bytes()), key);
            let place = FrontendPlace::from_words(FrontendPlace::to_words(&key));
            prop_assert_eq!(place, (protocol != 0).then_some(key));
            let member = MemberKey::new(service, id);
            prop_assert_eq!(MemberKey::from_bytes(&member.to_bytes()), member);
        }
    }
}
