//! A cgroup's folder by its id.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::own;

/// `FILEID_KERNFS`, the handle type of cgroups since Linux 5.5 (include/linux/exportfs.h).
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with the eight bytes that kernfs wants.
#[repr(C)]
struct Handle {
    handle_bytes: u32,
    handle_type: i32,
    id: [u8; 8],
}

/// Opens a cgroup of the hierarchy at `mount`; `None` when there is none of this id. EPERM without CAP_DAC_READ_SEARCH.
pub(crate) fn open_cgroup(mount: &File, id: u64) -> io::Result<Option<OwnedFd>> {
    let mut handle = Handle { handle_bytes: 8, handle_type: FILEID_KERNFS, id: id.to_ne_bytes() };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: a handle with as many bytes as it says, which outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), (&raw mut handle).cast::<u8>(), flags) };
    match fd {
        0.. => Ok(Some(own(libc::c_int::try_from(fd).map_err(io::Error::other)?))),
        _ => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::ESTALE | libc::ENOENT)) => Ok(None),
            e => Err(e),
        },
    }
}
