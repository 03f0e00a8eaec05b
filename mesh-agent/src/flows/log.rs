//! The last flows, and who follows them.
//!
//! A follower has a bounded queue: one that is too slow loses flows and is told how many, and never slows the agent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tombolo_core::id::ServiceKey;
use tombolo_core::report::{Flow, FlowsRequest};

/// How many flows are kept for those who ask later.
const KEPT: usize = 1_024;

/// How many flows may wait for one follower.
const QUEUE: usize = 4_096;

/// The last flows, shared by who tells and who asks.
#[derive(Clone, Default)]
pub struct FlowLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    kept: VecDeque<Arc<Flow>>,
    followers: Vec<Follower>,
    closed: bool,
    /// What followers missed since somebody asked.
    missed: u64,
}

struct Follower {
    service: Option<ServiceKey>,
    queue: mpsc::Sender<Next>,
    missed: u64,
}

/// A flow, and how many were left out before it.
struct Next(u64, Arc<Flow>);

impl FlowLog {
    /// Keeps a flow and tells the followers.
    pub fn tell(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut log = self.0.lock();
        let Log { followers, missed, .. } = &mut *log;
        followers.retain_mut(|follower| match follower.tell(&flow) {
            Told::Yes => true,
            Told::Full => {
                *missed += 1;
                true
            }
            Told::Gone => false,
        });
        if log.kept.len() == KEPT {
            log.kept.pop_front();
        }
        log.kept.push_back(flow);
    }

    /// What a reader asked for.
    pub fn read(&self, request: &FlowsRequest) -> FlowStream {
        let mut log = self.0.lock();
        let wanted = |flow: &&Arc<Flow>| wants(request.service.as_ref(), flow);
        let most = request.limit.map_or(KEPT, |limit| limit as usize);
        let mut kept: VecDeque<_> = log.kept.iter().rev().filter(wanted).take(most).cloned().collect();
        kept.make_contiguous().reverse();
        let coming = (request.follow && !log.closed).then(|| {
            let (queue, coming) = mpsc::channel(QUEUE);
            log.followers.push(Follower { service: request.service.clone(), queue, missed: 0 });
            coming
        });
        FlowStream { kept, coming }
    }

    /// What followers have missed since this was asked last.
    pub fn take_missed(&self) -> u64 {
        std::mem::take(&mut self.0.lock().missed)
    }

    /// How many follow, those that went away left out.
    pub fn followers(&self) -> usize {
        let mut log = self.0.lock();
        log.followers.retain(|follower| !follower.queue.is_closed());
        log.followers.len()
    }

    /// Ends all followers' streams once they have read what waits, and those of whoever comes later.
    pub fn close(&self) {
        let mut log = self.0.lock();
        log.closed = true;
        log.followers.clear();
    }
}

/// What became of a flow on its way to a follower.
enum Told {
    /// It has it, or does not want it.
    Yes,
    /// It is too slow.
    Full,
    /// Nobody reads any more.
    Gone,
}

impl Follower {
    fn tell(&mut self, flow: &Arc<Flow>) -> Told {
        if !wants(self.service.as_ref(), flow) {
            return Told::Yes;
        }
        match self.queue.try_send(Next(self.missed, flow.clone())) {
            Ok(()) => {
                self.missed = 0;
                Told::Yes
            }
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.missed += 1;
                Told::Full
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Told::Gone,
        }
    }
}

fn wants(service: Option<&ServiceKey>, flow: &Flow) -> bool {
    service.is_none() || flow.service.as_ref() == service
}

/// First what was kept, then what comes.
pub struct FlowStream {
    kept: VecDeque<Arc<Flow>>,
    coming: Option<mpsc::Receiver<Next>>,
}

impl Stream for FlowStream {
    type Item = Flow;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Flow>> {
        if let Some(flow) = self.kept.pop_front() {
            return Poll::Ready(Some(Flow::clone(&flow)));
        }
        let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
        coming.poll_recv(cx).map(|next| next.map(|Next(missed, flow)| Flow { missed, ..Flow::clone(&flow) }))
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;
    use tombolo_core::flows::Sampling;
    use tombolo_core::model::{Frontend, Protocol};
    use tombolo_core::report::{FlowProcess, FlowVerdict};

    use super::*;

    fn flow(n: u64, service: &str) -> Flow {
        Flow {
            unix_ms: n,
            verdict: FlowVerdict::Refused,
            service: ServiceKey::parse(service),
            frontend: Frontend { addr: "10.96.0.10".parse().unwrap(), port: 80, protocol: Protocol::Tcp },
            backend: None,
            process: FlowProcess { pid: 1, command: "curl".into(), cgroup_id: 1, cgroup: None },
            sampling: Sampling::ALL,
            missed: 0,
        }
    }

    async fn read(stream: FlowStream) -> Vec<(u64, u64)> {
        stream.map(|flow| (flow.unix_ms, flow.missed)).collect().await
    }

    fn log(flows: impl IntoIterator<Item = Flow>) -> FlowLog {
        let log = FlowLog::default();
        flows.into_iter().for_each(|flow| log.tell(flow));
        log
    }

    #[tokio::test]
    async fn the_last_are_kept_and_chosen() {
        let log = log((0..2_000).map(|n| flow(n, if n % 2 == 0 { "a/even" } else { "a/odd" })));
        let all = read(log.read(&FlowsRequest::default())).await;
        assert_eq!((all.len(), all[0].0, all[1_023].0), (1_024, 976, 1_999));
        let service = ServiceKey::parse("a/odd");
        let odd = read(log.read(&FlowsRequest { service, limit: Some(2), follow: false })).await;
        assert_eq!(odd, [(1_997, 0), (1_999, 0)]);
        assert_eq!(log.followers(), 0);
    }

    #[tokio::test]
    async fn a_follower_reads_what_was_and_what_comes() {
        let log = log([flow(1, "a/a"), flow(2, "a/b")]);
        let follower = log.read(&FlowsRequest { service: ServiceKey::parse("a/b"), limit: None, follow: true });
        assert_eq!(log.followers(), 1);
        log.tell(flow(3, "a/a"));
        log.tell(flow(4, "a/b"));
        log.close();
        assert_eq!(read(follower).await, [(2, 0), (4, 0)]);
        let late = log.read(&FlowsRequest { follow: true, ..FlowsRequest::default() });
        assert_eq!(read(late).await.len(), 4, "a closed log still answers, and ends");
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let log = log([]);
        let mut slow = log.read(&FlowsRequest { follow: true, ..FlowsRequest::default() });
        let most = QUEUE as u64;
        (0..most + 7).for_each(|n| log.tell(flow(n, "a/a")));
        for n in 0..most {
            let flow = slow.next().await.unwrap();
            assert_eq!((flow.unix_ms, flow.missed), (n, 0));
        }
        log.tell(flow(9_998, "a/a"));
        log.tell(flow(9_999, "a/a"));
        log.close();
        assert_eq!(read(slow).await, [(9_998, 7), (9_999, 0)]);
        assert_eq!([log.take_missed(), log.take_missed()], [7, 0]);
    }

    #[tokio::test]
    async fn who_goes_away_is_forgotten() {
        let log = log([]);
        drop(log.read(&FlowsRequest { follow: true, ..FlowsRequest::default() }));
        assert_eq!(log.followers(), 0);
    }
}
