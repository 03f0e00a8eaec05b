//! One number for all shapes here, and the mark by which a compiled object shows which one it was built with.

use core::mem::offset_of;

use crate::packed::{BASE_BITS, COUNT_BITS, FLAG_BITS, FLAG_PASS, GENERATION_BITS, INDEX_BITS};
use crate::{Backend, FAULTS, FrontendKey, Reverse, ServiceValue, SwitchValue, TCP};

/// Raised when a meaning changes that no size or offset shows.
const REVISION: usize = 1;

/// Sizes, offsets and bit widths of everything that a map holds.
const SHAPE: [usize; 22] = [
    REVISION,
    size_of::<FrontendKey>(),
    size_of::<ServiceValue>(),
    size_of::<SwitchValue>(),
    size_of::<u64>(), // a slot, a counter
    size_of::<Backend>(),
    offset_of!(Backend, id),
    offset_of!(Backend, addr),
    offset_of!(Backend, port),
    offset_of!(Backend, cluster),
    offset_of!(Backend, protocol),
    size_of::<Reverse>(),
    align_of::<Reverse>(),
    INDEX_BITS as usize,
    FLAG_BITS as usize,
    FLAG_PASS as usize,
    BASE_BITS as usize,
    COUNT_BITS as usize,
    GENERATION_BITS as usize,
    FAULTS as usize,
    TCP as usize,
    align_of::<Backend>(),
];

/// Changes whenever a key or value of the maps does (FNV-1a over [`SHAPE`]).
pub const LAYOUT_HASH: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < SHAPE.len() {
        hash = (hash ^ SHAPE[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
};

/// How [`LAYOUT_MARK`] begins.
pub const MARK_MAGIC: [u8; 16] = *b"tombolo-layout:\0";

/// What an object carries: the magic, then [`LAYOUT_HASH`] in little endian.
pub const LAYOUT_MARK: [u8; 24] = {
    let mut mark = [0; 24];
    let (magic, hash) = mark.split_at_mut(MARK_MAGIC.len());
    magic.copy_from_slice(&MARK_MAGIC);
    hash.copy_from_slice(&LAYOUT_HASH.to_le_bytes());
    mark
};
