//! The kernel's maps, and the operations on them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use tombolo_core::tables::{BackendIndex, Limits, Op, ServiceIndex};
use tombolo_ebpf_layout::{Backend, CLUSTERS, CONTROLS, Control, FAULTS, FrontendKey, FrontendPlace, SKIP_LEVELS};

use crate::mapped::Words;
use crate::sets::MOST_SKIPPED;
use crate::sys::WordMap;
use crate::tables::{Tables, call, words};
use crate::{DatapathError, convert, sys};

/// All maps that user space reads or writes; `reverse` is the programs' own, and only counted.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) tables: Tables,
    skip: WordMap<8>,
    reverse: OwnedFd,
    /// Until its reader takes it.
    events: Option<OwnedFd>,
    pub(crate) stats: Words,
    pub(crate) service_stats: Words,
    pub(crate) refused: Words,
    pub(crate) erased: Words,
    pub(crate) faults: Words,
    control: Words,
}

impl Maps {
    /// The maps of a loaded object whose arrays have the sizes of `limits`. The object must keep its own descriptors
    /// until its programs are loaded: their instructions name them.
    #[expect(unsafe_code, reason = "the sizes of a map's keys and values")]
    pub(crate) fn of(ebpf: &Ebpf, limits: &Limits) -> Result<Self, DatapathError> {
        let map = |name| data(ebpf.map(name), name);
        let words = |name, entries| words(&map(name)?, name, entries, 1);
        Ok(Self {
            tables: Tables::of(*limits, map)?,
            // SAFETY: the object has this program's layout, in which keys and values of `skip` have 8 bytes.
            skip: unsafe { WordMap::new(map("skip")?) },
            reverse: map("reverse")?,
            events: Some(map("events")?),
            stats: words("stats", limits.backends)?,
            service_stats: words("service_stats", limits.services)?,
            refused: words("refused", limits.services)?,
            erased: words("erased", CLUSTERS)?,
            faults: words("faults", FAULTS)?,
            control: words("control", CONTROLS)?,
        })
    }

    /// Carries out operations of one kind, whose places were checked; those on a hash map in one system call. A switch
    /// comes after all that it leads to.
    pub(crate) fn write(&self, ops: &[Op]) -> Result<(), DatapathError> {
        match ops.first() {
            Some(Op::PutService { .. }) => self.put_services(ops),
            Some(Op::DeleteService { .. }) => self.delete_services(ops),
            Some(Op::PutMember { .. }) => self.put_members(ops),
            Some(Op::DeleteMember { .. }) => self.delete_members(ops),
            _ => ops.iter().try_for_each(|op| self.write_array(op)),
        }
    }

    fn write_array(&self, op: &Op) -> Result<(), DatapathError> {
        match op {
            Op::PutBackend { index, id, backend } => {
                self.settle(*index);
                self.write_backend(*index, convert::backend(*id, backend).to_words());
            }
            Op::DeleteBackend { index } => {
                self.settle(*index);
                self.write_backend(*index, [0; Backend::WORDS]);
            }
            Op::PutSlots { base, slots } => {
                for (word, backend) in self.tables.slots[base.0 as usize..].iter().zip(slots) {
                    word.store(backend.0.into(), Ordering::Relaxed);
                }
            }
            Op::Switch { service, entry } => {
                let value = convert::switch_value(*entry)?;
                self.tables.switch[service.0 as usize].store(value.to_raw(), Ordering::Release);
            }
            Op::PutService { .. } | Op::DeleteService { .. } | Op::PutMember { .. } | Op::DeleteMember { .. } => {}
        }
        Ok(())
    }

    /// Takes what a place has counted to its cluster's account: another backend may follow there.
    fn settle(&self, index: BackendIndex) {
        let counted = self.stats[index.0 as usize].swap(0, Ordering::Relaxed);
        if counted > 0
            && let Some(backend) = self.tables.backend(index.0)
            && let Some(account) = self.erased.get(usize::from(backend.cluster))
        {
            account.fetch_add(counted, Ordering::Relaxed);
        }
    }

    fn write_backend(&self, index: BackendIndex, words: [u64; Backend::WORDS]) {
        store(&self.tables.backends[index.0 as usize * Backend::WORDS..], words);
    }

    /// Makes frontends known. Each takes its index first, so that whoever finds the entry finds it there.
    fn put_services(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let put = |op: &Op| if let Op::PutService { frontend, entry } = op { Some((*frontend, *entry)) } else { None };
        let (mut keys, mut values) = (Vec::with_capacity(ops.len()), Vec::with_capacity(ops.len()));
        for (frontend, entry) in ops.iter().filter_map(put) {
            values.push(convert::service_value(entry)?.to_raw());
            let key = convert::frontend_key(&frontend);
            self.take_index(entry.index, &key);
            keys.push(key.to_bytes());
        }
        self.tables.services.put(&keys, &values).map_err(full_or("services", self.tables.limits.services))
    }

