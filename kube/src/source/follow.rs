//! What is asked of the API server next: answers in, the next request and what was seen out. No request is made here.
//!
//! A list is streamed by the watch itself where the server can do that, else fetched in pages; either way it is read at the
//! newest revision, never from a cache that may lag. A watch that ends when it was asked to goes on from its last revision.
//! One that ends in any other way is listed again, for whoever answers next may be another server, restored from an older
//! state: it would take up the old revision and silently say nothing until its own had passed it.

use std::time::Duration;

use smol_str::SmolStr;

use super::decode::{Event, Page};
use super::reflect::Seen;

/// How long a watch is asked to last. Kubernetes' own clients ask for 5 to 10 minutes; `kube` refuses 295 s and more.
pub(super) const LIFE: Duration = Duration::from_secs(270);
/// A watch that ends this much before its time still counts as having lived it out.
const EARLY: Duration = Duration::from_secs(2);
/// How long a watch is waited for beyond its time before its connection counts as dead.
const LATE: Duration = Duration::from_secs(10);
/// How long a server may be silent while it streams a list.
const LIST_SILENCE: Duration = Duration::from_secs(30);
/// A watch that lasted this long ends a series of failures.
const STEADY: Duration = Duration::from_secs(30);
/// A resource may be missing this many times before that is a fault: its definition is there a little earlier than it is.
const MISSING: u32 = 6;
/// The wait after the first failure, at most; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, unless the server names a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait that a server may name.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A page of a list: the first one, or the one after a page.
    Page { more: Option<String> },
    /// A watch that first says everything that exists.
    Stream,
    /// A watch from a revision on.
    Watch { revision: SmolStr },
}

/// The next request, and how long to wait before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) ask: Ask,
    pub(super) after: Duration,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A page, whole.
    Page(Page),
    /// The watch was accepted.
    Opened,
    /// The watch said something.
    Event(Event),
    /// The server ended the watch in order.
    Closed,
    /// The connection could not be made, broke off, or carried nonsense.
    Broken(String),
    /// The server refused.
    Refused(Refusal),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) status: u16,
    pub(super) message: String,
    /// `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

/// Where one resource's reading stands.
#[derive(Debug)]
pub(super) struct Follow {
    state: State,
    /// Failures since a watch was steady.
    failures: u32,
    random: fastrand::Rng,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Paging {
        begun: bool,
    },
    /// Since when the watch is open.
    Streaming {
        since: Duration,
    },
    /// `open` since then, if it was accepted already.
    Watching {
        revision: SmolStr,
        open: Option<Duration>,
    },
}

