//! Tasks that may not end before the program does: when one does, by an error or a panic, the program ends too, and whoever
//! started it starts it again. Half a program that looks alive is worse.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where the first task that ends is told.
#[derive(Clone, Debug)]
pub struct Fatal {
    ended: mpsc::Sender<&'static str>,
}

/// Tells when it is dropped, unless the task was told to end.
struct Watch {
    task: &'static str,
    cancel: CancellationToken,
    fatal: Fatal,
}

impl Fatal {
    /// And the receiver of the name of a task that ended.
    pub fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (ended, told) = mpsc::channel(1);
        (Self { ended }, told)
    }

    /// Runs a task that may end only after `cancel` was cancelled.
    pub async fn watch(self, task: &'static str, cancel: CancellationToken, run: impl Future<Output = ()>) {
        let _watch = Watch { task, cancel, fatal: self };
        run.await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.cancel.is_cancelled() {
            tracing::error!(task = self.task, "a task ended that must not");
            // Somebody was told already, or nobody listens any more.
            let _told_already = self.fatal.ended.try_send(self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_told_and_one_that_is_cancelled_is_not() {
        let (fatal, mut told) = Fatal::new();
        let cancel = CancellationToken::new();
        fatal.clone().watch("ends", cancel.clone(), async {}).await;
        assert_eq!(told.recv().await, Some("ends"));
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(fatal.clone().watch("panics", cancel.clone(), async { panic!("as it should") }));
        assert!(tasks.join_next().await.is_some_and(|ended| ended.is_err()));
        assert_eq!(told.recv().await, Some("panics"));
        cancel.cancel();
        fatal.watch("told to end", cancel, async {}).await;
        assert_eq!(told.recv().await, None);
    }
}
