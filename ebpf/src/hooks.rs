//! Where in the kernel the programs run.

/// A hook of cgroups, by the name that our program for it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) name: &'static str,
    /// include/uapi/linux/bpf.h, `enum bpf_attach_type`.
    pub(crate) attach_type: u32,
}

const fn hook(name: &'static str, attach_type: u32) -> Hook {
    Hook { name, attach_type }
}

/// All that can be ours, in the order in which they are attached and swapped: what remembers and answers comes before
/// what translates, so that a promise is kept before it is made.
pub(crate) const HOOKS: [Hook; 9] = [
    hook("recvmsg4", 19),
    hook("recvmsg6", 20),
    hook("getpeername4", 29),
    hook("getpeername6", 30),
    hook("sock_release", 34),
    hook("connect4", 10),
    hook("connect6", 11),
    hook("sendmsg4", 14),
    hook("sendmsg6", 15),
];

/// Hooks of the same kind at which we attach nothing.
pub(crate) const OTHER_HOOKS: [Hook; 4] =
    [hook("bind4", 8), hook("bind6", 9), hook("getsockname4", 31), hook("getsockname6", 32)];

impl Hook {
    /// Whether a program here changes where traffic goes.
    pub(crate) fn translates(self) -> bool {
        self.name.starts_with("connect") || self.name.starts_with("sendmsg")
    }
}