impl Follow {
    /// Nothing is known; `seed` decides the jitter.
    pub(super) fn new(seed: u64) -> Self {
        let state = State::Streaming { since: Duration::ZERO };
        Self { state, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// The request to begin with.
    pub(super) fn ask(&self) -> Ask {
        match &self.state {
            State::Paging { .. } => Ask::Page { more: None },
            State::Streaming { .. } => Ask::Stream,
            State::Watching { revision, .. } => Ask::Watch { revision: revision.clone() },
        }
    }

    /// How long the server may be silent now.
    pub(super) fn patience(&self) -> Duration {
        match self.state {
            State::Paging { .. } | State::Streaming { .. } => LIST_SILENCE,
            State::Watching { .. } => LIFE + LATE,
        }
    }

    /// Takes an answer in; what it shows is added to `seen`. With a step the running request is over. `now` is any clock
    /// that only goes forward.
    pub(super) fn hear(&mut self, now: Duration, heard: Heard, seen: &mut Vec<Seen>) -> Option<Step> {
        match heard {
            Heard::Opened => self.opened(now, seen),
            Heard::Page(page) => return self.page(now, page, seen),
            Heard::Event(event) => return self.event(now, event, seen),
            Heard::Closed => return Some(self.closed(now, seen)),
            Heard::Broken(why) => return Some(self.broken(now, why, seen)),
            Heard::Refused(refusal) => return Some(self.refused(now, refusal, seen)),
        }
        None
    }

    fn opened(&mut self, now: Duration, seen: &mut Vec<Seen>) {
        match &mut self.state {
            State::Streaming { since } => {
                *since = now;
                seen.push(Seen::ListBegan);
            }
            State::Watching { open, .. } => {
                *open = Some(now);
                seen.push(Seen::Readable);
            }
            State::Paging { .. } => {}
        }
    }

    fn page(&mut self, now: Duration, page: Page, seen: &mut Vec<Seen>) -> Option<Step> {
        let State::Paging { begun } = &mut self.state else { return None };
        if !std::mem::replace(begun, true) {
            seen.push(Seen::ListBegan);
        }
        seen.extend(page.items.into_iter().map(Seen::Put));
        let ask = match page.more {
            Some(more) => Ask::Page { more: Some(more) },
            None if page.revision.is_empty() => {
                return Some(self.broken(now, "the list has no resourceVersion".to_owned(), seen));
            }
            None => {
                seen.push(Seen::ListComplete);
                self.state = State::Watching { revision: page.revision, open: None };
                self.ask()
            }
        };
        Some(Step { ask, after: Duration::ZERO })
    }

    fn event(&mut self, now: Duration, event: Event, seen: &mut Vec<Seen>) -> Option<Step> {
        let reached = match event {
            Event::Put(item) => {
                let revision = item.revision.clone();
                seen.push(Seen::Put(item));
                revision
            }
            Event::Gone { name, revision } => {
                seen.push(Seen::Gone(name));
                revision
            }
            Event::Bookmark { revision } => revision,
            Event::ListEnd { revision } => {
                if let (State::Streaming { since }, false) = (&self.state, revision.is_empty()) {
                    seen.push(Seen::ListComplete);
                    self.state = State::Watching { revision: revision.clone(), open: Some(*since) };
                }
                revision
            }
            Event::Failed { code, message } => {
                return Some(self.refused(now, Refusal { status: code, message, retry_after: None }, seen));
            }
        };
        if let (State::Watching { revision, .. }, false) = (&mut self.state, reached.is_empty()) {
            *revision = reached;
        }
        None
    }

    fn closed(&mut self, now: Duration, seen: &mut Vec<Seen>) -> Step {
        match &mut self.state {
            State::Watching { open, .. } if open.is_some_and(|since| now.saturating_sub(since) + EARLY >= LIFE) => {
                (self.failures, *open) = (0, None);
                Step { ask: self.ask(), after: Duration::ZERO }
            }
            State::Watching { .. } | State::Streaming { .. } | State::Paging { .. } => {
                self.broken(now, "the server ended the watch before its time".to_owned(), seen)
            }
        }
    }

    /// The end of a watch is no fault as long as the list that follows can be read.
    fn broken(&mut self, now: Duration, why: String, seen: &mut Vec<Seen>) -> Step {
        match self.state {
            State::Watching { open: Some(_), .. } => self.note_life(now),
            State::Watching { open: None, .. } | State::Streaming { .. } | State::Paging { .. } => {
                seen.push(Seen::Unreadable(why));
            }
        }
        self.list_again(None)
    }

    fn refused(&mut self, now: Duration, refusal: Refusal, seen: &mut Vec<Seen>) -> Step {
        let Refusal { status, message, retry_after } = refusal;
        self.note_life(now);
        match (status, &self.state) {
            // A server that knows no streamed lists calls their parameters invalid.
            (400 | 405 | 406 | 422, State::Streaming { .. }) => {
                self.state = State::Paging { begun: false };
                return Step { ask: self.ask(), after: Duration::ZERO };
            }
            // What was watched is compacted: that is what lists are for.
            (410, State::Watching { .. }) => return self.list_again(retry_after),
            // Busy, but alive and with the history it had: what was asked is asked again.
            (429, State::Watching { .. }) => {
                seen.push(Seen::Unreadable(format!("HTTP {status}: {message}")));
                return Step { ask: self.ask(), after: self.wait(retry_after) };
            }
            (404, _) if self.failures < MISSING => return self.list_again(retry_after),
            _ => {}
        }
        seen.push(Seen::Unreadable(format!("HTTP {status}: {message}")));
        self.list_again(retry_after)
    }

    /// Streamed and paged lists take turns while they fail.
    fn list_again(&mut self, retry_after: Option<Duration>) -> Step {
        self.state = match self.state {
            State::Streaming { .. } => State::Paging { begun: false },
            State::Paging { .. } | State::Watching { .. } => State::Streaming { since: Duration::ZERO },
        };
        Step { ask: self.ask(), after: self.wait(retry_after) }
    }

    /// An open watch is over.
    fn note_life(&mut self, now: Duration) {
        let State::Watching { open, .. } = &mut self.state else { return };
        if open.take().is_some_and(|since| now.saturating_sub(since) >= STEADY) {
            self.failures = 0;
        }
    }

    /// Doubling, with half of it left to chance; never less than the server asks for.
    fn wait(&mut self, retry_after: Option<Duration>) -> Duration {
        let full = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let wait = full.mul_f64(0.5 + self.random.f64() / 2.0);
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        if asked > wait { asked + wait } else { wait }
    }
}

#[cfg(test)]
mod tests;
