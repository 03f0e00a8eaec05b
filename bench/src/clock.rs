//! Time: the processor's, and the pace of load.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The time that this thread has had a processor: what else the machine does meanwhile does not count.
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap_or(0))
}

/// Waits until something is due; not at all when it is late.
#[expect(clippy::disallowed_methods, reason = "the pace of load is a wait")]
pub fn until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
