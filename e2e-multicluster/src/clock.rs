//! Time: the one poll loop, the pace of load, and a clock that all processes of the machine share.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// What a probe of [`wait_until`] saw.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Ready(T),
    /// It does not hold yet; the text says what is there instead.
    NotYet(String),
}

/// Asks `probe` again and again until it is ready, fails, or `within` has passed.
///
/// # Errors
/// The probe's own; a deadline that passed, with what the probe last saw; or Ctrl-C.
pub fn wait_until<T>(what: &str, within: Duration, probe: impl FnMut() -> Result<Seen<T>>) -> Result<T> {
    poll(what, within, probe, interrupted)
}

/// As [`wait_until`], but to its end whatever signals come: for cleaning up.
///
/// # Errors
/// The probe's own, or a deadline that passed.
pub fn wait_through<T>(what: &str, within: Duration, probe: impl FnMut() -> Result<Seen<T>>) -> Result<T> {
    poll(what, within, probe, || false)
}

fn poll<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Seen<T>>,
    give_up: impl Fn() -> bool,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let last = match probe()? {
            Seen::Ready(value) => return Ok(value),
            Seen::NotYet(last) => last,
        };
        if give_up() {
            bail!("interrupted while waiting for {what}");
        }
        if start.elapsed() >= within {
            bail!("{what}: not within {} s; last seen: {last}", within.as_secs_f32());
        }
        pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Asks `probe` at this interval until it gives something: for measuring, where [`wait_until`]'s growing pauses would
/// show in the figures.
///
/// # Errors
/// The probe's own, a deadline that passed, or Ctrl-C.
pub fn watch_for<T>(
    what: &str,
    every: Duration,
    within: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if interrupted() || start.elapsed() >= within {
            bail!("{what}: not within {} s", within.as_secs_f32());
        }
        pause_for(every);
    }
}

/// Waits until this time of a schedule; a time that has passed costs nothing.
///
/// # Errors
/// Ctrl-C.
pub fn until(due: Instant) -> Result<()> {
    let_pass(due.saturating_duration_since(Instant::now()))
}

/// Lets this much time pass, because time passing is the point (load is flowing), never to wait for something.
///
/// # Errors
/// Ctrl-C.
pub fn let_pass(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        if interrupted() {
            bail!("interrupted");
        }
        pause_for(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place where a thread of this crate sleeps")]
fn pause_for(time: Duration) {
    std::thread::sleep(time);
}

/// Microseconds of `CLOCK_MONOTONIC`: the same number in every process of this machine.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at 0");
    let micros = u64::try_from(now.tv_nsec / 1000).expect("nanoseconds are 0 to 999,999,999");
    seconds * 1_000_000 + micros
}

/// Lets this process run before others: who measures, or is measured against, must not wait for a busy machine. Where it
/// may not, it is as any other.
pub fn go_first() {
    let _ = rustix::process::setpriority_process(None, -15);
}

/// Makes SIGINT and SIGTERM end every wait with an error, so that `Drop` cleans up. A second one ends the process,
/// and the run's janitor cleans up.
///
/// # Errors
/// The handler cannot be registered.
pub fn heed_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag))?;
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Whether a signal asked this process to end.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_says_what_was_last_seen() {
        let error = wait_until("rain", Duration::ZERO, || Ok(Seen::<()>::NotYet("sunshine".into()))).unwrap_err();
        assert_eq!(error.to_string(), "rain: not within 0 s; last seen: sunshine");
    }

    #[test]
    fn the_shared_clock_goes_forward() {
        let first = monotonic_us();
        assert!(monotonic_us() >= first);
    }
}
