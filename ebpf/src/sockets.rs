//! Ends sockets whose backend is gone, so that their owners notice and dial again.
//!
//! A connected UDP socket would otherwise send to a backend that left for as long as it lives; a TCP connection until it
//! times out. They are found by what `reverse` remembers, in whichever network namespace they are.

mod diag;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use tombolo_core::id::Addr;
use tombolo_core::model::{BackendKey, Frontend, Protocol};
use tombolo_ebpf_layout::Reverse;

use crate::{Datapath, DatapathError, convert, grace_period, sys};

/// How often sockets are looked for that are remembered and were not found: one that is just connecting has been told
/// its backend, and is not connected to it yet.
const ROUNDS: usize = 3;

/// The sockets that were translated, as far as they are remembered. Copies share one map, and outlive the datapath.
#[derive(Clone, Debug)]
pub struct Sockets(Arc<OwnedFd>);

/// What [`Sockets::destroy`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Sockets that were connected to a backend that left.
    pub wanted: usize,
    /// Those that were ended. Others were closed meanwhile, dialled somewhere else, or are in a namespace out of reach.
    pub destroyed: usize,
    /// Network namespaces that were looked into at last; the search ends when all sockets are found.
    pub namespaces: usize,
    /// Network namespaces that could not be entered or asked.
    pub unreachable: usize,
}

/// A socket that is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    protocol: Protocol,
    /// Whom it must be connected to: it may have dialled another address since.
    peer: (Addr, u16),
}

impl Datapath {
    /// A handle on the sockets that are translated.
    pub fn sockets(&self) -> Result<Sockets, DatapathError> {
        self.maps.reverse().map(|reverse| Sockets(Arc::new(reverse)))
    }
}

impl Sockets {
    /// Ends the sockets that dialled one of these frontends and were sent to that backend: the owner's next read fails
    /// with ECONNABORTED, or its next write with EDESTADDRREQ (UDP) or EPIPE (TCP). Sockets that dialled the backend itself are not among them. The frontend says whether UDP or
    /// TCP sockets are meant.
    ///
    /// It is called once no table leads there any more. Blocks, so it belongs on a thread of its own: for a grace period,
    /// then a look at all that `reverse` remembers, and only if something is wanted, one at the processes' namespaces.
    /// [`DatapathError::NoDestroy`] where the kernel cannot.
    pub fn destroy(&self, left: &BTreeSet<(Frontend, BackendKey)>) -> Result<Destroyed, DatapathError> {
        let (mut done, mut found) = (Destroyed::default(), BTreeSet::new());
        for _ in 0..ROUNDS {
            if left.is_empty() {
                break;
            }
            // By then every connect that saw the table of before is remembered.
            grace_period()?;
            let mut targets = self.targets(left)?;
            targets.retain(|cookie, _| !found.contains(cookie));
            done.wanted = found.len() + targets.len();
            if targets.is_empty() {
                break;
            }
            let cookies: Vec<_> = targets.keys().copied().collect();
            let (round, missed) = on_a_thread(targets)?;
            found.extend(cookies.into_iter().filter(|cookie| !missed.contains_key(cookie)));
            done = Destroyed { wanted: done.wanted, destroyed: done.destroyed + round.destroyed, ..round };
        }
        Ok(done)
    }

    /// The cookies of the sockets that are wanted.
    fn targets(&self, left: &BTreeSet<(Frontend, BackendKey)>) -> Result<BTreeMap<u64, Target>, DatapathError> {
        let left: BTreeSet<_> = left.iter().map(|(frontend, to)| (*frontend, to.addr, to.port)).collect();
        let call = |source| DatapathError::Call { call: "BPF_MAP_LOOKUP_BATCH", object: "reverse", source };
        let entries = sys::entries::<8, { size_of::<Reverse>() }>(self.0.as_fd()).map_err(call)?;
        let target = |(cookie, value): ([u8; 8], [u8; size_of::<Reverse>()])| {
            let reverse = Reverse::from_bytes(&value);
            let frontend = convert::frontend(&reverse.frontend())?;
            let (addr, port) = reverse.backend();
            let peer = (Addr::from(addr.octets()), u16::from_be(port));
            let wanted = left.contains(&(frontend, peer.0, peer.1));
            wanted.then_some((u64::from_ne_bytes(cookie), Target { protocol: frontend.protocol, peer }))
        };
        Ok(entries.into_iter().filter_map(target).collect())
    }
}

/// Whether the kernel ends sockets of others, and lets this process do so.
pub(crate) fn can_destroy() -> io::Result<()> {
    diag::can_destroy()
}

/// Searches on a thread that ends with it: entering a namespace changes a thread for good.
fn on_a_thread(targets: BTreeMap<u64, Target>) -> Result<(Destroyed, BTreeMap<u64, Target>), DatapathError> {
    let search = thread::Builder::new().name("sock-destroy".to_owned()).spawn(move || search(targets));
    let joined = search.map(thread::JoinHandle::join).map_err(DatapathError::Destroy)?;
    joined.unwrap_or_else(|_| Err(DatapathError::Destroy(io::Error::other("the search panicked"))))
}

/// Looks for the sockets in one namespace after the other; those that were not found come back.
fn search(mut targets: BTreeMap<u64, Target>) -> Result<(Destroyed, BTreeMap<u64, Target>), DatapathError> {
    let mut done = Destroyed::default();
    for namespace in namespaces::all().map_err(DatapathError::Destroy)? {
        if targets.is_empty() {
            break;
        }
        match namespace.enter().and_then(|()| diag::destroy(&mut targets)) {
            Ok(destroyed) => {
                done.namespaces += 1;
                done.destroyed += destroyed;
            }
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Err(DatapathError::NoDestroy),
            Err(error) => {
                done.unreachable += 1;
                tracing::debug!(%error, "a network namespace could not be searched for sockets");
            }
        }
    }
    Ok((done, targets))
}
