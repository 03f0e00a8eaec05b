//! Who connects, as far as the decision asks.

use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;
use tombolo_ebpf_layout::{Client, Control, SKIP_LEVELS, socket_word};

use crate::context;
use crate::maps::{control, is_skipped};

/// A socket that connects: every connect picks at random.
pub struct Connecting<'a>(pub &'a SockAddrContext);

impl Client for Connecting<'_> {
    #[inline(always)]
    fn skipped(&self) -> bool {
        skipped()
    }

    #[inline(always)]
    fn word(&self, _: u32, _: u16) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        context::netns(self.0)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

/// A socket that sends a datagram to an address: it picks by its cookie, the same until the table changes.
pub struct Sending<'a> {
    /// The hook's context.
    pub ctx: &'a SockAddrContext,
    /// The socket's cookie.
    pub cookie: u64,
}

impl Client for Sending<'_> {
    #[inline(always)]
    fn skipped(&self) -> bool {
        skipped()
    }

    #[inline(always)]
    fn word(&self, service: u32, generation: u16) -> u32 {
        socket_word(self.cookie, service, generation)
    }

    #[inline(always)]
    fn netns(&self) -> u64 {
        context::netns(self.ctx)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }
}

/// Nanoseconds of the machine's monotonic clock.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether the process is in a cgroup that is left alone, or below one.
#[inline(always)]
fn skipped() -> bool {
    let levels = control(Control::SkipLevels) as u32;
    levels != 0 && below_skipped(levels)
}

// Out of the way of those who skip nobody.
#[inline(never)]
fn below_skipped(levels: u32) -> bool {
    for level in 0..SKIP_LEVELS {
        if levels >> level == 0 {
            return false;
        }
        // SAFETY: the helper takes a number; it answers 0, which no cgroup has, below the process's own level.
        if levels >> level & 1 != 0 && is_skipped(unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }) {
            return true;
        }
    }
    false
}
