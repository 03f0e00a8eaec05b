//! Addresses in the sixteen bytes every map uses.

/// An IPv6 address, or an IPv4 address mapped into one (`::ffff:a.b.c.d`), as it goes over the wire.
///
/// Four words without any byte order of their own, exactly as `bpf_sock_addr.user_ip6` has them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u32; 4]);

/// The third word of a mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// An IPv4 address from the word of a `sockaddr_in`, mapped.
    #[inline(always)]
    pub const fn from_v4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An address from the words of a `sockaddr_in6`.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The words for a `sockaddr_in6`.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The word for a `sockaddr_in`, when this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn v4(self) -> Option<u32> {
        if self.is_v4() { Some(self.0[3]) } else { None }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// An address from its sixteen bytes, network order.
    pub fn from_octets(octets: [u8; 16]) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Self(words)
    }

    /// Its sixteen bytes, network order.
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *bytes = word.to_ne_bytes();
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::Address;

    proptest! {
        #[test]
        fn a_v4_word_is_the_mapped_address(octets: [u8; 4]) {
            let word = u32::from_ne_bytes(octets);
            let address = Address::from_v4(word);
            prop_assert_eq!(address.octets(), Ipv4Addr::from(octets).to_ipv6_mapped().octets());
            prop_assert_eq!(address.v4(), Some(word));
        }

        #[test]
        fn octets_and_words_come_back(octets: [u8; 16]) {
            let address = Address::from_octets(octets);
            prop_assert_eq!(address.octets(), octets);
            prop_assert_eq!(Address::from_words(address.words()), address);
            prop_assert_eq!(address.is_v4(), Ipv6Addr::from(octets).to_ipv4_mapped().is_some());
        }
    }
}
