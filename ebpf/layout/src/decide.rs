//! The decision of a connect: from what a client dials to what becomes of it.

use crate::{Backend, FrontendKey, ServiceValue, SwitchValue};

/// The maps as a connect reads them.
pub trait Maps {
    /// The entry of a frontend.
    fn service(&self, key: &FrontendKey) -> Option<ServiceValue>;
    /// A table's range, in one load; `None` outside the map.
    fn switch(&self, service: u32) -> Option<SwitchValue>;
    /// The index of the backend in a slot; `None` outside the map.
    fn slot(&self, position: u32) -> Option<u32>;
    /// A backend; `None` outside the map.
    fn backend(&self, index: u32) -> Option<Backend>;
}

/// What becomes of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Left as it is.
    Pass,
    /// No backend serves: connection refused.
    Refuse {
        /// The service index.
        service: u32,
    },
    /// Translated.
    To {
        /// The backend's index.
        index: u32,
        /// The backend.
        backend: Backend,
    },
    /// The table leads outside the maps, to no backend, or to one of the other family: refused, and counted as a fault.
    Broken,
}

/// Decides a connect. `switch` is read once, and everything read after it follows from that one word.
#[inline(always)]
pub fn decide<M: Maps>(maps: &M, key: &FrontendKey, random: impl FnOnce() -> u32) -> Verdict {
    let Some(service) = maps.service(key) else { return Verdict::Pass };
    let Some(switch) = maps.switch(service.index()) else { return Verdict::Broken };
    if switch.count() == 0 {
        return if service.pass() { Verdict::Pass } else { Verdict::Refuse { service: service.index() } };
    }
    let Some(position) = switch.pick(random()) else { return Verdict::Broken };
    let Some(index) = maps.slot(position) else { return Verdict::Broken };
    match maps.backend(index) {
        Some(backend) if backend.port != 0 && backend.addr.is_v4() == key.addr().is_v4() => {
            Verdict::To { index, backend }
        }
        _ => Verdict::Broken,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{Maps, Verdict, decide};
    use crate::{Address, Backend, FrontendKey, ServiceValue, SwitchValue, TCP};

    /// Maps of one frontend.
    struct One {
        key: FrontendKey,
        service: ServiceValue,
        switch: SwitchValue,
        slots: Vec<u32>,
        backends: Vec<Backend>,
    }

    impl Maps for One {
        fn service(&self, key: &FrontendKey) -> Option<ServiceValue> {
            (*key == self.key).then_some(self.service)
        }
        fn switch(&self, service: u32) -> Option<SwitchValue> {
            (service == 0).then_some(self.switch)
        }
        fn slot(&self, position: u32) -> Option<u32> {
            self.slots.get(position as usize).copied()
        }
        fn backend(&self, index: u32) -> Option<Backend> {
            self.backends.get(index as usize).copied()
        }
    }

    fn v4(last: u8) -> Address {
        Address::from_v4(u32::from_ne_bytes([10, 0, 0, last]))
    }

    fn frontend() -> FrontendKey {
        FrontendKey::new(v4(1), 80_u16.to_be(), TCP)
    }

    /// A table of `count` slots from `base` over slots 0, 1, 1, 2, 9 of three backends, the last an IPv6 one.
    fn maps(base: u32, count: u32) -> One {
        let v6 = Address::from_octets(*b"0123456789abcdef");
        One {
            key: frontend(),
            service: ServiceValue::new(0, false, 0).unwrap(),
            switch: SwitchValue::new(base, count, 7).unwrap(),
            slots: Vec::from([0, 1, 1, 2, 9]),
            backends: [v4(10), v4(11), v6].map(|a| Backend::new(1, a, 8080_u16.to_be(), TCP, 1)).into(),
        }
    }

    fn index(verdict: Verdict) -> Option<u32> {
        if let Verdict::To { index, .. } = verdict { Some(index) } else { None }
    }

    #[test]
    fn every_slot_is_found_by_some_random_word() {
        let maps = maps(0, 3);
        let third = u32::MAX / 3;
        let picks = [0, third + 1, u32::MAX].map(|random| index(decide(&maps, &frontend(), || random)));
        assert_eq!(picks, [Some(0), Some(1), Some(1)]);
    }

    #[test]
    fn what_is_not_a_frontend_is_left_alone() {
        for other in [
            FrontendKey::new(v4(2), 80_u16.to_be(), TCP),
            FrontendKey::new(v4(1), 81_u16.to_be(), TCP),
            FrontendKey::new(v4(1), 80_u16.to_be(), 17),
        ] {
            assert_eq!(decide(&maps(0, 3), &other, || 0), Verdict::Pass);
        }
    }

    #[test]
    fn an_empty_table_refuses_or_passes() {
        let mut maps = maps(0, 0);
        assert_eq!(decide(&maps, &frontend(), || 0), Verdict::Refuse { service: 0 });
        maps.service = ServiceValue::new(0, true, 0).unwrap();
        assert_eq!(decide(&maps, &frontend(), || 0), Verdict::Pass);
    }

    #[test]
    fn a_broken_table_is_not_followed() {
        // Outside `slots`; a backend outside `backends`; a backend of the other family.
        for base in [5, 4, 3] {
            assert_eq!(decide(&maps(base, 1), &frontend(), || 0), Verdict::Broken, "base {base}");
        }
        let mut no_switch = maps(0, 3);
        no_switch.service = ServiceValue::new(1, false, 0).unwrap();
        assert_eq!(decide(&no_switch, &frontend(), || 0), Verdict::Broken);
        let mut erased = maps(0, 1);
        erased.backends[0].port = 0;
        assert_eq!(decide(&erased, &frontend(), || 0), Verdict::Broken);
    }
}
