//! The one place where tests wait, and a clock that processes share.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock, the same in every process.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds, and says whether it did.
#[expect(clippy::disallowed_methods, reason = "the poll loop")]
pub(crate) fn until(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
