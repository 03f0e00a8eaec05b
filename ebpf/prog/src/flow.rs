//! Telling flows, when somebody wants to hear of them.

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_prandom_u32,
};
use aya_ebpf::programs::SockAddrContext;
use tombolo_ebpf_layout::{Address, Backend, Control, Fault, FlowEvent, FlowKind, FrontendKey};

use crate::client::now;
use crate::context;
use crate::maps::{EVENTS, control, count_fault};

/// Tells a decision if the sampling picks it. While nobody listens this is one load.
#[inline(always)]
pub fn tell(ctx: &SockAddrContext, kind: FlowKind, frontend: &FrontendKey, service: u32, backend: Option<&Backend>) {
    let threshold = control(Control::Sampling) as u32;
    // SAFETY: the helper takes nothing.
    if threshold != 0 && (threshold == u32::MAX || unsafe { bpf_get_prandom_u32() } < threshold) {
        submit(ctx, kind, frontend, service, backend);
    }
}

// Out of the way of what is not told.
#[inline(never)]
fn submit(ctx: &SockAddrContext, kind: FlowKind, frontend: &FrontendKey, service: u32, backend: Option<&Backend>) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count_fault(Fault::EventLost);
        return;
    };
    let (id, addr, port, cluster) = match backend {
        Some(backend) => (backend.id, backend.addr, backend.port, backend.cluster),
        None => (0, Address::from_words([0; 4]), 0, 0),
    };
    // SAFETY: the helpers take nothing, or this memory with its size.
    unsafe {
        let event: *mut FlowEvent = entry.as_mut_ptr();
        event.write(FlowEvent {
            time: now(),
            cgroup: bpf_get_current_cgroup_id(),
            netns: context::netns(ctx),
            backend: id,
            service,
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
            frontend: *frontend,
            addr,
            port,
            cluster,
            comm: [0; 16],
            kind: kind as u8,
            zero: [0; 7],
        });
        bpf_get_current_comm((&raw mut (*event).comm).cast(), 16);
    }
    entry.submit(0);
}
