//! The maps that plans write, as they can be read back: by the datapath that writes them, and by the one that follows it
//! with another layout or size.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use tombolo_core::model::{BackendKey, Frontend};
use tombolo_core::tables::{
    BackendId, BackendIndex, Contents, Limits, Op, Plan, ServiceEntry, ServiceIndex, SlotBase, SwitchEntry,
};
use tombolo_ebpf_layout::{Backend, FrontendKey, FrontendPlace, MemberKey, ServiceValue, SwitchValue};

use crate::mapped::{Words, load};
use crate::pins::failed;
use crate::sets::{MAPS, MapShape};
use crate::sys::WordMap;
use crate::{DatapathError, convert, sys};

/// The maps, in this program's layout.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) limits: Limits,
    pub(crate) services: WordMap<20>,
    pub(crate) members: WordMap<16>,
    pub(crate) frontends: Words,
    pub(crate) switch: Words,
    pub(crate) slots: Words,
    pub(crate) backends: Words,
}

impl Tables {
    /// Maps of this layout and these sizes, each by its name.
    #[expect(unsafe_code, reason = "the sizes of a map's keys and values")]
    pub(crate) fn of(
        limits: Limits,
        map: impl Fn(&'static str) -> Result<OwnedFd, DatapathError>,
    ) -> Result<Self, DatapathError> {
        let words = |name, entries, each| words(&map(name)?, name, entries, each);
        Ok(Self {
            limits,
            // SAFETY: the caller has maps of this program's layout, in which keys of `services` have 20 and values 8 bytes.
            services: unsafe { WordMap::new(map("services")?) },
            // SAFETY: as above; keys of `members` have 16 and values 8 bytes.
            members: unsafe { WordMap::new(map("members")?) },
            frontends: words("frontends", limits.services, FrontendPlace::WORDS)?,
            switch: words("switch", limits.services, 1)?,
            slots: words("slots", limits.slots, 1)?,
            backends: words("backends", limits.backends, Backend::WORDS)?,
        })
    }

    /// The maps in a folder of an earlier datapath, if programs use them: their ids are in `live`. Their sizes are their
    /// own; `None` too when one is absent or has another shape.
    pub(crate) fn pinned(folder: &Path, live: &BTreeSet<u32>) -> Result<Option<Self>, DatapathError> {
        let entries = |name| {
            let shape = MAPS.iter().find(|map| map.name == name);
            shape.map_or(Ok(None), |shape| size(shape, folder, live))
        };
        let sizes = (entries("services")?, entries("frontends")?, entries("switch")?);
        let (Some(services), Some(frontends), Some(switch)) = sizes else { return Ok(None) };
        let sizes = (entries("backends")?, entries("slots")?, entries("members")?);
        let (Some(backends), Some(slots), Some(members)) = sizes else { return Ok(None) };
        if frontends != services || switch != services {
            return Ok(None);
        }
        let map = |name| open(&folder.join(name))?.ok_or(DatapathError::Absent(name));
        Self::of(Limits { services, backends, slots, members }, map).map(Some)
    }

    /// All that the maps hold.
    pub(crate) fn contents(&self) -> Result<Contents, DatapathError> {
        let services = self.services()?;
        let table = |(_, entry): &(Frontend, ServiceEntry)| {
            let switch = self.switch(entry.index);
            (entry.index, (switch, self.slots(SlotBase(switch.base), switch.count)))
        };
        let place = |(_, entry): &(Frontend, ServiceEntry)| {
            Some((entry.index, convert::frontend(&self.frontend(entry.index)?)?))
        };
        Ok(Contents {
            frontends: services.iter().filter_map(place).collect(),
            tables: services.iter().map(table).collect(),
            services,
            backends: self.backends(),
            members: self.members()?,
        })
    }

    pub(crate) fn service(&self, frontend: &Frontend) -> Result<Option<ServiceValue>, DatapathError> {
        let key = convert::frontend_key(frontend).to_bytes();
        let found = self.services.get(&key).map_err(call("BPF_MAP_LOOKUP_ELEM", "services"))?;
        Ok(found.map(ServiceValue::from_raw))
    }

    /// All frontends, ascending.
    fn services(&self) -> Result<Vec<(Frontend, ServiceEntry)>, DatapathError> {
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
    fn members(&self) -> Result<Vec<(ServiceIndex, BackendId, BackendIndex)>, DatapathError> {
        let entries = self.members.entries().map_err(call("BPF_MAP_LOOKUP_BATCH", "members"))?;
        let member = |(key, index): ([u8; 16], u64)| {
            let key = MemberKey::from_bytes(&key);
            (ServiceIndex(key.service()), BackendId(key.id()), BackendIndex(index as u32))
        };
        let mut members: Vec<_> = entries.into_iter().map(member).collect();
        members.sort_unstable();
        Ok(members)
    }

    pub(crate) fn frontend(&self, service: ServiceIndex) -> Option<FrontendKey> {
        FrontendPlace::from_words(load(&self.frontends, service.0)?)
    }

    pub(crate) fn switch(&self, service: ServiceIndex) -> SwitchEntry {
        let word = self.switch.get(service.0 as usize);
        let entry = |word: u64| convert::switch_entry(SwitchValue::from_raw(word));
        word.map(|word| entry(word.load(Ordering::Acquire))).unwrap_or_default()
    }

    pub(crate) fn slots(&self, base: SlotBase, count: u32) -> Vec<BackendIndex> {
        let slots = self.slots.iter().skip(base.0 as usize).take(count as usize);
        slots.map(|word| BackendIndex(word.load(Ordering::Relaxed) as u32)).collect()
    }

    pub(crate) fn backend(&self, index: u32) -> Option<Backend> {
        load(&self.backends, index).map(Backend::from_words)
    }

    /// All backends that are somewhere, by their places.
    fn backends(&self) -> Vec<(BackendIndex, BackendId, BackendKey)> {
        let backend = |index| {
            let (id, key) = convert::backend_key(&self.backend(index)?)?;
            Some((BackendIndex(index), id, key))
        };
        (0..self.limits.backends).filter_map(backend).collect()
    }
}

/// The plan that writes these contents into empty tables.
pub(crate) fn plan_of(contents: &Contents) -> Plan {
    let backends = contents.backends.iter().map(|(index, id, backend)| Op::PutBackend {
        index: *index,
        id: *id,
        backend: *backend,
    });
    let ranges = contents
        .tables
        .values()
        .map(|(switch, slots)| Op::PutSlots { base: SlotBase(switch.base), slots: slots.clone() });
    let switches = contents.tables.iter().map(|(service, (entry, _))| Op::Switch { service: *service, entry: *entry });
    let members =
        contents.members.iter().map(|(service, id, index)| Op::PutMember { service: *service, id: *id, index: *index });
    let services =
        contents.services.iter().map(|(frontend, entry)| Op::PutService { frontend: *frontend, entry: *entry });
    Plan { ops: backends.chain(ranges).chain(switches).chain(members).chain(services).collect(), ..Plan::default() }
}

/// The size of a map in a folder, when it has this shape and is in use.
fn size(shape: &MapShape, folder: &Path, live: &BTreeSet<u32>) -> Result<Option<u32>, DatapathError> {
    let path = folder.join(shape.name);
    let Some(map) = open(&path)? else { return Ok(None) };
    let info = sys::map_info(map.as_fd()).map_err(failed("BPF_OBJ_GET_INFO_BY_FD", &path))?;
    let same = (info.kind, info.key_size as usize, info.value_size as usize) == (shape.kind, shape.key, shape.value);
    Ok((same && live.contains(&info.id)).then_some(info.max_entries))
}

fn open(path: &Path) -> Result<Option<OwnedFd>, DatapathError> {
    sys::pinned(path).map_err(failed("BPF_OBJ_GET", path))
}

/// An array of so many values as memory, each of so many words.
pub(crate) fn words(map: &OwnedFd, name: &'static str, entries: u32, each: usize) -> Result<Words, DatapathError> {
    Words::map(map.as_fd(), entries as usize * each).map_err(call("mmap", name))
}

pub(crate) fn call(call: &'static str, object: &'static str) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Call { call, object, source }
}
