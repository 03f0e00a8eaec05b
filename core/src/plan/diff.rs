//! What of the desired tables differs from the installed ones; decides nothing about places.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Tables;
use crate::id::ServiceKey;
use crate::model::{BackendKey, Frontend};
use crate::tables::{Desired, FrontendTable};

/// All that one plan has to change.
pub(super) struct Difference<'a> {
    /// Frontends that are new or differ, ascending.
    pub targets: Vec<Target<'a>>,
    /// Installed frontends that nothing wants any more, ascending.
    pub removed: Vec<Frontend>,
}

/// One frontend that is new or differs.
pub(super) struct Target<'a> {
    pub frontend: Frontend,
    pub owner: &'a ServiceKey,
    pub table: Cow<'a, FrontendTable>,
    /// Backends its installed table does not hold.
    pub added: Vec<BackendKey>,
    /// Backends that only its installed table holds.
    pub dropped: Vec<BackendKey>,
    /// Members to put.
    pub joining: Vec<BackendKey>,
    /// Members to delete.
    pub leaving: Vec<BackendKey>,
    /// How its switch changes.
    pub range: Range,
}

/// What a target's switch needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// The installed range stays.
    Kept,
    /// A new range of so many slots, 0 for an empty table.
    New(u32),
}

impl<'a> Difference<'a> {
    /// What these services change; nobody else's frontends are touched.
    pub(super) fn of(tables: &Tables, desired: &'a [Desired]) -> Self {
        let wanted = wanted(desired);
        let removed: BTreeSet<Frontend> = desired
            .iter()
            .flat_map(|d| tables.owned.get(&d.service).into_iter().flatten())
            .filter(|frontend| !wanted.contains_key(frontend))
            .copied()
            .collect();
        Self { targets: targets(tables, wanted), removed: removed.into_iter().collect() }
    }

    /// What these services change when there are no others.
    pub(super) fn of_all(tables: &Tables, desired: &'a [Desired]) -> Self {
        Self { targets: targets(tables, wanted(desired)), removed: unwanted(tables, desired) }
    }

    pub(super) fn new_frontends(&self, tables: &Tables) -> usize {
        self.targets.iter().filter(|t| !tables.frontends.contains_key(&t.frontend)).count()
    }

    pub(super) fn new_backends(&self, tables: &Tables) -> usize {
        let added = self.targets.iter().flat_map(|t| &t.added);
        let mut new: Vec<&BackendKey> = added.filter(|key| !tables.backends.contains_key(key)).collect();
        new.sort_unstable();
        new.dedup();
        new.len()
    }

    pub(super) fn new_members(&self) -> usize {
        self.targets.iter().map(|t| t.joining.len()).sum()
    }

    pub(super) fn new_ranges(&self) -> impl Iterator<Item = u32> {
        self.targets.iter().filter_map(|t| match t.range {
            Range::New(count) if count > 0 => Some(count),
            Range::New(_) | Range::Kept => None,
        })
    }
}

/// Installed frontends that none of these services wants, ascending.
pub(super) fn unwanted(tables: &Tables, desired: &[Desired]) -> Vec<Frontend> {
    let wanted = wanted(desired);
    tables.frontends.keys().filter(|frontend| !wanted.contains_key(frontend)).copied().collect()
}

/// One table per frontend: of a service named twice the last word counts, of two services the lower name.
pub(super) fn wanted(desired: &[Desired]) -> BTreeMap<Frontend, (&ServiceKey, &FrontendTable)> {
    let services: BTreeMap<&ServiceKey, &Desired> = desired.iter().map(|d| (&d.service, d)).collect();
    let mut wanted = BTreeMap::new();
    for (service, desired) in services {
        for (frontend, table) in &desired.frontends {
            wanted.entry(*frontend).or_insert((service, table));
        }
    }
    wanted
}

fn targets<'a>(tables: &Tables, wanted: BTreeMap<Frontend, (&'a ServiceKey, &'a FrontendTable)>) -> Vec<Target<'a>> {
    wanted.into_iter().filter_map(|(frontend, (owner, table))| target(tables, frontend, owner, table)).collect()
}

/// `None` when the frontend is installed just so.
fn target<'a>(
    tables: &Tables,
    frontend: Frontend,
    owner: &'a ServiceKey,
    table: &'a FrontendTable,
) -> Option<Target<'a>> {
    let installed = tables.frontends.get(&frontend);
    if installed.is_some_and(|row| row.owner.as_ref() == Some(owner) && row.table == *table) {
        return None;
    }
    let table = ascending(table);
    let old: &[_] = installed.map_or(&[], |row| &row.table.backends);
    let old_members: &[_] = installed.map_or(&[], |row| row.table.members());
    let same_slots = installed.is_some() && old == table.backends;
    Some(Target {
        added: only_left(&table.backends, old),
        dropped: only_left(old, &table.backends),
        joining: only_left(table.members(), old_members),
        leaving: only_left(old_members, table.members()),
        range: if same_slots { Range::Kept } else { Range::New(total(&table)) },
        frontend,
        owner,
        table,
    })
}

fn total(table: &FrontendTable) -> u32 {
    table.backends.iter().fold(0, |sum, (_, slots)| sum.saturating_add(*slots))
}

/// The table with each backend once, in order, and with a slot.
fn ascending(table: &FrontendTable) -> Cow<'_, FrontendTable> {
    if table.backends.is_sorted_by(|a, b| a.0 < b.0) && table.backends.iter().all(|(_, slots)| *slots > 0) {
        return Cow::Borrowed(table);
    }
    let mut slots: BTreeMap<BackendKey, u32> = BTreeMap::new();
    for (key, n) in table.backends.iter().filter(|(_, n)| *n > 0) {
        let sum = slots.entry(*key).or_default();
        *sum = sum.saturating_add(*n);
    }
    Cow::Owned(FrontendTable { backends: slots.into_iter().collect(), ..table.clone() })
}

/// The backends of one ascending list that another lacks.
fn only_left(left: &[(BackendKey, u32)], right: &[(BackendKey, u32)]) -> Vec<BackendKey> {
    let mut right = right.iter().map(|(key, _)| key).peekable();
    let missing = |key: &&BackendKey| {
        while right.next_if(|other| other < key).is_some() {}
        right.peek() != Some(key)
    };
    left.iter().map(|(key, _)| key).filter(missing).copied().collect()
}
