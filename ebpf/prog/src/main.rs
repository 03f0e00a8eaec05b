//! What the kernel runs when a process of the cgroup connects, asks for its peer, or closes a socket.
//!
//! TCP only, MPTCP included: a UDP socket's connect and its datagrams are left untranslated. The decision itself is
//! `tombolo_ebpf_layout::decide`; here are the hooks around it. See docs/design/datapath.md.
#![no_std]
#![no_main]
// `AtomicU64::fetch_add` does not exist for this target, which has an atomic add but no compare-and-swap.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the atomic add of the counters")]

mod maps;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval, bpf_skc_to_mptcp_sock};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use tombolo_ebpf_layout::{Address, Backend, Fault, FrontendKey, LAYOUT_MARK, Reverse, TCP, Verdict, decide};

use crate::maps::{Kernel, REVERSE, count_connect, count_fault, count_refused};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

/// Whether the kernel has `bpf_set_retval` (5.18); the loader sets it. Without it a refusal reads EPERM.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: u32 = 1;

/// Whether the kernel has `bpf_skc_to_mptcp_sock` (5.19); the loader sets it.
#[unsafe(no_mangle)]
static HAS_SKC_TO_MPTCP: u32 = 1;

/// By this the loader knows that the object's maps are the ones it means.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "tombolo_layout")]
static LAYOUT: [u8; 24] = LAYOUT_MARK;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    if !is_tcp(&ctx) {
        return ALLOW;
    }
    // SAFETY: connect4 may read and write `user_ip4` and `user_port` of its context.
    unsafe {
        let addr = &raw mut (*ctx.sock_addr).user_ip4;
        match connect(&ctx, Address::from_v4(addr.read_volatile())) {
            Ok(None) => ALLOW,
            Ok(Some(backend)) => {
                addr.write_volatile(backend.addr.words()[3]);
                set_port(&ctx, backend.port);
                ALLOW
            }
            Err(Refused) => refuse(),
        }
    }
}

/// An IPv6 socket connects; to `::ffff:a.b.c.d` too, which is what a JVM dials.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    if !is_tcp(&ctx) {
        return ALLOW;
    }
    match connect(&ctx, read_ip6(ctx.sock_addr)) {
        Ok(None) => ALLOW,
        Ok(Some(backend)) => {
            write_ip6(ctx.sock_addr, backend.addr);
            set_port(&ctx, backend.port);
            ALLOW
        }
        Err(Refused) => refuse(),
    }
}

/// An IPv4 socket asks for its peer.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: getpeername4 may read and write `user_ip4` and `user_port` of its context.
    unsafe {
        let addr = &raw mut (*ctx.sock_addr).user_ip4;
        if let Some(frontend) = shown(&ctx, Address::from_v4(addr.read_volatile())) {
            addr.write_volatile(frontend.addr().words()[3]);
            set_port(&ctx, frontend.port());
        }
    }
    ALLOW
}

/// An IPv6 socket asks for its peer; one that dialled a mapped address is answered with a mapped one.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(frontend) = shown(&ctx, read_ip6(ctx.sock_addr)) {
        write_ip6(ctx.sock_addr, frontend.addr());
        set_port(&ctx, frontend.port());
    }
    ALLOW
}

/// A socket is released: its `reverse` entry goes with it.
#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: a cgroup_sock program may read `protocol` of its context.
    if unsafe { (*ctx.sock).protocol } != u32::from(TCP) {
        return ALLOW;
    }
    // SAFETY: the helper takes this context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // A look-up takes no lock, a delete does, and most sockets were never translated.
    if REVERSE.get_ptr(cookie).is_some() {
        // It can only fail if the entry is gone, which is what was wanted.
        let _ = REVERSE.remove(cookie);
    }
    ALLOW
}

/// No backend, or a broken table.
struct Refused;

