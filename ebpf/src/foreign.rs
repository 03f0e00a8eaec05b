//! Programs of others that change or watch the same addresses.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::cgroups::{above, below};
use crate::hooks::{HOOKS, Hook, OTHER_HOOKS};
use crate::sys;

/// A program that somebody else attached where ours run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// The cgroup it is attached to.
    #[serde(serialize_with = "as_text")]
    pub cgroup: PathBuf,
    /// Where that is, as seen from ours.
    pub relation: Relation,
    /// The hook, as connect4.
    pub hook: &'static str,
    /// The program's id.
    pub id: u32,
    /// Its name, at most 15 bytes; empty when it has none, or went meanwhile.
    pub name: String,
}

/// Where a cgroup is, as seen from ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// It is ours: the order among its programs decides who sees an address first.
    Same,
    /// It is an ancestor: its programs run after ours, and see what ours made of an address.
    Above,
    /// It is a descendant: for its processes its programs run before ours, which see what those made of an address.
    Below,
}

/// What to do where another program would run before ours on the same cgroup, as the kernel cannot put ours first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterOthers {
    /// Do not attach: two programs that translate the same address would depend on which came first.
    #[default]
    Refused,
    /// Attach after them: the operator knows that they translate nothing of ours.
    Allowed,
}

/// A path as text, with what is no UTF-8 replaced.
fn as_text<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "a program without name" } else { &self.name };
        write!(f, "{name} (id {}) on {} of {}", self.id, self.hook, self.cgroup.display())
    }
}

/// Programs on a cgroup, its ancestors and its descendants, except for those in `ours`. What cannot be read, as a cgroup
/// that is just removed, is left out.
pub(crate) fn foreign(cgroup: &Path, ours: &BTreeSet<u32>) -> Vec<Foreign> {
    let here = fs::canonicalize(cgroup).unwrap_or_else(|_| cgroup.to_owned());
    let above = above(&here).into_iter().map(|path| (Relation::Above, path));
    let below = below(&here).into_iter().map(|path| (Relation::Below, path));
    let all = above.chain([(Relation::Same, here.clone())]).chain(below);
    all.flat_map(|(relation, path)| on(&path, relation, ours)).collect()
}

/// Programs on one cgroup.
pub(crate) fn on(cgroup: &Path, relation: Relation, ours: &BTreeSet<u32>) -> Vec<Foreign> {
    let Ok(folder) = File::open(cgroup) else { return Vec::new() };
    let hooks = HOOKS.into_iter().chain(OTHER_HOOKS);
    let at = |hook: Hook| {
        let ids = sys::attached(folder.as_fd(), hook.attach_type).unwrap_or_default();
        let others = ids.into_iter().filter(|id| !ours.contains(id));
        let foreign = move |id| Foreign { cgroup: cgroup.to_owned(), relation, hook: hook.name, id, name: name(id) };
        others.map(foreign).collect::<Vec<_>>()
    };
    hooks.flat_map(at).collect()
}

fn name(id: u32) -> String {
    let program = sys::by_id(sys::Kind::Program, id).ok().flatten();
    program.and_then(|program| sys::program_info(program.as_fd()).ok()).map(|info| info.name).unwrap_or_default()
}
