//! Questions whose answer is an error number, and that change nothing.

use std::io;
use std::os::fd::RawFd;

use super::{BPF_F_BEFORE, LinkCreate, bpf, own};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

// include/uapi/linux/bpf.h, `enum bpf_prog_type`.
pub(crate) const CGROUP_SOCK: u32 = 9;
pub(crate) const CGROUP_SOCK_ADDR: u32 = 18;

/// `union bpf_attr`, the part for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `r0 = 1; exit`: leaves everything alone.
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Loads, and forgets, a program for a hook.
pub(crate) fn load_nothing(kind: u32, attach_type: u32) -> io::Result<()> {
    load(kind, attach_type).map(|program| drop(own(program)))
}

fn load(kind: u32, expected_attach_type: u32) -> io::Result<RawFd> {
    let mut attr = ProgLoad {
        kind,
        insn_cnt: 2,
        insns: NOTHING.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        expected_attach_type,
        ..ProgLoad::default()
    };
    // SAFETY: two instructions and a string with its end, which outlive the call; there is no log.
    unsafe { bpf(BPF_PROG_LOAD, &mut attr) }
}

/// Whether a link to a cgroup can come before others. A kernel that cannot looks at the flag before it finds that there is
/// no such cgroup.
pub(crate) fn has_before() -> io::Result<()> {
    let program = own(load(CGROUP_SOCK_ADDR, 10)?);
    let mut attr = LinkCreate {
        prog_fd: super::fd(std::os::fd::AsFd::as_fd(&program)),
        target_fd: u32::MAX,
        attach_type: 10,
        flags: BPF_F_BEFORE,
        relative_fd: 0,
        pad: 0,
        expected_revision: 0,
    };
    // SAFETY: no address inside.
    no_such_descriptor(unsafe { bpf(BPF_LINK_CREATE, &mut attr) })
}

/// Whether a link's program can be exchanged. A kernel that cannot does not get to find that there is no such link.
pub(crate) fn has_link_update() -> io::Result<()> {
    let mut attr = [u32::MAX, u32::MAX, 0, 0];
    // SAFETY: no address inside.
    no_such_descriptor(unsafe { bpf(BPF_LINK_UPDATE, &mut attr) })
}

fn no_such_descriptor(answer: io::Result<RawFd>) -> io::Result<()> {
    match answer {
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => Ok(()),
        Err(e) => Err(e),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
