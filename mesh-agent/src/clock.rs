//! The only place that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use tombolo_core::id::Millis;

/// Milliseconds since it was made, on the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    pub fn now(self) -> Millis {
        Millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The time since it was made, to measure what takes less than a millisecond.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The instant of a time of this clock, for timers.
    pub fn instant(self, at: Millis) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0 + Duration::from_millis(at.0))
    }
}

/// The wall clock, in unix milliseconds: only to say how old a snapshot is, and when a flow was.
#[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The kernel's name for this boot; empty where it has none.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// A number that grows from one start of an agent to the next until the machine reboots: nanoseconds since boot.
///
/// Backend ids begin here, so that none is reused while the kernel runs.
pub fn boot_nanos() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    Duration::from_secs_f64(seconds).as_nanos().try_into().unwrap_or(u64::MAX)
}
