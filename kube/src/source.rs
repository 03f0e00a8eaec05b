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

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tombolo_core::object::SourceEvent;
use tracing::{Instrument, info_span};

pub use self::credentials::{Target, TargetError};

use self::credentials::Credentials;
use self::reflect::{Reflections, Seen};
use self::resource::{BUILT_IN, Resource};

/// Batches of readers that may wait to be reflected.
const QUEUE: usize = 16;
/// Events of one message to the listener, beyond which no further batch is added to it.
const BATCH: usize = 1024;

/// Follows the API server until `events` is closed, through restarts, relists and rotated credentials. `Complete` is said
/// once every built-in resource was listed completely.
pub async fn run(target: Target, events: mpsc::Sender<Vec<SourceEvent>>) {
    follow_all(BUILT_IN, Arc::new(Credentials::new(target)), events).await;
}

async fn follow_all(
    resources: &'static [Resource],
    credentials: Arc<Credentials>,
    events: mpsc::Sender<Vec<SourceEvent>>,
) {
    let (seen, mut queue) = mpsc::channel::<(usize, Vec<Seen>)>(QUEUE);
    let mut readers = JoinSet::new();
    for (index, resource) in resources.iter().enumerate() {
        let reading = reader::run(resource, index, Arc::clone(&credentials), seen.clone());
        readers.spawn(reading.instrument(info_span!("watch", resource = resource.name)));
    }
    let mut reflections = Reflections::new(resources);
    loop {
        let (index, batch) = tokio::select! {
            () = events.closed() => return,
            // A reader ends with its panic alone; half a source that looks alive is worse than none.
            _ended = readers.join_next() => return,
            Some(next) = queue.recv() => next,
        };
        let mut said = reflections.apply(index, batch);
        while said.len() < BATCH {
            let Ok((index, batch)) = queue.try_recv() else { break };
            said.append(&mut reflections.apply(index, batch));
        }
        if !said.is_empty() && events.send(said).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
