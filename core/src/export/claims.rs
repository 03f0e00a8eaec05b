//! Whose an address is, when several objects claim it.
//!
//! An address is given to a new Pod before the old one's object is gone. Who claimed it first has it, the others wait in
//! line, and it is nobody's only when the last one let go; else the late deletion of the old Pod would take away the new
//! one's record (Cilium issue #25562).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use smol_str::SmolStr;

use crate::id::Addr;
use crate::object::PodKey;

/// An object that claims addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A Pod.
    Pod(PodKey),
    /// A CiliumEndpoint.
    Endpoint(PodKey),
    /// A CiliumEndpointSlice, which claims for several Pods.
    Slice(SmolStr),
}

/// All claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    by_addr: BTreeMap<Addr, Group>,
    by_owner: BTreeMap<Owner, BTreeSet<Addr>>,
}

/// Who claims one address.
#[derive(Clone, Debug)]
struct Group {
    primary: Owner,
    /// In the order in which they came; nearly always nobody.
    pending: Vec<Owner>,
}

impl Claims {
    /// An object claims exactly these addresses now, and may say something new of each. Adds those whose record may
    /// have changed.
    pub(super) fn set(&mut self, owner: &Owner, addrs: BTreeSet<Addr>, changed: &mut BTreeSet<Addr>) {
        let before = match addrs.is_empty() {
            true => self.by_owner.remove(owner).unwrap_or_default(),
            false => self.by_owner.insert(owner.clone(), addrs.clone()).unwrap_or_default(),
        };
        for addr in before.difference(&addrs) {
            self.release(*addr, owner, changed);
        }
        for addr in addrs {
            self.claim(addr, owner, changed);
        }
    }

    /// Whose an address is.
    pub(super) fn owner(&self, addr: Addr) -> Option<&Owner> {
        self.by_addr.get(&addr).map(|group| &group.primary)
    }

    /// All addresses that are somebody's.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Addr> {
        self.by_addr.keys().copied()
    }

    fn claim(&mut self, addr: Addr, owner: &Owner, changed: &mut BTreeSet<Addr>) {
        let Some(group) = self.by_addr.get_mut(&addr) else {
            self.by_addr.insert(addr, Group { primary: owner.clone(), pending: Vec::new() });
            changed.insert(addr);
            return;
        };
        if group.primary == *owner {
            changed.insert(addr);
        } else if !group.pending.contains(owner) {
            group.pending.push(owner.clone());
        }
    }

    fn release(&mut self, addr: Addr, owner: &Owner, changed: &mut BTreeSet<Addr>) {
        let Some(group) = self.by_addr.get_mut(&addr) else { return };
        if group.primary != *owner {
            group.pending.retain(|pending| pending != owner);
            return;
        }
        changed.insert(addr);
        if group.pending.is_empty() {
            self.by_addr.remove(&addr);
        } else {
            group.primary = group.pending.remove(0);
        }
    }
}
