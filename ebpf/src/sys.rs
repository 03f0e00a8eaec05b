//! System calls that neither aya nor rustix wraps: bpf(2) by hand, and membarrier(2).
#![expect(unsafe_code, reason = "system calls on plain memory")]

mod feature;
mod handle;
mod object;
mod pin;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

pub(crate) use feature::*;
pub(crate) use handle::*;
pub(crate) use object::*;
pub(crate) use pin::*;

// include/uapi/linux/bpf.h, `enum bpf_cmd`, `enum bpf_map_type` and flags.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// Before the programs that are attached already; kernel 6.17 for cgroups.
pub(crate) const BPF_F_BEFORE: u32 = 1 << 3;
/// A map that programs cannot write: constants.
pub(crate) const BPF_F_RDONLY_PROG: u32 = 1 << 7;
/// An array that user space may map.
pub(crate) const BPF_F_MMAPABLE: u32 = 1 << 10;
// include/uapi/linux/membarrier.h.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// `union bpf_attr`, the part for BPF_MAP_CREATE.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// The part for BPF_MAP_*_ELEM.
#[repr(C)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part for BPF_MAP_*_BATCH.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part for BPF_LINK_CREATE on a cgroup.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// The part for BPF_PROG_QUERY, as far as kernel 5.10 has it.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// # Safety
/// Every address in `attr` must be valid for what `cmd` reads and writes there.
unsafe fn bpf<T>(cmd: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is a whole part of `union bpf_attr` with its size; the caller vouches for the addresses inside.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    // Every answer is a file descriptor or 0, so it fits; -1 is an error.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes an array of `entries` words.
pub(crate) fn create_array(entries: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: entries,
        map_flags: flags,
        ..MapCreate::default()
    };
    // SAFETY: no address inside.
    unsafe { bpf(BPF_MAP_CREATE, &mut attr) }.map(own)
}

/// Makes an array of one map shaped like `inner`, and puts `inner` in. The update returns after an RCU grace period.
pub(crate) fn wait_by_map_in_map(inner: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: fd(inner),
        ..MapCreate::default()
    };
    // SAFETY: no address inside.
    let outer = unsafe { bpf(BPF_MAP_CREATE, &mut attr) }.map(own)?;
    let value = fd(inner);
    let mut attr = element(&outer, &0_u32.to_ne_bytes(), (&raw const value) as u64);
    // SAFETY: key and value are four bytes each and outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

fn element(map: &OwnedFd, key: &[u8], value: u64) -> Element {
    Element { map_fd: map.as_raw_fd().cast_unsigned(), pad: 0, key: key.as_ptr() as u64, value, flags: 0 }
}

/// A hash map with keys of `K` bytes and one word a value.
#[derive(Debug)]
pub(crate) struct WordMap<const K: usize>(OwnedFd);

impl<const K: usize> WordMap<K> {
    /// # Safety
    /// `map` must be a map whose keys have `K` bytes and whose values have 8.
    pub(crate) unsafe fn new(map: OwnedFd) -> Self {
        Self(map)
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8; K]) -> io::Result<Option<u64>> {
        let mut value = 0_u64;
        let mut attr = element(&self.0, key, (&raw mut value) as u64);
        // SAFETY: the key has `K` bytes and the value 8, as the map wants, and both outlive the call.
        absent_is_none(unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }).map(|found| found.then_some(value))
    }

    /// Writes many keys at once, in their order; those before one that fails are written.
    pub(crate) fn put(&self, keys: &[[u8; K]], values: &[u64]) -> io::Result<()> {
        let mut done = 0;
        while done < keys.len().min(values.len()) {
            let (keys, values) = (&keys[done..], &values[done..]);
            let mut attr = self.batch(keys.as_ptr() as u64, values.as_ptr() as u64, keys.len().min(values.len()));
            // SAFETY: `count` keys of `K` bytes and as many values of 8 lie at these addresses and outlive the call.
            unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }?;
            done += attr.count as usize;
        }
        Ok(())
    }

    /// Deletes many keys at once; those that are absent are passed over.
    pub(crate) fn delete_all(&self, keys: &[[u8; K]]) -> io::Result<()> {
        let mut done = 0;
        while done < keys.len() {
            let keys = &keys[done..];
            let mut attr = self.batch(keys.as_ptr() as u64, 0, keys.len());
            // SAFETY: `count` keys of `K` bytes lie at this address and outlive the call.
            let found = absent_is_none(unsafe { bpf(BPF_MAP_DELETE_BATCH, &mut attr) })?;
            // At an absent key the kernel stops, having deleted `count`.
            done += attr.count as usize + usize::from(!found);
        }
        Ok(())
    }

    /// All keys with their values, in no order.
    pub(crate) fn entries(&self) -> io::Result<Vec<([u8; K], u64)>> {
        let entries = entries::<K, 8>(self.0.as_fd())?;
        Ok(entries.into_iter().map(|(key, value)| (key, u64::from_ne_bytes(value))).collect())
    }

    fn batch(&self, keys: u64, values: u64, count: usize) -> Batch {
        Batch {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            map_fd: self.0.as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        }
    }
}