/// Decides, counts, and remembers what the socket dialled. `Ok(None)`: leave the connect as it is.
#[inline(always)]
fn connect(ctx: &SockAddrContext, addr: Address) -> Result<Option<Backend>, Refused> {
    let frontend = FrontendKey::new(addr, port(ctx), TCP);
    // SAFETY: the helper takes nothing.
    match decide(&Kernel, &frontend, || unsafe { bpf_get_prandom_u32() }) {
        Verdict::Pass => Ok(None),
        Verdict::Refuse { service } => {
            count_refused(service);
            Err(Refused)
        }
        Verdict::Broken => {
            count_fault(Fault::BrokenTable);
            Err(Refused)
        }
        Verdict::To { index, backend } => {
            if !is_mptcp(ctx) && REVERSE.insert(cookie(ctx), Reverse::new(frontend, &backend), 0).is_err() {
                count_fault(Fault::ReverseFull);
            }
            count_connect(index);
            Ok(Some(backend))
        }
    }
}

/// What a socket connected to `addr` and the context's port dialled, when it was translated.
#[inline(always)]
fn shown(ctx: &SockAddrContext, addr: Address) -> Option<FrontendKey> {
    let reverse = REVERSE.get_ptr(cookie(ctx))?;
    // SAFETY: the entry is valid while the program runs, and only this socket's connect writes it.
    unsafe { &*reverse }.shown(addr, port(ctx))
}

#[inline(always)]
fn refuse() -> i32 {
    if has(&HAS_SET_RETVAL) {
        // SAFETY: the helper takes a number.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    DENY
}

/// Whether this is a subflow of an MPTCP socket. It has a cookie that neither getpeername nor sock_release will see, as
/// they run for the socket that the process has: nothing can be remembered for it, and nothing would forget it.
#[inline(always)]
fn is_mptcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: a connect program may read `sk` of its context and give it to the helper.
    has(&HAS_SKC_TO_MPTCP) && !unsafe { bpf_skc_to_mptcp_sock((*ctx.sock_addr).__bindgen_anon_1.sk.cast()) }.is_null()
}

/// Whether the kernel has a helper, by a constant of the loader's. The verifier knows its value, and does not look at a
/// call that it makes unreachable.
#[inline(always)]
fn has(helper: &'static u32) -> bool {
    // SAFETY: a reference is readable; volatile, since the loader may have changed what the compiler would fold.
    unsafe { core::ptr::from_ref(helper).read_volatile() != 0 }
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes this context.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
fn is_tcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: every sock_addr program may read `protocol`.
    unsafe { (*ctx.sock_addr).protocol == u32::from(TCP) }
}

/// The port, network order.
#[inline(always)]
fn port(ctx: &SockAddrContext) -> u16 {
    // SAFETY: every program here may read `user_port`; its lower 16 bits in memory are the port.
    unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() as u16 }
}

#[inline(always)]
fn set_port(ctx: &SockAddrContext, port: u16) {
    // SAFETY: every program here may write `user_port`, as a whole.
    unsafe { (&raw mut (*ctx.sock_addr).user_port).write_volatile(u32::from(port)) };
}

#[inline(always)]
fn read_ip6(addr: *mut bpf_sock_addr) -> Address {
    // SAFETY: the programs for IPv6 may read `user_ip6`, word by word.
    unsafe {
        let ip = (&raw const (*addr).user_ip6).cast::<u32>();
        Address::from_words([
            ip.read_volatile(),
            ip.add(1).read_volatile(),
            ip.add(2).read_volatile(),
            ip.add(3).read_volatile(),
        ])
    }
}

#[inline(always)]
fn write_ip6(addr: *mut bpf_sock_addr, to: Address) {
    let words = to.words();
    // SAFETY: the programs for IPv6 may write `user_ip6`, word by word.
    unsafe {
        let ip = (&raw mut (*addr).user_ip6).cast::<u32>();
        ip.write_volatile(words[0]);
        ip.add(1).write_volatile(words[1]);
        ip.add(2).write_volatile(words[2]);
        ip.add(3).write_volatile(words[3]);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
