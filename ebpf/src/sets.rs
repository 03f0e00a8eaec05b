//! Which maps there are, how large each is, and the two sets in which they live and die.

use tombolo_ebpf_layout::{
    Address, Affinity, AffinityKey, Backend, CLUSTERS, CONTROLS, FAULTS, FrontendKey, FrontendPlace, MemberKey,
    Reverse, SOCKETS_LAYOUT, ServiceValue, SwitchValue, TABLES_LAYOUT, TRANSLATED, UnconnectedKey,
};

use crate::DatapathConfig;

/// Maps that are adopted, or made anew, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// What plans write, and what the programs count.
    Tables,
    /// What the programs remember of sockets and clients. It outlives a change of the tables.
    Sockets,
}

impl Set {
    /// The two.
    pub(crate) const ALL: [Self; 2] = [Self::Tables, Self::Sockets];

    /// What the names of its folders begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Tables => "tables-",
            Self::Sockets => "sockets-",
        }
    }

    /// Its maps.
    pub(crate) fn maps(self) -> impl Iterator<Item = &'static MapShape> {
        MAPS.iter().filter(move |map| map.set == self)
    }

    /// What the names of its folders begin with whose contents can be read by this program.
    pub(crate) fn readable(self) -> String {
        match self {
            Self::Tables => format!("{}{:08x}-", self.prefix(), writing()),
            Self::Sockets => self.prefix().to_owned(),
        }
    }

    /// The name of its folder: another layout or another size is another folder.
    pub(crate) fn folder(self, config: &DatapathConfig) -> String {
        let layout = match self {
            Self::Tables => TABLES_LAYOUT,
            Self::Sockets => SOCKETS_LAYOUT,
        };
        let sizes = self.maps().map(|map| u64::from(map.entries.of(config)));
        let hash = sizes.fold(layout, step);
        format!("{}{hash:016x}", self.readable())
    }
}

/// A map as the kernel describes one.
#[derive(Debug)]
pub(crate) struct MapShape {
    pub(crate) name: &'static str,
    pub(crate) set: Set,
    /// include/uapi/linux/bpf.h, `enum bpf_map_type`.
    pub(crate) kind: u32,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) entries: Entries,
}

/// Where a map's size comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entries {
    Services,
    Backends,
    Slots,
    Members,
    Connections,
    Unconnected,
    Affinities,
    Fixed(u32),
}

impl Entries {
    pub(crate) fn of(self, config: &DatapathConfig) -> u32 {
        match self {
            Self::Services => config.limits.services,
            Self::Backends => config.limits.backends,
            Self::Slots => config.limits.slots,
            Self::Members => config.limits.members,
            Self::Connections => config.connections,
            Self::Unconnected => config.unconnected,
            Self::Affinities => config.affinities,
            Self::Fixed(entries) => entries,
        }
    }
}

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LRU_HASH: u32 = 9;
const RING: u32 = 27;

/// Bytes of the ring buffer: about 9,000 flows.
const EVENTS: u32 = 1 << 20;
/// How many cgroups can be left alone.
pub(crate) const MOST_SKIPPED: u32 = 1024;

/// All maps that have a name, except for the constants that the loader sets in a program.
pub(crate) const MAPS: [MapShape; 18] = [
    map("services", Set::Tables, HASH, size_of::<FrontendKey>(), 8, Entries::Services),
    map("frontends", Set::Tables, ARRAY, 4, size_of::<FrontendPlace>(), Entries::Services),
    map("switch", Set::Tables, ARRAY, 4, 8, Entries::Services),
    map("slots", Set::Tables, ARRAY, 4, 8, Entries::Slots),
    map("backends", Set::Tables, ARRAY, 4, size_of::<Backend>(), Entries::Backends),
    map("members", Set::Tables, HASH, size_of::<MemberKey>(), 8, Entries::Members),
    map("stats", Set::Tables, ARRAY, 4, 8, Entries::Backends),
    map("service_stats", Set::Tables, ARRAY, 4, 8, Entries::Services),
    map("refused", Set::Tables, ARRAY, 4, 8, Entries::Services),
    map("erased", Set::Tables, ARRAY, 4, 8, Entries::Fixed(CLUSTERS)),
    map("faults", Set::Tables, ARRAY, 4, 8, Entries::Fixed(FAULTS)),
    map("control", Set::Tables, ARRAY, 4, 8, Entries::Fixed(CONTROLS)),
    map("skip", Set::Tables, HASH, 8, 8, Entries::Fixed(MOST_SKIPPED)),
    map("events", Set::Tables, RING, 0, 0, Entries::Fixed(EVENTS)),
    map("reverse", Set::Sockets, HASH, 8, size_of::<Reverse>(), Entries::Connections),
    map("translated", Set::Sockets, ARRAY, 4, 8, Entries::Fixed(TRANSLATED)),
    map(
        "unconnected",
        Set::Sockets,
        LRU_HASH,
        size_of::<UnconnectedKey>(),
        size_of::<FrontendKey>(),
        Entries::Unconnected,
    ),
    map("affinity", Set::Sockets, LRU_HASH, size_of::<AffinityKey>(), size_of::<Affinity>(), Entries::Affinities),
];

/// How tables are written: what a sample of each value looks like. Another layout may write the same, as one with one
/// more counter does; then what an earlier datapath wrote can be read.
fn writing() -> u32 {
    let frontend = FrontendKey::new(Address::from_octets(*b"0123456789abcdef"), 0x1234, 0x56);
    let backend = Backend::new(0x0123_4567_89ab_cdef, frontend.addr(), 0x1234, 0x56, 0x789);
    let service = ServiceValue::new(0x00ab_cdef, true, 0x1234_5678).map_or(0, ServiceValue::to_raw);
    let switch = SwitchValue::new(0x89ab_cdef, 0x4_5678, 0x123).map_or(0, SwitchValue::to_raw);
    let member = MemberKey::new(0x89ab_cdef, 0x0123_4567_89ab_cdef).to_bytes();
    let words = [&backend.to_words()[..], &FrontendPlace::to_words(&frontend), &[service, switch]].concat();
    let words = words.into_iter().flat_map(u64::to_ne_bytes);
    let bytes = frontend.to_bytes().into_iter().chain(member).chain(words);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| step(hash, byte.into()));
    (hash >> 32) as u32 ^ hash as u32
}

/// FNV-1a.
fn step(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}

const fn map(name: &'static str, set: Set, kind: u32, key: usize, value: usize, entries: Entries) -> MapShape {
    MapShape { name, set, kind, key, value, entries }
}
