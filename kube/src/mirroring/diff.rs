//! What is to be written, in its order: first what adds, then what removes, so that no Service has fewer endpoints in
//! between than before and after.

use std::collections::BTreeMap;

use super::want::{Mirrored, SliceName, takes};
use super::{Held, Mode};

/// A slice of ours as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct There {
    /// Its content; none when it is not as we write it.
    pub content: Option<Mirrored>,
    /// Whose it says it is, of peers.
    pub cluster: String,
    /// The name of its Service.
    pub service: String,
    /// The uid of the Service that owns it.
    pub owner: Option<String>,
    /// Its own uid.
    pub uid: Option<String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The slice should be so; its Service's uid if it is known.
    Put(SliceName, Mirrored, Option<String>),
    /// The slice of this uid should not be.
    Delete(SliceName, Option<String>),
}

/// From what is to what should be.
pub fn diff(
    held: &Held,
    mode: Mode,
    wanted: BTreeMap<SliceName, Mirrored>,
    there: &BTreeMap<SliceName, There>,
) -> Vec<Write> {
    let surplus = there.iter().filter(|(name, _)| !wanted.contains_key(*name));
    let surplus = surplus.filter(|(name, slice)| may_leave(held, mode, name, slice));
    let deletes: Vec<Write> = surplus.map(|(name, slice)| Write::Delete(name.clone(), slice.uid.clone())).collect();
    let differs = |(name, _): &(SliceName, Mirrored), content: &Mirrored| {
        there.get(name).is_none_or(|there| there.content.as_ref() != Some(content) || there.owner.is_none())
    };
    let puts = wanted.into_iter().filter(|row| differs(row, &row.1));
    let owner = |name: &SliceName| there.get(name).and_then(|there| there.owner.clone());
    let mut writes: Vec<Write> = puts.map(|(name, content)| (owner(&name), name, content)).map(put).collect();
    writes.extend(deletes);
    writes
}

fn put((owner, name, content): (Option<String>, SliceName, Mirrored)) -> Write {
    Write::Put(name, content, owner)
}

/// Whether it is known that a slice should not be, and not only unknown whether it should.
fn may_leave(held: &Held, mode: Mode, name: &SliceName, slice: &There) -> bool {
    if !held.complete {
        return false;
    }
    let imports = held.services.values().any(|spec| {
        spec.key.namespace == name.namespace.as_str() && spec.key.name == slice.service.as_str() && takes(mode, spec)
    });
    if !imports {
        return true;
    }
    let synced = held.synced.iter().any(|peer| peer.as_str() == slice.cluster);
    let is_peer = held.peers.as_ref().is_none_or(|peers| peers.iter().any(|peer| peer.as_str() == slice.cluster));
    synced || !is_peer
}
