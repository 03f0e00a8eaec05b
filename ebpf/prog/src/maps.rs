//! The maps, and how a connect reads them.
//!
//! `max_entries` here are placeholders: the loader sets the sizes. Every array is mmapable, since user space writes
//! and reads them as memory.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;
use tombolo_ebpf_layout::{Backend, Fault, FrontendKey, Maps, Reverse, ServiceValue, SwitchValue};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "services")]
static SERVICES: HashMap<FrontendKey, u64, 1024> = HashMap::new();

#[btf_map(name = "switch")]
static SWITCH: Array<u64, 1024, MMAPABLE> = Array::new();

#[btf_map(name = "slots")]
static SLOTS: Array<u64, 1024, MMAPABLE> = Array::new();

#[btf_map(name = "backends")]
static BACKENDS: Array<Backend, 1024, MMAPABLE> = Array::new();

/// Connects translated, by backend.
#[btf_map(name = "stats")]
static STATS: Array<u64, 1024, MMAPABLE> = Array::new();

/// Connects refused because no backend serves, by service.
#[btf_map(name = "refused")]
static REFUSED: Array<u64, 1024, MMAPABLE> = Array::new();

/// What should never happen, by [`Fault`].
#[btf_map(name = "faults")]
static FAULTS: Array<u64, { tombolo_ebpf_layout::FAULTS as usize }, MMAPABLE> = Array::new();

/// Translated sockets by cookie, for getpeername; an entry lives until its socket is released.
#[btf_map(name = "reverse")]
pub static REVERSE: HashMap<u64, Reverse, 1024> = HashMap::new();

/// The maps of this machine.
pub struct Kernel;

impl Maps for Kernel {
    #[inline(always)]
    fn service(&self, key: &FrontendKey) -> Option<ServiceValue> {
        let value = SERVICES.get_ptr(key)?;
        // SAFETY: the lookup's value is one aligned u64, valid while the program runs, loaded once.
        Some(ServiceValue::from_raw(unsafe { value.read_volatile() }))
    }

    #[inline(always)]
    fn switch(&self, service: u32) -> Option<SwitchValue> {
        let value = SWITCH.get_ptr(service)?;
        // SAFETY: one aligned u64 of an array, loaded once; user space stores it atomically.
        Some(SwitchValue::from_raw(unsafe { value.read_volatile() }))
    }

    #[inline(always)]
    fn slot(&self, position: u32) -> Option<u32> {
        let value = SLOTS.get_ptr(position)?;
        // SAFETY: one aligned u64 of an array; a slot that a switch led to is not written while a program runs.
        Some(unsafe { value.read_volatile() } as u32)
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<Backend> {
        BACKENDS.get(index).copied()
    }
}

/// Counts a connect to a backend.
#[inline(always)]
pub fn count_connect(backend: u32) {
    add(STATS.get_ptr_mut(backend));
}

/// Counts a refused connect to a service.
#[inline(always)]
pub fn count_refused(service: u32) {
    add(REFUSED.get_ptr_mut(service));
}

/// Counts a fault.
#[inline(always)]
pub fn count_fault(fault: Fault) {
    add(FAULTS.get_ptr_mut(fault as u32));
}

#[inline(always)]
fn add(counter: Option<*mut u64>) {
    if let Some(counter) = counter {
        // SAFETY: an aligned u64 of an array, only ever accessed atomically. The old value is not asked for: a fetching
        // add would need kernel 5.12.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
    }
}
