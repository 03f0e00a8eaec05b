//! The programs' links to a cgroup.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::programs::{CgroupSock, CgroupSockAddr, Program, ProgramError};

use crate::sys::CgroupLink;
use crate::{DatapathError, sys};

/// The programs, and the kernel's numbers for where they run (include/uapi/linux/bpf.h, `enum bpf_attach_type`).
/// What shows or forgets comes before what translates, so that what a translation promises is already kept.
const HOOKS: [(&str, u32); 9] = [
    ("sock_release", 34),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
];

/// Where the programs run among others on the same cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before all that were attached earlier.
    First,
    /// After them: this kernel cannot put a program before others (6.17 can). A program that was there first and
    /// translates the same address wins.
    Last {
        /// How many other programs run before ours on a connect or sendmsg hook.
        others: u32,
    },
}

/// Loads all programs and attaches them, in the order of [`HOOKS`].
pub(crate) fn attach(ebpf: &mut Ebpf, cgroup: BorrowedFd<'_>) -> Result<(Vec<CgroupLink>, Place), DatapathError> {
    let mut links = Vec::with_capacity(HOOKS.len());
    let mut place = Place::First;
    for (name, attach_type) in HOOKS {
        let program = load(ebpf, name)?;
        let others = sys::attached(cgroup, attach_type).map_or(0, |ids| u32::try_from(ids.len()).unwrap_or(u32::MAX));
        let (link, first) = link(program.as_fd(), cgroup, attach_type).map_err(|source| DatapathError::Call {
            call: "BPF_LINK_CREATE",
            object: name,
            source,
        })?;
        links.push(link);
        if !first && (name.starts_with("connect") || name.starts_with("sendmsg")) {
            let before = if let Place::Last { others } = place { others } else { 0 };
            place = Place::Last { others: others.max(before) };
        }
    }
    Ok((links, place))
}

/// Links a program before the others if the kernel can; whether it could.
fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> std::io::Result<(CgroupLink, bool)> {
    match sys::link_create(program, cgroup, attach_type, sys::BPF_F_BEFORE) {
        Ok(link) => Ok((link, true)),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            sys::link_create(program, cgroup, attach_type, 0).map(|link| (link, false))
        }
        Err(e) => Err(e),
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, DatapathError> {
    let failed = |source: ProgramError| DatapathError::Program { program: name, source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or(DatapathError::Absent(name))?;
    match program {
        Program::CgroupSockAddr(program) => CgroupSockAddr::load(program).map_err(failed)?,
        Program::CgroupSock(program) => CgroupSock::load(program).map_err(failed)?,
        _ => return Err(DatapathError::Absent(name)),
    }
    let fd = program.fd().map_err(failed)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| DatapathError::Call { call: "dup", object: name, source })
}
