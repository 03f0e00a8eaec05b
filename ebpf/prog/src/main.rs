//! What the kernel runs when a process of the cgroup connects, sends or receives a datagram, asks for its peer, or closes
//! a socket.
//!
//! TCP, MPTCP included, and UDP. The decision itself is `tombolo_ebpf_layout::decide`; here are the hooks around it. See
//! docs/design/datapath.md.
#![no_std]
#![no_main]
// `AtomicU64::fetch_add` does not exist for this target, which has an atomic add but no compare-and-swap.
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the atomic add of the counters")]

mod client;
mod context;
mod flow;
mod maps;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use tombolo_ebpf_layout::{
    Address, AffinityKey, Backend, Fault, FlowKind, FrontendKey, LAYOUT_MARK, Maps, Reverse, Stick, TCP, UDP,
    UnconnectedKey, Verdict, decide, taken,
};

use crate::client::{Connecting, Sending};
use crate::context::{Family, V4, V6, allow, cookie, is_connected, is_mptcp, port, protocol, refuse};
use crate::flow::tell;
use crate::maps::{
    AFFINITY, EXISTS, Kernel, UNCONNECTED, count_connect, count_fault, count_refused, forget, remember, remembered,
};

/// By this the loader knows that the object's maps are the ones it means.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = "tombolo_layout")]
static LAYOUT: [u8; 32] = LAYOUT_MARK;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// An IPv4 socket connects.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

/// An IPv6 socket connects; to `::ffff:a.b.c.d` too, which is what a JVM dials.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

/// A UDP socket sends to an IPv4 address; an IPv6 socket to `::ffff:a.b.c.d` too.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    send::<V4>(&ctx)
}

/// A UDP socket sends to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    send::<V6>(&ctx)
}

/// An IPv4 UDP socket receives, and asks from whom.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    receive::<V4>(&ctx)
}

/// An IPv6 UDP socket receives, and asks from whom; what comes from an IPv4 address is mapped.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    receive::<V6>(&ctx)
}

/// An IPv4 socket asks for its peer.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    peer::<V4>(&ctx)
}

/// An IPv6 socket asks for its peer; one that dialled a mapped address is answered with a mapped one.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    peer::<V6>(&ctx)
}

/// A socket is released: its `reverse` entry goes with it.
#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: a cgroup_sock program may read `protocol` of its context.
    let protocol = unsafe { (*ctx.sock).protocol };
    if protocol == u32::from(TCP) || protocol == u32::from(UDP) {
        // SAFETY: the helper takes this context.
        forget(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    }
    allow()
}

#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let Some(protocol) = protocol(ctx) else { return allow() };
    let frontend = FrontendKey::new(F::address(ctx), port(ctx), protocol);
    match decide(&Kernel, &Connecting(ctx), &frontend) {
        Verdict::To { service, index, backend, stick } => {
            let (index, backend) = keep(stick, &frontend, service).unwrap_or((index, backend));
            // What an MPTCP socket remembers nobody would forget.
            if !(protocol == TCP && is_mptcp(ctx)) && remember(cookie(ctx), &Reverse::new(frontend, &backend)).is_err()
            {
                count_fault(Fault::ReverseFull);
            }
            count_connect(service, index);
            tell(ctx, FlowKind::Connected, &frontend, service, Some(&backend));
            F::set(ctx, backend.addr, backend.port);
            allow()
        }
        verdict => {
            // A UDP socket may connect again and again; dialling the same backend by its own address shows that.
            if protocol == UDP {
                forget(cookie(ctx));
            }
            untranslated(ctx, &frontend, verdict)
        }
    }
}

#[inline(always)]
fn send<F: Family>(ctx: &SockAddrContext) -> i32 {
    if protocol(ctx) != Some(UDP) {
        return allow();
    }
    let frontend = FrontendKey::new(F::address(ctx), port(ctx), UDP);
    let cookie = cookie(ctx);
    if is_connected(ctx)
        && let Some((addr, port)) = remembered(cookie).and_then(|reverse| reverse.again(&frontend))
    {
        F::set(ctx, addr, port);
        return allow();
    }
    match decide(&Kernel, &Sending { ctx, cookie }, &frontend) {
        Verdict::To { service, index, backend, stick } => {
            let (index, backend) = keep(stick, &frontend, service).unwrap_or((index, backend));
            if expect_answer(cookie, &frontend, &backend) {
                count_connect(service, index);
                tell(ctx, FlowKind::Datagram, &frontend, service, Some(&backend));
            }
            F::set(ctx, backend.addr, backend.port);
            allow()
        }
        verdict => untranslated(ctx, &frontend, verdict),
    }
}