    /// Gives a service index to a frontend, and clears what the one before it counted.
    fn take_index(&self, index: ServiceIndex, key: &FrontendKey) {
        if self.tables.frontend(index) == Some(*key) {
            return;
        }
        let place = index.0 as usize;
        store(&self.tables.frontends[place * FrontendPlace::WORDS..], FrontendPlace::to_words(key));
        self.service_stats[place].store(0, Ordering::Relaxed);
        self.refused[place].store(0, Ordering::Relaxed);
    }

    fn delete_services(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let key = |op: &Op| match op {
            Op::DeleteService { frontend } => Some(convert::frontend_key(frontend).to_bytes()),
            _ => None,
        };
        let keys: Vec<_> = ops.iter().filter_map(key).collect();
        self.tables.services.delete_all(&keys).map_err(call("BPF_MAP_DELETE_BATCH", "services"))
    }

    fn put_members(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let put = |op: &Op| match op {
            Op::PutMember { service, id, index } => {
                Some((convert::member_key(*service, *id).to_bytes(), u64::from(index.0)))
            }
            _ => None,
        };
        let (keys, values): (Vec<_>, Vec<_>) = ops.iter().filter_map(put).unzip();
        self.tables.members.put(&keys, &values).map_err(full_or("members", self.tables.limits.members))
    }

    fn delete_members(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let key = |op: &Op| match op {
            Op::DeleteMember { service, id } => Some(convert::member_key(*service, *id).to_bytes()),
            _ => None,
        };
        let keys: Vec<_> = ops.iter().filter_map(key).collect();
        self.tables.members.delete_all(&keys).map_err(call("BPF_MAP_DELETE_BATCH", "members"))
    }

    /// Tells the programs something that they read at every connect.
    pub(crate) fn set(&self, control: Control, word: u64) {
        self.control[control as usize].store(word, Ordering::Relaxed);
    }

    /// Leaves the processes in and below these cgroups alone, each given by its level below the root, which is 0, and
    /// its id; and no others.
    pub(crate) fn leave_alone(&self, cgroups: &[(u32, u64)]) -> Result<(), DatapathError> {
        let outside = |level: &(u32, u64)| level.0 >= SKIP_LEVELS;
        if let Some((level, _)) = cgroups.iter().copied().find(outside) {
            return Err(DatapathError::Outside { map: "skip levels", index: level.into(), limit: SKIP_LEVELS });
        }
        let keys: Vec<_> = cgroups.iter().map(|(_, id)| id.to_ne_bytes()).collect();
        let old = self.skip.entries().map_err(call("BPF_MAP_LOOKUP_BATCH", "skip"))?;
        let gone: Vec<_> = old.into_iter().map(|(key, _)| key).filter(|key| !keys.contains(key)).collect();
        self.skip.put(&keys, &vec![1; keys.len()]).map_err(full_or("skip", MOST_SKIPPED))?;
        let levels = cgroups.iter().fold(0_u64, |levels, (level, _)| levels | 1 << level);
        self.set(Control::SkipLevels, levels);
        self.skip.delete_all(&gone).map_err(call("BPF_MAP_DELETE_BATCH", "skip"))
    }

    /// The ring buffer, once.
    pub(crate) fn take_events(&mut self) -> Option<OwnedFd> {
        self.events.take()
    }

    /// Another descriptor of `reverse`.
    pub(crate) fn reverse(&self) -> Result<OwnedFd, DatapathError> {
        self.reverse.try_clone().map_err(call("dup", "reverse"))
    }

    /// How many sockets `reverse` holds.
    pub(crate) fn remembered(&self) -> Result<usize, DatapathError> {
        sys::count_word_keys(&self.reverse).map_err(call("BPF_MAP_GET_NEXT_KEY", "reverse"))
    }
}

fn store<const N: usize>(place: &[AtomicU64], words: [u64; N]) {
    for (word, value) in place.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
}

/// What an update's failure means.
fn full_or(map: &'static str, limit: u32) -> impl Fn(io::Error) -> DatapathError {
    move |source| match source.raw_os_error() {
        Some(libc::E2BIG) => DatapathError::Full { map, limit },
        _ => DatapathError::Call { call: "BPF_MAP_UPDATE_BATCH", object: map, source },
    }
}

/// The descriptor of a map.
fn data(map: Option<&Map>, name: &'static str) -> Result<OwnedFd, DatapathError> {
    let data: &MapData = match map {
        Some(Map::HashMap(data) | Map::Array(data) | Map::RingBuf(data)) => data,
        _ => return Err(DatapathError::Absent(name)),
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|source| DatapathError::Call { call: "dup", object: name, source })
}
