//! The kernel's maps, and the operations on them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{Map, MapData};
use tombolo_core::model::Frontend;
use tombolo_core::tables::{BackendIndex, Limits, Op, ServiceEntry};
use tombolo_ebpf_layout::{Backend, FAULTS, ServiceValue, SwitchValue};

use crate::mapped::Words;
use crate::sys::WordMap;
use crate::{DatapathError, convert, sys};

/// All maps that user space reads or writes; `reverse` is the programs' own, and only counted.
#[derive(Debug)]
pub(crate) struct Maps {
    services: WordMap<20>,
    /// The size of `services`.
    limit: u32,
    reverse: OwnedFd,
    pub(crate) switch: Words,
    pub(crate) slots: Words,
    backends: Words,
    pub(crate) stats: Words,
    pub(crate) refused: Words,
    pub(crate) faults: Words,
}

impl Maps {
    /// The maps of a loaded object whose arrays have the sizes of `limits`. The object must keep its own descriptors
    /// until its programs are loaded: their instructions name them.
    #[expect(unsafe_code, reason = "the sizes of a map's keys and values")]
    pub(crate) fn of(ebpf: &Ebpf, limits: &Limits) -> Result<Self, DatapathError> {
        let services = data(ebpf.map("services"), "services")?;
        Ok(Self {
            // SAFETY: the object has this program's layout, in which keys of `services` have 20 and values 8 bytes.
            services: unsafe { WordMap::new(services) },
            limit: limits.services,
            reverse: data(ebpf.map("reverse"), "reverse")?,
            switch: words(ebpf, "switch", limits.services, 1)?,
            slots: words(ebpf, "slots", limits.slots, 1)?,
            backends: words(ebpf, "backends", limits.backends, Backend::WORDS)?,
            stats: words(ebpf, "stats", limits.backends, 1)?,
            refused: words(ebpf, "refused", limits.services, 1)?,
            faults: words(ebpf, "faults", FAULTS, 1)?,
        })
    }

    /// Carries out one operation on an array, whose places were checked. A switch comes after all that it leads to.
    pub(crate) fn write(&self, op: &Op) -> Result<(), DatapathError> {
        match op {
            Op::PutBackend { index, id, backend } => {
                self.write_backend(*index, convert::backend(*id, backend).to_words());
                self.stats[index.0 as usize].store(0, Ordering::Relaxed);
            }
            Op::DeleteBackend { index } => self.write_backend(*index, [0; Backend::WORDS]),
            Op::PutSlots { base, slots } => {
                for (word, backend) in self.slots[base.0 as usize..].iter().zip(slots) {
                    word.store(backend.0.into(), Ordering::Relaxed);
                }
            }
            Op::Switch { service, entry } => {
                let value = convert::switch_value(*entry)?;
                self.switch[service.0 as usize].store(value.to_raw(), Ordering::Release);
            }
            Op::DeleteService { frontend } => {
                let key = convert::frontend_key(frontend).to_bytes();
                self.services.delete(&key).map_err(call("BPF_MAP_DELETE_ELEM"))?;
            }
            Op::PutService { frontend, entry } => self.put_services(&[(*frontend, *entry)])?,
            Op::PutMember { .. } | Op::DeleteMember { .. } => {}
        }
        Ok(())
    }

    fn write_backend(&self, index: BackendIndex, words: [u64; Backend::WORDS]) {
        let place = index.0 as usize * Backend::WORDS;
        for (word, value) in self.backends[place..].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Makes frontends known, many in one call.
    pub(crate) fn put_services(&self, services: &[(Frontend, ServiceEntry)]) -> Result<(), DatapathError> {
        let keys: Vec<_> = services.iter().map(|(frontend, _)| convert::frontend_key(frontend).to_bytes()).collect();
        let values = services
            .iter()
            .map(|(_, entry)| convert::service_value(*entry).map(ServiceValue::to_raw))
            .collect::<Result<Vec<_>, _>>()?;
        self.services.put(&keys, &values).map_err(|source| match source.raw_os_error() {
            Some(libc::E2BIG) => DatapathError::Full { limit: self.limit },
            _ => call("BPF_MAP_UPDATE_BATCH")(source),
        })
    }

    pub(crate) fn service(&self, frontend: &Frontend) -> Result<Option<ServiceValue>, DatapathError> {
        let key = convert::frontend_key(frontend).to_bytes();
        let found = self.services.get(&key).map_err(call("BPF_MAP_LOOKUP_ELEM"))?;
        Ok(found.map(ServiceValue::from_raw))
    }

    /// How many sockets `reverse` holds.
    pub(crate) fn remembered(&self) -> Result<usize, DatapathError> {
        sys::count_word_keys(&self.reverse).map_err(|source| DatapathError::Call {
            call: "BPF_MAP_GET_NEXT_KEY",
            object: "reverse",
            source,
        })
    }

    pub(crate) fn switch(&self, service: u32) -> Option<SwitchValue> {
        self.switch.get(service as usize).map(|word| SwitchValue::from_raw(word.load(Ordering::Acquire)))
    }

    pub(crate) fn backend(&self, index: u32) -> Option<Backend> {
        let (places, _) = self.backends.as_chunks::<{ Backend::WORDS }>();
        let words = places.get(index as usize)?;
        Some(Backend::from_words(words.each_ref().map(|word| word.load(Ordering::Relaxed))))
    }
}

fn call(call: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Call { call, object: "services", source }
}

/// The descriptor of a map.
fn data(map: Option<&Map>, name: &'static str) -> Result<OwnedFd, DatapathError> {
    let data: &MapData = match map {
        Some(Map::HashMap(data) | Map::Array(data)) => data,
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
