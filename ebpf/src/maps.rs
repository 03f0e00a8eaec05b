//! The kernel's maps, and the operations on them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{BackendId, BackendIndex, Limits, Op, ServiceEntry, ServiceIndex};
use tombolo_ebpf_layout::{
    Backend, CLUSTERS, CONTROLS, Control, FAULTS, FrontendKey, FrontendPlace, MemberKey, SKIP_LEVELS, ServiceValue,
    SwitchValue,
};

use crate::mapped::Words;
use crate::sets::MOST_SKIPPED;
use crate::sys::WordMap;
use crate::{DatapathError, convert, sys};

/// All maps that user space reads or writes; `reverse` is the programs' own, and only counted.
#[derive(Debug)]
pub(crate) struct Maps {
    limits: Limits,
    services: WordMap<20>,
    members: WordMap<16>,
    skip: WordMap<8>,
    reverse: OwnedFd,
    /// Until its reader takes it.
    events: Option<OwnedFd>,
    frontends: Words,
    pub(crate) switch: Words,
    pub(crate) slots: Words,
    backends: Words,
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
        let services = data(ebpf.map("services"), "services")?;
        let members = data(ebpf.map("members"), "members")?;
        let skip = data(ebpf.map("skip"), "skip")?;
        Ok(Self {
            limits: *limits,
            // SAFETY: the object has this program's layout, in which keys of `services` have 20 and values 8 bytes.
            services: unsafe { WordMap::new(services) },
            // SAFETY: as above; keys of `members` have 16 and values 8 bytes.
            members: unsafe { WordMap::new(members) },
            // SAFETY: as above; keys and values of `skip` have 8 bytes.
            skip: unsafe { WordMap::new(skip) },
            reverse: data(ebpf.map("reverse"), "reverse")?,
            events: Some(data(ebpf.map("events"), "events")?),
            frontends: words(ebpf, "frontends", limits.services, FrontendPlace::WORDS)?,
            switch: words(ebpf, "switch", limits.services, 1)?,
            slots: words(ebpf, "slots", limits.slots, 1)?,
            backends: words(ebpf, "backends", limits.backends, Backend::WORDS)?,
            stats: words(ebpf, "stats", limits.backends, 1)?,
            service_stats: words(ebpf, "service_stats", limits.services, 1)?,
            refused: words(ebpf, "refused", limits.services, 1)?,
            erased: words(ebpf, "erased", CLUSTERS, 1)?,
            faults: words(ebpf, "faults", FAULTS, 1)?,
            control: words(ebpf, "control", CONTROLS, 1)?,
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
                for (word, backend) in self.slots[base.0 as usize..].iter().zip(slots) {
                    word.store(backend.0.into(), Ordering::Relaxed);
                }
            }
            Op::Switch { service, entry } => {
                let value = convert::switch_value(*entry)?;
                self.switch[service.0 as usize].store(value.to_raw(), Ordering::Release);
            }
            Op::PutService { .. } | Op::DeleteService { .. } | Op::PutMember { .. } | Op::DeleteMember { .. } => {}
        }
        Ok(())
    }

    /// Takes what a place has counted to its cluster's account: another backend may follow there.
    fn settle(&self, index: BackendIndex) {
        let counted = self.stats[index.0 as usize].swap(0, Ordering::Relaxed);
        if counted > 0
            && let Some(backend) = self.backend(index.0)
            && let Some(account) = self.erased.get(usize::from(backend.cluster))
        {
            account.fetch_add(counted, Ordering::Relaxed);
        }
    }

    fn write_backend(&self, index: BackendIndex, words: [u64; Backend::WORDS]) {
        store(&self.backends[index.0 as usize * Backend::WORDS..], words);
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
        self.services.put(&keys, &values).map_err(full_or("services", self.limits.services))
    }

    /// Gives a service index to a frontend, and clears what the one before it counted.
    fn take_index(&self, index: ServiceIndex, key: &FrontendKey) {
        if self.frontend(index) == Some(*key) {
            return;
        }
        let place = index.0 as usize;
        store(&self.frontends[place * FrontendPlace::WORDS..], FrontendPlace::to_words(key));
        self.service_stats[place].store(0, Ordering::Relaxed);
        self.refused[place].store(0, Ordering::Relaxed);
    }

    fn delete_services(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let key = |op: &Op| match op {
            Op::DeleteService { frontend } => Some(convert::frontend_key(frontend).to_bytes()),
            _ => None,
        };
        let keys: Vec<_> = ops.iter().filter_map(key).collect();
        self.services.delete_all(&keys).map_err(call("BPF_MAP_DELETE_BATCH", "services"))
    }

    fn put_members(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let put = |op: &Op| match op {
            Op::PutMember { service, id, index } => {
                Some((convert::member_key(*service, *id).to_bytes(), u64::from(index.0)))
            }
            _ => None,
        };
        let (keys, values): (Vec<_>, Vec<_>) = ops.iter().filter_map(put).unzip();
        self.members.put(&keys, &values).map_err(full_or("members", self.limits.members))
    }

    fn delete_members(&self, ops: &[Op]) -> Result<(), DatapathError> {
        let key = |op: &Op| match op {
            Op::DeleteMember { service, id } => Some(convert::member_key(*service, *id).to_bytes()),
            _ => None,
        };
        let keys: Vec<_> = ops.iter().filter_map(key).collect();
        self.members.delete_all(&keys).map_err(call("BPF_MAP_DELETE_BATCH", "members"))
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

    pub(crate) fn service(&self, frontend: &Frontend) -> Result<Option<ServiceValue>, DatapathError> {
        let key = convert::frontend_key(frontend).to_bytes();
        let found = self.services.get(&key).map_err(call("BPF_MAP_LOOKUP_ELEM", "services"))?;
        Ok(found.map(ServiceValue::from_raw))
    }

    /// All frontends, ascending.
    pub(crate) fn services(&self) -> Result<Vec<(Frontend, ServiceEntry)>, DatapathError> {
        let entries = self.services.entries().map_err(call("BPF_MAP_LOOKUP_BATCH", "services"))?;
        let service = |(key, value): ([u8; 20], u64)| {
            let frontend = convert::frontend(&FrontendKey::from_bytes(&key))?;
            Some((frontend, convert::service_entry(ServiceValue::from_raw(value))))
        };
        let mut services: Vec<_> = entries.into_iter().filter_map(service).collect();
        services.sort_unstable_by_key(|(frontend, _)| *frontend);
        Ok(services)
    }

    pub(crate) fn member(&self, service: ServiceIndex, id: BackendId) -> Result<Option<BackendIndex>, DatapathError> {
        let key = convert::member_key(service, id).to_bytes();
        let found = self.members.get(&key).map_err(call("BPF_MAP_LOOKUP_ELEM", "members"))?;
        Ok(found.map(|index| BackendIndex(index as u32)))
    }

    /// All members, ascending.
    pub(crate) fn members(&self) -> Result<Vec<(ServiceIndex, BackendId, BackendIndex)>, DatapathError> {
        let entries = self.members.entries().map_err(call("BPF_MAP_LOOKUP_BATCH", "members"))?;
        let member = |(key, index): ([u8; 16], u64)| {
            let key = MemberKey::from_bytes(&key);
            (ServiceIndex(key.service()), BackendId(key.id()), BackendIndex(index as u32))
        };
        let mut members: Vec<_> = entries.into_iter().map(member).collect();
        members.sort_unstable();
        Ok(members)
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

    pub(crate) fn frontend(&self, service: ServiceIndex) -> Option<FrontendKey> {
        FrontendPlace::from_words(load(&self.frontends, service.0)?)
    }

    pub(crate) fn switch(&self, service: u32) -> Option<SwitchValue> {
        self.switch.get(service as usize).map(|word| SwitchValue::from_raw(word.load(Ordering::Acquire)))
    }

    pub(crate) fn backend(&self, index: u32) -> Option<Backend> {
        load(&self.backends, index).map(Backend::from_words)
    }

    /// All backends that are somewhere, by their places.
    pub(crate) fn backends(&self) -> Vec<(BackendIndex, BackendId, BackendKey)> {
        let backend = |index| {
            let (id, key) = convert::backend_key(&self.backend(index)?)?;
            Some((BackendIndex(index), id, key))
        };
        (0..self.limits.backends).filter_map(backend).collect()
    }
}

fn store<const N: usize>(place: &[AtomicU64], words: [u64; N]) {
    for (word, value) in place.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
}

/// A value of several words; `None` outside the map.
fn load<const N: usize>(map: &Words, index: u32) -> Option<[u64; N]> {
    let (places, _) = map.as_chunks::<N>();
    let words = places.get(index as usize)?;
    Some(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
}

fn call(call: &'static str, object: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Call { call, object, source }
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

fn words(ebpf: &Ebpf, name: &'static str, entries: u32, each: usize) -> Result<Words, DatapathError> {
    let array = data(ebpf.map(name), name)?;
    Words::map(array.as_fd(), entries as usize * each).map_err(|source| DatapathError::Call {
        call: "mmap",
        object: name,
        source,
    })
}
