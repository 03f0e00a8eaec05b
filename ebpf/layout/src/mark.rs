//! Two numbers for all shapes here, and the mark by which a compiled object shows which ones it was built with.
//!
//! Two, because what is remembered of sockets outlives a change of the tables' shape: a new version fills its own tables
//! and takes the sockets' maps over.

use core::mem::offset_of;

use crate::packed::{BASE_BITS, COUNT_BITS, FLAG_BITS, FLAG_PASS, GENERATION_BITS, INDEX_BITS};
use crate::{
    Affinity, AffinityKey, Backend, CLUSTERS, CONTROLS, FAULTS, FlowEvent, FrontendKey, FrontendPlace, MemberKey,
    Reverse, SKIP_LEVELS, ServiceValue, SwitchValue, TCP, TRANSLATED, UDP, UnconnectedKey,
};

/// Raised when a meaning changes that no size or offset shows.
const TABLES_REVISION: usize = 2;
/// As above.
const SOCKETS_REVISION: usize = 1;

/// Sizes, offsets and bit widths of what plans write, and of what the programs count and tell.
const TABLES: [usize; 32] = [
    TABLES_REVISION,
    size_of::<FrontendKey>(),
    size_of::<FrontendPlace>(),
    size_of::<ServiceValue>(),
    size_of::<SwitchValue>(),
    size_of::<u64>(), // a slot, a counter, a member's place
    size_of::<Backend>(),
    align_of::<Backend>(),
    offset_of!(Backend, id),
    offset_of!(Backend, addr),
    offset_of!(Backend, port),
    offset_of!(Backend, cluster),
    offset_of!(Backend, protocol),
    size_of::<MemberKey>(),
    INDEX_BITS as usize,
    FLAG_BITS as usize,
    FLAG_PASS as usize,
    BASE_BITS as usize,
    COUNT_BITS as usize,
    GENERATION_BITS as usize,
    FAULTS as usize,
    CLUSTERS as usize,
    CONTROLS as usize,
    SKIP_LEVELS as usize,
    TCP as usize,
    UDP as usize,
    size_of::<FlowEvent>(),
    offset_of!(FlowEvent, frontend),
    offset_of!(FlowEvent, addr),
    offset_of!(FlowEvent, port),
    offset_of!(FlowEvent, comm),
    offset_of!(FlowEvent, kind),
];

/// The same of what is remembered of sockets and clients.
const SOCKETS: [usize; 9] = [
    SOCKETS_REVISION,
    size_of::<FrontendKey>(),
    size_of::<Reverse>(),
    align_of::<Reverse>(),
    size_of::<UnconnectedKey>(),
    size_of::<AffinityKey>(),
    size_of::<Affinity>(),
    offset_of!(Affinity, used),
    TRANSLATED as usize,
];

/// FNV-1a.
const fn hash(shape: &[usize]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < shape.len() {
        hash = (hash ^ shape[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// Changes whenever a key or value of the tables does: `services`, `frontends`, `switch`, `slots`, `backends`,
/// `members`, the counters, `control`, `skip` and `events`.
pub const TABLES_LAYOUT: u64 = hash(&TABLES);

/// Changes whenever a key or value of `reverse`, `translated`, `unconnected` or `affinity` does.
pub const SOCKETS_LAYOUT: u64 = hash(&SOCKETS);

/// How [`LAYOUT_MARK`] begins.
pub const MARK_MAGIC: [u8; 16] = *b"tombolo-layout:\0";

/// What an object carries: the magic, then [`TABLES_LAYOUT`] and [`SOCKETS_LAYOUT`] in little endian.
pub const LAYOUT_MARK: [u8; 32] = {
    let mut mark = [0; 32];
    let (magic, hashes) = mark.split_at_mut(MARK_MAGIC.len());
    magic.copy_from_slice(&MARK_MAGIC);
    let (tables, sockets) = hashes.split_at_mut(8);
    tables.copy_from_slice(&TABLES_LAYOUT.to_le_bytes());
    sockets.copy_from_slice(&SOCKETS_LAYOUT.to_le_bytes());
    mark
};