/// What was decided other than a translation: the hook's answer.
#[inline(always)]
fn untranslated(ctx: &SockAddrContext, frontend: &FrontendKey, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Refuse { service } => {
            count_refused(service);
            tell(ctx, FlowKind::Refused, frontend, service, None);
            refuse()
        }
        Verdict::Broken { service } => {
            count_fault(Fault::BrokenTable);
            tell(ctx, FlowKind::Broken, frontend, service, None);
            refuse()
        }
        Verdict::PassEmpty { service } => {
            tell(ctx, FlowKind::Passed, frontend, service, None);
            allow()
        }
        Verdict::Pass | Verdict::To { .. } => allow(),
    }
}

/// Shows a received datagram's source as what the socket sent to.
#[inline(always)]
fn receive<F: Family>(ctx: &SockAddrContext) -> i32 {
    let (cookie, addr, port) = (cookie(ctx), F::address(ctx), port(ctx));
    let frontend = match shown(cookie, addr, port) {
        Some(frontend) => Some(frontend),
        None => expected(cookie, addr, port),
    };
    if let Some(frontend) = frontend {
        F::set(ctx, frontend.addr(), frontend.port());
    }
    allow()
}

#[inline(always)]
fn peer<F: Family>(ctx: &SockAddrContext) -> i32 {
    if let Some(frontend) = shown(cookie(ctx), F::address(ctx), port(ctx)) {
        F::set(ctx, frontend.addr(), frontend.port());
    }
    allow()
}

/// What a socket whose peer is `addr` dialled, when it was translated.
#[inline(always)]
fn shown(cookie: u64, addr: Address, port: u16) -> Option<FrontendKey> {
    remembered(cookie)?.shown(addr, port)
}

/// Remembers what a socket without a peer sent to, for the answer; whether that is news.
#[inline(always)]
fn expect_answer(cookie: u64, frontend: &FrontendKey, backend: &Backend) -> bool {
    // A look-up takes no lock, an insert does, and most datagrams follow another one.
    if expected(cookie, backend.addr, backend.port) == Some(*frontend) {
        return false;
    }
    if UNCONNECTED.insert(UnconnectedKey::new(cookie, backend.addr, backend.port), frontend, 0).is_err() {
        count_fault(Fault::UnconnectedFull);
    }
    true
}

/// What a socket without a peer sent to, when it hears from `addr`.
#[inline(always)]
fn expected(cookie: u64, addr: Address, port: u16) -> Option<FrontendKey> {
    let frontend = UNCONNECTED.get_ptr(UnconnectedKey::new(cookie, addr, port))?;
    // SAFETY: the entry is valid while the program runs.
    Some(unsafe { *frontend })
}

/// Keeps a sticky client's choice; where the client goes instead, if another of its connects was faster.
#[inline(always)]
fn keep(stick: Stick, frontend: &FrontendKey, service: u32) -> Option<(u32, Backend)> {
    match stick {
        Stick::No => None,
        _ => {
            let index = u32::try_from(settle(&stick, frontend, service)).ok()?;
            Some((index, Kernel.backend(index)?))
        }
    }
}

/// The index of the backend instead, or -1. Out of the way of services without sticky clients.
#[inline(never)]
fn settle(stick: &Stick, frontend: &FrontendKey, service: u32) -> i64 {
    match *stick {
        Stick::No => {}
        Stick::Stay(key, now) => refresh(key, now),
        Stick::New(key, affinity) => match AFFINITY.insert(key, affinity, BPF_NOEXIST.into()) {
            Ok(()) => {}
            Err(EXISTS) => return taken(&Kernel, frontend, service, &key).map_or(-1, |(index, _)| index.into()),
            Err(_) => count_fault(Fault::AffinityFull),
        },
        Stick::Change(key, affinity) => {
            if AFFINITY.insert(key, affinity, 0).is_err() {
                count_fault(Fault::AffinityFull);
            }
        }
    }
    -1
}

#[inline(always)]
fn refresh(key: AffinityKey, now: u64) {
    if let Some(affinity) = AFFINITY.get_ptr_mut(key) {
        // SAFETY: one aligned u64, valid while the program runs. Should the place be another client's by now, then that
        // one's time is as recent.
        unsafe { (&raw mut (*affinity).used).write_volatile(now) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
