//! What the kernel says of programs, maps and links, and how to find them: bpf(2)'s ids and `BPF_OBJ_GET_INFO_BY_FD`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{BPF_PROG_QUERY, ProgQuery, bpf, fd, own};

// include/uapi/linux/bpf.h, `enum bpf_cmd`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_ENABLE_STATS: libc::c_int = 32;
/// `enum bpf_link_type`.
const BPF_LINK_TYPE_CGROUP: u32 = 3;

/// A kind of object that has ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Program,
    Map,
}

impl Kind {
    /// `BPF_*_GET_FD_BY_ID`.
    fn command(self) -> libc::c_int {
        match self {
            Self::Program => 13,
            Self::Map => 14,
        }
    }
}

/// The part of `union bpf_attr` for ids.
#[repr(C)]
#[derive(Default)]
struct Id {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The part for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_prog_info`, as far as kernel 5.10 has it.
#[repr(C)]
#[derive(Default)]
struct RawProgram {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    code_lengths: [u32; 2],
    code: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    ifindex: u32,
    flags: u32,
    netns: [u64; 2],
    nr_jited: [u32; 2],
    jited: [u64; 2],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: [u64; 2],
    nr_jited_line_info: u32,
    line_info_sizes: [u32; 2],
    nr_prog_tags: u32,
    prog_tags: u64,
    run_time_ns: u64,
    run_cnt: u64,
}

const _: () = assert!(size_of::<RawProgram>() == 208 && std::mem::offset_of!(RawProgram, run_time_ns) == 192);

/// `struct bpf_map_info`, as far as it is read here.
#[repr(C)]
#[derive(Default)]
struct RawMap {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; 16],
}

/// `struct bpf_link_info`, for a cgroup's link.
#[repr(C)]
#[derive(Default)]
struct RawLink {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    cgroup_id: u64,
    attach_type: u32,
    rest: u32,
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// A hash of its instructions, the maps' identities left out.
    pub(crate) tag: [u8; 8],
    /// The ids of its maps, sorted.
    pub(crate) maps: Vec<u32>,
    pub(crate) runs: u64,
    pub(crate) run_time_ns: u64,
}

/// What the kernel says of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) name: String,
}

/// What the kernel says of a link to a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program: u32,
    /// 0 when the cgroup is gone.
    pub(crate) cgroup: u64,
    pub(crate) attach_type: u32,
}

/// An object by its id, `None` when it is gone.
pub(crate) fn by_id(kind: Kind, id: u32) -> io::Result<Option<OwnedFd>> {
    let mut attr = Id { id, ..Id::default() };
    // SAFETY: no address inside; the answer is a new descriptor.
    match unsafe { bpf(kind.command(), &mut attr) } {
        Ok(fd) => Ok(Some(own(fd))),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What the kernel says of a program.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let mut ids = vec![0_u32; 64];
    loop {
        let mut raw = RawProgram {
            nr_map_ids: u32::try_from(ids.len()).unwrap_or(u32::MAX),
            map_ids: ids.as_mut_ptr() as u64,
            ..RawProgram::default()
        };
        // SAFETY: `raw` is a prefix of the kernel's structure, all of its addresses are 0 with counts of 0, except for
        // `map_ids`, where `nr_map_ids` numbers fit.
        unsafe { info(program, &mut raw) }?;
        let count = raw.nr_map_ids as usize;
        if count > ids.len() {
            ids.resize(count, 0);
            continue;
        }
        ids.truncate(count);
        ids.sort_unstable();
        return Ok(ProgramInfo {
            id: raw.id,
            name: text(&raw.name),
            tag: raw.tag,
            maps: ids,
            runs: raw.run_cnt,
            run_time_ns: raw.run_time_ns,
        });
    }
}

/// What the kernel says of a map.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut raw = RawMap::default();
    // SAFETY: `raw` is a prefix of the kernel's structure, without addresses.
    unsafe { info(map, &mut raw) }?;
    let RawMap { kind, id, key_size, value_size, max_entries, map_flags: flags, name } = raw;
    Ok(MapInfo { kind, id, key_size, value_size, max_entries, flags, name: text(&name) })
}

/// What the kernel says of a link; `None` when it is not one to a cgroup.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    let mut raw = RawLink::default();
    // SAFETY: `raw` is a prefix of the kernel's structure. A link of another kind may have an address there, which is 0.
    unsafe { info(link, &mut raw) }?;
    let RawLink { kind, id, prog_id: program, cgroup_id: cgroup, attach_type, .. } = raw;
    Ok((kind == BPF_LINK_TYPE_CGROUP).then_some(LinkInfo { id, program, cgroup, attach_type }))
}

/// # Safety
/// `T` must be a prefix of the structure of the object's kind, and the addresses in it valid.
unsafe fn info<T>(object: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let info_len = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    let mut attr = GetInfo { bpf_fd: fd(object), info_len, info: std::ptr::from_mut(into) as u64 };
    // SAFETY: `info_len` bytes may be written at `info`; the caller vouches for what they lead to.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

fn text(name: &[u8; 16]) -> String {
    String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// The ids of the programs attached to a cgroup itself, for one attach type, in the order in which they run.
pub(crate) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; 64];
    let mut attr = ProgQuery {
        target_fd: fd(cgroup),
        attach_type,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        ..ProgQuery::default()
    };
    // SAFETY: `prog_cnt` numbers fit at `prog_ids`, and the structure is a whole part of the attributes.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Has the kernel count runs and their time for every program, until the descriptor is closed.
pub(crate) fn enable_run_time() -> io::Result<OwnedFd> {
    let mut attr = 0_u32; // BPF_STATS_RUN_TIME
    // SAFETY: a number only; the answer is a new descriptor.
    unsafe { bpf(BPF_ENABLE_STATS, &mut attr) }.map(own)
}
