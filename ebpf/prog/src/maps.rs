//! The maps, and how a connect reads them.
//!
//! `max_entries` here are placeholders: the loader sets the sizes. Every array is mmapable, since user space writes
//! and reads them as memory.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, RingBuf};
use aya_ebpf::macros::btf_map;
use tombolo_ebpf_layout::{
    Affinity, AffinityKey, Backend, CLUSTERS, CONTROLS, Control, Fault, FlowEvent, FrontendKey, FrontendPlace, Maps,
    MemberKey, Reverse, ServiceValue, SwitchValue, UnconnectedKey,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "services")]
static SERVICES: HashMap<FrontendKey, u64, 1024> = HashMap::new();

/// The frontend of each service index.
#[btf_map(name = "frontends")]
static FRONTENDS: Array<FrontendPlace, 1024, MMAPABLE> = Array::new();

#[btf_map(name = "switch")]
static SWITCH: Array<u64, 1024, MMAPABLE> = Array::new();

#[btf_map(name = "slots")]
static SLOTS: Array<u64, 1024, MMAPABLE> = Array::new();

#[btf_map(name = "backends")]
static BACKENDS: Array<Backend, 1024, MMAPABLE> = Array::new();

/// Backend indexes of the tables whose clients are sticky.
#[btf_map(name = "members")]
static MEMBERS: HashMap<MemberKey, u64, 1024> = HashMap::new();

/// Connects translated, by backend.
#[btf_map(name = "stats")]
static STATS: Array<u64, 1024, MMAPABLE> = Array::new();

/// Connects translated, by service.
#[btf_map(name = "service_stats")]
static SERVICE_STATS: Array<u64, 1024, MMAPABLE> = Array::new();

/// Connects refused because no backend serves, by service.
#[btf_map(name = "refused")]
static REFUSED: Array<u64, 1024, MMAPABLE> = Array::new();

/// What `stats` had counted of backends that are erased, by cluster. The loader's own: no program looks at it.
#[btf_map(name = "erased")]
static ERASED: Array<u64, { CLUSTERS as usize }, MMAPABLE> = Array::new();

/// What should never happen, by [`Fault`].
#[btf_map(name = "faults")]
static FAULTS: Array<u64, { tombolo_ebpf_layout::FAULTS as usize }, MMAPABLE> = Array::new();

/// What the loader tells, by [`Control`].
#[btf_map(name = "control")]
static CONTROL: Array<u64, { CONTROLS as usize }, MMAPABLE> = Array::new();

/// Cgroups whose processes are left alone, by id.
#[btf_map(name = "skip")]
static SKIP: HashMap<u64, u64, 1024> = HashMap::new();

/// Sampled flows.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<FlowEvent, 4096> = RingBuf::new();

/// Translated sockets by cookie, for getpeername and recvmsg; an entry lives until its socket is released.
#[btf_map(name = "reverse")]
static REVERSE: HashMap<u64, Reverse, 1024> = HashMap::new();

/// How many entries `reverse` has, by the low bits of their cookies. Most sockets that ask or close were never
/// translated, and learn it here from memory that is at hand, since cookies are given out in order; a look-up in
/// `reverse` reaches for a random place of a large table.
#[btf_map(name = "translated")]
static TRANSLATED: Array<u64, { tombolo_ebpf_layout::TRANSLATED as usize }, MMAPABLE> = Array::new();

/// The frontends that sockets without a peer named, by socket and backend, for recvmsg.
#[btf_map(name = "unconnected")]
pub static UNCONNECTED: LruHashMap<UnconnectedKey, FrontendKey, 1024> = LruHashMap::new();

/// The backends of sticky clients.
#[btf_map(name = "affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, 1024> = LruHashMap::new();

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
    fn is_frontend(&self, service: u32, key: &FrontendKey) -> bool {
        FRONTENDS.get(service).is_some_and(|place| place.key == *key)
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

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        let value = AFFINITY.get_ptr(key)?;
        // SAFETY: two aligned words, valid while the program runs. If the entry is replaced meanwhile they may be of two
        // clients: the id is then still held against the members, and the time is a recent one.
        Some(unsafe { value.read_volatile() })
    }

    #[inline(always)]
    fn member(&self, key: &MemberKey) -> Option<u32> {
        let value = MEMBERS.get_ptr(key)?;
        // SAFETY: one aligned u64, loaded once; another member's place is seen by the backend's identity.
        Some(unsafe { value.read_volatile() } as u32)
    }
}

/// What the loader tells, one word.
#[inline(always)]
pub fn control(word: Control) -> u64 {
    // SAFETY: one aligned u64 of an array, loaded once; user space stores it atomically.
    CONTROL.get_ptr(word as u32).map_or(0, |value| unsafe { value.read_volatile() })
}

/// Whether processes of this cgroup are left alone.
#[inline(always)]
pub fn is_skipped(cgroup: u64) -> bool {
    SKIP.get_ptr(cgroup).is_some()
}

/// Remembers where a socket was sent. It may have been sent elsewhere before.
#[inline(always)]
pub fn remember(cookie: u64, reverse: &Reverse) -> Result<(), Full> {
    match REVERSE.insert(cookie, reverse, BPF_NOEXIST.into()) {
        Ok(()) => {
            add(translated(cookie), 1);
            Ok(())
        }
        Err(EXISTS) => REVERSE.insert(cookie, reverse, 0).map_err(|_| Full),
        Err(_) => Err(Full),
    }
}

/// What is remembered of a socket.
#[inline(always)]
pub fn remembered(cookie: u64) -> Option<Reverse> {
    if !may_be_translated(cookie) {
        return None;
    }
    // SAFETY: the entry is valid while the program runs, and only this socket's connect writes it.
    REVERSE.get_ptr(cookie).map(|reverse| unsafe { *reverse })
}

/// Forgets a socket.
#[inline(always)]
pub fn forget(cookie: u64) {
    if may_be_translated(cookie) && REVERSE.remove(cookie).is_ok() {
        add(translated(cookie), -1);
    }
}

/// A map took no entry.
pub struct Full;

/// `-EEXIST`
pub const EXISTS: i32 = -17;

#[inline(always)]
fn may_be_translated(cookie: u64) -> bool {
    // SAFETY: an aligned u64 of an array, loaded once. This socket's part of it was counted by a call of the same
    // process that has returned.
    translated(cookie).is_some_and(|count| unsafe { count.read_volatile() } != 0)
}

#[inline(always)]
fn translated(cookie: u64) -> Option<*mut u64> {
    TRANSLATED.get_ptr_mut(cookie as u32 % tombolo_ebpf_layout::TRANSLATED)
}

/// Counts a connect to a backend of a service.
#[inline(always)]
pub fn count_connect(service: u32, backend: u32) {
    add(SERVICE_STATS.get_ptr_mut(service), 1);
    add(STATS.get_ptr_mut(backend), 1);
}

/// Counts a refused connect to a service.
#[inline(always)]
pub fn count_refused(service: u32) {
    add(REFUSED.get_ptr_mut(service), 1);
}

/// Counts a fault.
#[inline(always)]
pub fn count_fault(fault: Fault) {
    add(FAULTS.get_ptr_mut(fault as u32), 1);
}

#[inline(always)]
fn add(counter: Option<*mut u64>, by: i64) {
    if let Some(counter) = counter {
        // SAFETY: an aligned u64 of an array, only ever accessed atomically. The old value is not asked for: a fetching
        // add would need kernel 5.12.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, by as u64) };
    }
}
