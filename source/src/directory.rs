//! A directory of manifests, watched.
//!
//! [`DirectoryState`] decides; what is here looks. A look is made when the kernel says that a file was closed after
//! writing, renamed, linked or removed, so an edit is seen at once and a half-written file is not. Every [`RESCAN`] the
//! whole directory is compared by its metadata, for file systems and writers that make no such events.

mod scan;
mod state;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tombolo_core::object::SourceEvent;

pub use self::state::{DirectoryState, FileLook, Look};

use self::scan::{Job, Scanner};

/// How often the whole directory is compared with what was last read.
const RESCAN: Duration = Duration::from_secs(2);
/// The same while it cannot be read or watched.
const RESCAN_BROKEN: Duration = Duration::from_millis(250);
/// A file that is gone or empty is looked at again after this long before it counts: editors rename the old version
/// away before they write the new one, and shells truncate first.
const GRACE: Duration = Duration::from_millis(100);
/// Signals that may wait; beyond that the kernel's own queue holds them, and when that is full it says so.
const SIGNALS: usize = 1024;

/// Follows the directory until `events` is closed. Each message is the outcome of one look; the first good look at the
/// whole directory ends with `Complete`. A directory that is missing is a fault and is looked for again.
pub async fn run(path: PathBuf, events: mpsc::Sender<Vec<SourceEvent>>) {
    let (signal, mut signals) = mpsc::channel(SIGNALS);
    let mut scanner = Scanner::new(path, signal);
    let mut job = Job::All;
    let mut rescan = Instant::now();
    loop {
        let whole = job == Job::All;
        let look = tokio::task::spawn_blocking(move || {
            let said = scanner.look(job, Instant::now());
            (scanner, said)
        });
        // An error here means that the runtime is going away.
        let Ok((back, said)) = look.await else { return };
        scanner = back;
        if !said.is_empty() && events.send(said).await.is_err() {
            return;
        }
        if whole {
            rescan = Instant::now() + if scanner.is_watching() { RESCAN } else { RESCAN_BROKEN };
        }
        job = tokio::select! {
            () = events.closed() => return,
            Some(first) = signals.recv() => Job::gather(first, &mut signals),
            () = sleep_until(scanner.next_doubt().map_or(rescan, |at| at.min(rescan))) => scanner.due(Instant::now()),
        };
    }
}

#[cfg(test)]
mod tests;
