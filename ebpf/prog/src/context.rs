//! The context of a hook: which of its fields a program may read and write, each in one access of its whole width.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_skc_to_mptcp_sock};
use aya_ebpf::programs::SockAddrContext;
use tombolo_ebpf_layout::{Address, TCP, UDP};

/// Whether the kernel has `bpf_set_retval` (5.18); the loader sets it. Without it a refusal reads EPERM.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: u32 = 1;

/// Whether the kernel has `bpf_skc_to_mptcp_sock` (5.19); the loader sets it.
#[unsafe(no_mangle)]
static HAS_SKC_TO_MPTCP: u32 = 1;

/// A socket with a peer; the same number for UDP (the kernel's include/net/tcp_states.h).
const TCP_ESTABLISHED: u32 = 1;

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// The hook's answer that lets the call go on.
#[inline(always)]
pub fn allow() -> i32 {
    ALLOW
}

/// The hook's answer that makes the call fail with ECONNREFUSED. Programs of recvmsg and getpeername may not call it:
/// they would not load.
#[inline(always)]
pub fn refuse() -> i32 {
    if has(&HAS_SET_RETVAL) {
        // SAFETY: the helper takes a number.
        unsafe { aya_ebpf::helpers::generated::bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

/// The IP protocol, when it is one that is translated.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> Option<u8> {
    // SAFETY: every sock_addr program may read `protocol`.
    match unsafe { (*ctx.sock_addr).protocol } {
        protocol if protocol == u32::from(TCP) => Some(TCP),
        protocol if protocol == u32::from(UDP) => Some(UDP),
        _ => None,
    }
}

/// The socket's cookie.
#[inline(always)]
pub fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// The cookie of the socket's network namespace.
#[inline(always)]
pub fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this context.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Whether this is a subflow of an MPTCP socket. It has a cookie that neither getpeername nor sock_release will see, as
/// they run for the socket that the process has: nothing can be remembered for it, and nothing would forget it.
#[inline(always)]
pub fn is_mptcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: a connect program may read `sk` of its context and give it to the helper.
    has(&HAS_SKC_TO_MPTCP) && !unsafe { bpf_skc_to_mptcp_sock((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) }.is_null()
}

/// Whether the socket has a peer.
#[inline(always)]
pub fn is_connected(ctx: &SockAddrContext) -> bool {
    // SAFETY: a sendmsg program may read `sk` of its context, which is a whole socket, and its `state`.
    unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        !socket.is_null() && (*socket).state == TCP_ESTABLISHED
    }
}

/// Whether the kernel has a helper, by a constant of the loader's. The verifier knows its value, and does not look at a
/// call that it makes unreachable.
#[inline(always)]
fn has(helper: &'static u32) -> bool {
    // SAFETY: a reference is readable; volatile, since the loader may have changed what the compiler would fold.
    unsafe { core::ptr::from_ref(helper).read_volatile() != 0 }
}

/// The port, network order.
#[inline(always)]
pub fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: every program here may read `user_port`; its lower 16 bits in memory are the port.
    unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() as u16 }
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port: u16) {
    // SAFETY: every program here may write `user_port`, as a whole.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(port)) };
}

/// A hook's family: where its context has the address.
pub trait Family {
    /// The address.
    fn address(ctx: &SockAddrContext) -> Address;
    /// Writes address and port.
    fn set(ctx: &SockAddrContext, addr: Address, port: u16);
}

/// A hook for IPv4.
pub struct V4;

impl Family for V4 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the programs for IPv4 may read `user_ip4`.
        Address::from_v4(unsafe { (&raw const (*ctx.sock_addr).user_ip4).read_volatile() })
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, addr: Address, port: u16) {
        // SAFETY: the programs for IPv4 may write `user_ip4`.
        unsafe { (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(addr.words()[3]) };
        set_port(ctx, port);
    }
}

/// A hook for IPv6, which sees mapped addresses too.
pub struct V6;

impl Family for V6 {
    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> Address {
        // SAFETY: the programs for IPv6 may read `user_ip6`, word by word.
        unsafe {
            let ip = words(ctx.sock_addr);
            Address::from_words([
                ip.read_volatile(),
                ip.add(1).read_volatile(),
                ip.add(2).read_volatile(),
                ip.add(3).read_volatile(),
            ])
        }
    }

    #[inline(always)]
    fn set(ctx: &SockAddrContext, addr: Address, port: u16) {
        let words_to = addr.words();
        // SAFETY: the programs for IPv6 may write `user_ip6`, word by word.
        unsafe {
            let ip = words(ctx.sock_addr);
            ip.write_volatile(words_to[0]);
            ip.add(1).write_volatile(words_to[1]);
            ip.add(2).write_volatile(words_to[2]);
            ip.add(3).write_volatile(words_to[3]);
        }
        set_port(ctx, port);
    }
}

/// # Safety
/// `addr` must be a hook's context.
#[inline(always)]
unsafe fn words(addr: *mut bpf_sock_addr) -> *mut u32 {
    // SAFETY: only an address is made of the context's.
    unsafe { (&raw mut (*addr).user_ip6).cast() }
}
