//! Stops another process at one of its system calls, as a crash would.
#![expect(unsafe_code, reason = "ptrace(2)")]

use std::io;

/// `PTRACE_GET_SYSCALL_INFO` and what it answers at the entry of a call.
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
const ENTRY: u8 = 1;

/// `struct ptrace_syscall_info`, at a call's entry.
#[repr(C)]
#[derive(Default)]
struct Info {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction_pointer: u64,
    stack_pointer: u64,
    nr: u64,
    args: [u64; 6],
}

/// Whether a call changes what outlives its process: names in a file system, and links.
fn changes(nr: i64, first: u64) -> bool {
    // OBJ_PIN, LINK_CREATE, LINK_UPDATE, LINK_DETACH.
    let bpf = [6, 28, 29, 34];
    let names = [libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2];
    #[cfg(target_arch = "x86_64")]
    let names = [&names[..], &[libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink, libc::SYS_rename]].concat();
    nr == libc::SYS_bpf && bpf.contains(&first) || names.contains(&nr)
}

/// A thread that is stopped at the calls it makes.
pub(crate) struct Traced(libc::pid_t);

impl Traced {
    /// Stops a thread wherever it is.
    pub(crate) fn seize(thread: i32) -> Self {
        // PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL: nothing of it outlives the test.
        ptrace(libc::PTRACE_SEIZE, thread, 0, 1 | 1 << 20).unwrap();
        ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0).unwrap();
        wait(thread).unwrap();
        ptrace(libc::PTRACE_SYSCALL, thread, 0, 0).unwrap();
        Self(thread)
    }

    /// Lets the thread run to right before its `nth` change, from 0; false when it ended before.
    pub(crate) fn runs_to_change(&self, nth: usize) -> bool {
        let mut changes_seen = 0;
        loop {
            let Some(status) = wait(self.0) else { return false };
            if !libc::WIFSTOPPED(status) {
                return false;
            }
            // A signal that is for the thread, and no stop of ours, is handed on.
            let signal = libc::WSTOPSIG(status);
            let ours = signal == libc::SIGTRAP | 0x80 || status >> 16 != 0;
            if signal == libc::SIGTRAP | 0x80 && self.enters_a_change() {
                if changes_seen == nth {
                    return true;
                }
                changes_seen += 1;
            }
            let signal = if ours { 0 } else { u64::from(signal.unsigned_abs()) };
            if ptrace(libc::PTRACE_SYSCALL, self.0, 0, signal).is_err() {
                return false;
            }
        }
    }

    fn enters_a_change(&self) -> bool {
        let mut info = Info::default();
        let at = (&raw mut info) as u64;
        let Ok(()) = ptrace(GET_SYSCALL_INFO, self.0, size_of::<Info>() as u64, at) else { return false };
        info.op == ENTRY && changes(info.nr.cast_signed(), info.args[0])
    }

    /// Waits for the end of a thread whose process was killed.
    pub(crate) fn ended(self) {
        while wait(self.0).is_some_and(|status| libc::WIFSTOPPED(status)) {}
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t, addr: u64, data: u64) -> io::Result<()> {
    // SAFETY: the one address that is handed over here is of an `Info`, with its size.
    let result = unsafe { libc::ptrace(request, thread, addr, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The next status of a thread; `None` when there is no such thread any more.
fn wait(thread: libc::pid_t) -> Option<libc::c_int> {
    let mut status = 0;
    // SAFETY: a number to write to, which outlives the call.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    (waited == thread).then_some(status)
}
