//! A cluster's API server as a source: lists and watches in, `tombolo-core`'s source events out.
//!
//! Each resource is read by a task of its own ([`reader`]), which waits and decides nothing: what is asked next is
//! [`follow`]'s choice, and what a reading means for what was said before is [`reflect`]'s. Objects are reduced while they are
//! decoded ([`decode`]); no full object is ever held.

mod credentials;
mod decode;
mod follow;
mod reader;
mod reflect;
mod resource;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tombolo_core::object::SourceEvent;
use tracing::{Instrument, info_span};

pub use self::credentials::{Target, TargetError};

use self::credentials::Credentials;
use self::reflect::{Reflections, Seen, Switch};
use self::resource::{RESOURCES, Resource};

/// Batches of readers that may wait to be reflected.
const QUEUE: usize = 16;
/// Events of one message to the listener, beyond which no further batch is added to it.
const BATCH: usize = 1024;

/// Follows the API server until `events` is closed, through restarts, relists and rotated credentials. `Complete` is said
/// once every resource that is there was listed completely; those of Cilium come and go with their definitions.
pub async fn run(target: Target, events: mpsc::Sender<Vec<SourceEvent>>) {
    follow_all(RESOURCES, Arc::new(Credentials::new(target)), events).await;
}

async fn follow_all(
    resources: &'static [Resource],
    credentials: Arc<Credentials>,
    events: mpsc::Sender<Vec<SourceEvent>>,
) {
    let (seen, mut queue) = mpsc::channel::<(usize, Vec<Seen>)>(QUEUE);
    let mut readers = JoinSet::new();
    let begin = |index: usize, readers: &mut JoinSet<()>| {
        let resource = &resources[index];
        let reading = reader::run(resource, index, Arc::clone(&credentials), seen.clone());
        readers.spawn(reading.instrument(info_span!("watch", resource = resource.name)))
    };
    let mut reflections = Reflections::new(resources);
    let mut running: BTreeMap<usize, AbortHandle> =
        reflections.present().map(|index| (index, begin(index, &mut readers))).collect();
    loop {
        let mut next = tokio::select! {
            () = events.closed() => return,
            Some(ended) = readers.join_next() => match ended {
                Err(e) if e.is_cancelled() => continue,
                // A reader ends with its panic alone; half a source that looks alive is worse than none.
                Ok(()) | Err(_) => return,
            },
            next = queue.recv() => next,
        };
        let mut said = Vec::new();
        while let Some((index, batch)) = next {
            let (mut more, switches) = reflections.apply(index, batch);
            said.append(&mut more);
            for switch in switches {
                match switch {
                    Switch::Begin(index) => drop(running.insert(index, begin(index, &mut readers))),
                    Switch::End(index) => drop(running.remove(&index).map(|reader| reader.abort())),
                }
            }
            next = if said.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        if !said.is_empty() && events.send(said).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
