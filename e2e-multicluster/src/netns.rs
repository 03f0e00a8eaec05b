//! Doing something inside a network namespace, from this process: in a thread of its own that has moved there.

use std::fs::File;

use anyhow::{Context as _, Result, anyhow};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` on a thread inside the namespace and gives its result. The thread ends with it, so no other code of
/// this process is ever there.
///
/// # Errors
/// The namespace cannot be entered, or `work`'s own.
pub fn inside<T: Send>(netns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{netns}");
    let file = File::open(&path).with_context(|| format!("open {path}"))?;
    let task = move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter {path}"))?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("in {netns}")).spawn_scoped(scope, task)?;
        thread.join().map_err(|_| anyhow!("the work in {netns} panicked"))?
    })
}

/// Runs a future on a runtime of one thread inside the namespace.
///
/// # Errors
/// The namespace cannot be entered, or the future's own.
pub fn block_on<T: Send>(netns: &str, future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    inside(netns, || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}
