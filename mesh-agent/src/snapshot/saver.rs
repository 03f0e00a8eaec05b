//! When a snapshot is due, and the task that writes it, off the driver's thread.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tombolo_core::id::Millis;
use tombolo_core::own::OwnKey;
use tombolo_wire::own;

use super::{Entry, Snapshot, write};
use crate::feed::Feed;

/// At most so often after changes.
const EVERY_MS: u64 = 5_000;
/// Without changes: a snapshot that grows old says that the store was not heard.
const AT_LEAST_MS: u64 = 3_600_000;

/// What is to be written.
#[derive(Debug)]
pub struct Save {
    /// When the store was last heard, in unix milliseconds.
    pub unix_ms: u64,
    /// Key, revision and value of each record.
    pub held: Vec<(OwnKey, i64, Bytes)>,
}

/// Says when a snapshot is due.
#[derive(Debug)]
pub struct Saver {
    changed: bool,
    heard: bool,
    /// When the store was last heard, in unix milliseconds.
    heard_unix_ms: u64,
    saved_at: Millis,
}

impl Saver {
    /// Begins with what an earlier life heard at this time, in unix milliseconds; 0 when there was none.
    pub fn new(heard_unix_ms: u64) -> Self {
        Self { changed: false, heard: false, heard_unix_ms, saved_at: Millis(0) }
    }

    /// The store was heard.
    pub fn heard(&mut self, unix_ms: u64) {
        self.heard = true;
        self.heard_unix_ms = unix_ms;
    }

    /// What is held changed.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// When a snapshot is due, if nothing else happens.
    pub fn deadline(&self) -> Option<Millis> {
        let wait = if self.changed { Some(EVERY_MS) } else { self.heard.then_some(AT_LEAST_MS) };
        wait.map(|ms| self.saved_at.after(ms))
    }

    /// Hands a snapshot to who writes it, if one is due; one who is busy gets a later one.
    pub fn save(&mut self, feed: &Feed, now: Millis, to: &mpsc::Sender<Save>) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        self.saved_at = now;
        if let Ok(permit) = to.try_reserve()
            && let Some(save) = self.take(feed)
        {
            permit.send(save);
        }
    }

    /// The last snapshot of a life that is told to end; `None` when it says nothing new.
    pub fn last(&mut self, feed: &Feed) -> Option<Save> {
        if self.changed || self.heard { self.take(feed) } else { None }
    }

    fn take(&mut self, feed: &Feed) -> Option<Save> {
        let held = feed.held()?;
        (self.changed, self.heard) = (false, false);
        Some(Save { unix_ms: self.heard_unix_ms, held })
    }
}

/// Writes what it is handed, until nobody hands over any more. A failure is said when it begins.
pub async fn save(folder: PathBuf, frame: Snapshot, mut handed: mpsc::Receiver<Save>) {
    let (folder, frame) = (Arc::new(folder), Arc::new(frame));
    let mut failing = false;
    while let Some(Save { unix_ms, held }) = handed.recv().await {
        let (folder, frame) = (folder.clone(), frame.clone());
        let written = tokio::task::spawn_blocking(move || {
            let entry = |(key, revision, value)| Entry { key: own::key_to_string(&key), revision, value };
            let entries = held.into_iter().map(entry).collect();
            write(&folder, &Snapshot { unix_ms, entries, ..Snapshot::clone(&frame) })
        });
        match written.await {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) if !failing => {
                failing = true;
                tracing::error!(%error, "no snapshot: the next start will know nothing until the store answers");
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "writing a snapshot ended by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_5_s_after_the_last_when_something_changed() {
        let (to, mut handed) = mpsc::channel(1);
        let mut feed = crate::feed::tests::started();
        let mut saver = Saver::new(0);
        assert_eq!(saver.deadline(), None);
        saver.heard(77);
        saver.changed();
        saver.save(&feed, Millis(4_999), &to);
        assert!(handed.try_recv().is_err());
        saver.save(&feed, Millis(5_000), &to);
        assert_eq!(handed.try_recv().unwrap().unix_ms, 77);
        assert_eq!(saver.deadline(), None);
        saver.heard(78);
        assert_eq!(saver.deadline(), Some(Millis(5_000 + AT_LEAST_MS)));
        assert_eq!(saver.last(&feed).unwrap().unix_ms, 78);
        assert!(saver.last(&feed).is_none(), "it says nothing new");
        feed = Feed::new(crate::feed::tests::name("ne"));
        saver.changed();
        assert!(saver.last(&feed).is_none(), "what knows nothing replaces no snapshot");
    }

    #[test]
    fn a_busy_writer_gets_a_later_one() {
        let (to, mut handed) = mpsc::channel(1);
        let feed = crate::feed::tests::started();
        let mut saver = Saver::new(0);
        saver.changed();
        saver.save(&feed, Millis(5_000), &to);
        saver.changed();
        saver.save(&feed, Millis(10_000), &to);
        assert_eq!(saver.deadline(), Some(Millis(15_000)), "still to be saved, and the driver does not spin");
        assert!(handed.try_recv().is_ok());
        saver.save(&feed, Millis(15_000), &to);
        assert!(handed.try_recv().is_ok());
    }
}