/// The first value of an array, whose values have `size` bytes.
pub(crate) fn array_value(array: BorrowedFd<'_>, size: usize) -> io::Result<Vec<u8>> {
    // The kernel copies values in whole words.
    let (key, mut value) = (0_u32, vec![0; size.next_multiple_of(8)]);
    let mut attr =
        Element { map_fd: fd(array), pad: 0, key: (&raw const key) as u64, value: value.as_mut_ptr() as u64, flags: 0 };
    // SAFETY: the key has four bytes, and there is room for the value; both outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    value.truncate(size);
    Ok(value)
}

/// All entries of a hash map, in no order; what is written meanwhile may be among them. EINVAL when its keys have not `K`
/// bytes or its values not `V`.
pub(crate) fn entries<const K: usize, const V: usize>(map: BorrowedFd<'_>) -> io::Result<Vec<([u8; K], [u8; V])>> {
    let info = map_info(map)?;
    if (info.key_size as usize, info.value_size as usize) != (K, V) || !V.is_multiple_of(8) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (mut all, mut room, mut from) = (Vec::new(), 4096, None);
    loop {
        let (mut keys, mut values, mut next) = (vec![[0; K]; room], vec![[0; V]; room], 0_u32);
        let mut attr = Batch {
            in_batch: from.as_ref().map_or(0, |from: &u32| std::ptr::from_ref(from) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map_fd: fd(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for `count` keys and values of the sizes that the map says, and for the place of four
        // bytes that a hash map's batches end and begin at; all outlive the call.
        let more = match absent_is_none(unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) }) {
            // One bucket of the map has more than there is room for.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                room *= 2;
                continue;
            }
            other => other?,
        };
        all.extend(keys.into_iter().zip(values).take(attr.count as usize));
        if !more {
            return Ok(all);
        }
        from = Some(next);
    }
}

/// How many entries a hash map has whose keys are words; the map may change meanwhile.
pub(crate) fn count_word_keys(map: &OwnedFd) -> io::Result<usize> {
    let (mut key, mut next, mut count) = ([0; 8], 0_u64, 0);
    loop {
        let mut attr = element(map, &key, (&raw mut next) as u64);
        if count == 0 {
            attr.key = 0; // no key yet: the first one is wanted
        }
        // SAFETY: the key is 8 bytes or nowhere, and 8 bytes are there for the next one, as long as the call runs.
        if !absent_is_none(unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) })? {
            return Ok(count);
        }
        key = next.to_ne_bytes();
        count += 1;
    }
}

fn absent_is_none(result: io::Result<RawFd>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Detaches a link from its cgroup, whoever else holds or has pinned it.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = fd(link);
    // SAFETY: no address inside.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// Attaches a program to a cgroup by a link, for as long as the link is held or pinned.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: fd(program),
        target_fd: fd(cgroup),
        attach_type,
        flags,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    // SAFETY: no address inside.
    unsafe { bpf(BPF_LINK_CREATE, &mut attr) }.map(own)
}

/// `membarrier(MEMBARRIER_CMD_GLOBAL)`: returns after an RCU grace period. EINVAL on kernels with nohz_full.
pub(crate) fn membarrier_global() -> io::Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
