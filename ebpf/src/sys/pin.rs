//! Names for kernel objects in a bpffs, and links whose program is exchanged.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{bpf, fd, own};

// include/uapi/linux/bpf.h, `enum bpf_cmd`.
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// The part of `union bpf_attr` for BPF_OBJ_*.
#[repr(C)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part for BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Gives an object a name. EEXIST when the name is taken.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { pathname: path.as_ptr() as u64, bpf_fd: fd(object), file_flags: 0 };
    // SAFETY: the name is a string with its end, and outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// The object of a name, `None` when there is none.
pub(crate) fn pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Object { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the name is a string with its end, and outlives the call; the answer is a new descriptor.
    match unsafe { bpf(BPF_OBJ_GET, &mut attr) } {
        Ok(fd) => Ok(Some(own(fd))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Has a link run another program from the next call on: no call meets none, and none meets both.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdate { link_fd: fd(link), new_prog_fd: fd(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: no address inside.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}
